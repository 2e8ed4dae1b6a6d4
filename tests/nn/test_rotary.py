import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitlib.nn.rotary import rope_table, rotary, rotary_backward, rotary_forward

pytestmark = pytest.mark.usefixtures("float64")

sizes = st.integers(1, 3)
grids = st.tuples(sizes, sizes)


def turned(x, grid):
    """Rotated by complex numbers: a pair is a number in the plane, an angle a factor."""
    quarter = x.shape[-1] // 4
    y = x.clone()
    first = x.shape[2] - grid[0] * grid[1]
    for n in range(grid[0] * grid[1]):
        row, column = divmod(n, grid[1])
        for pair in range(2 * quarter):
            place, i = (row, pair) if pair < quarter else (column, pair - quarter)
            factor = torch.polar(torch.tensor(1.0), torch.tensor(place * 100 ** (-i / quarter)))
            number = torch.complex(x[:, :, first + n, 2 * pair], x[:, :, first + n, 2 * pair + 1])
            number = number * factor
            y[:, :, first + n, 2 * pair] = number.real
            y[:, :, first + n, 2 * pair + 1] = number.imag
    return y


@settings(max_examples=30)
@given(grids, st.integers(0, 2), sizes, sizes)
def test_it_multiplies_complex_numbers(grid, prefix, heads, quarter):
    x = torch.randn(2, heads, prefix + grid[0] * grid[1], 4 * quarter)
    y, _ = rotary_forward(x, rope_table(grid, 4 * quarter))
    torch.testing.assert_close(y, turned(x, grid))


@settings(max_examples=20)
@given(grids, st.integers(0, 2), st.integers(1, 2))
def test_gradients(assert_gradients, grid, prefix, quarter):
    x = torch.randn(2, 2, prefix + grid[0] * grid[1], 4 * quarter)
    table = rope_table(grid, 4 * quarter)
    assert_gradients(
        lambda x: rotary_forward(x, table),
        lambda grad_y, saved: rotary_backward(grad_y, saved),
        x,
    )


@given(grids, sizes)
def test_lengths_are_kept_and_the_backward_pass_is_the_way_back(grid, quarter):
    x = torch.randn(1, 2, 1 + grid[0] * grid[1], 4 * quarter)
    y, table = rotary_forward(x, rope_table(grid, 4 * quarter))
    torch.testing.assert_close(y.norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(rotary_backward(y, table), x)


@given(st.tuples(st.integers(1, 4), st.integers(1, 4)), sizes)
def test_a_score_depends_on_the_offset_alone(grid, quarter):
    table = rope_table(grid, 4 * quarter)
    query, key = torch.randn(2, 1, 1, 1, 4 * quarter)
    everywhere = (1, 1, grid[0] * grid[1], 4 * quarter)
    (q, _), (k, _) = (rotary_forward(x.expand(everywhere), table) for x in (query, key))
    scores = (q[0, 0] @ k[0, 0].mT).reshape(*grid, *grid)
    found = {}
    for r, c, s, d in torch.cartesian_prod(*map(torch.arange, scores.shape)).tolist():
        value = found.setdefault((s - r, d - c), scores[r, c, s, d])
        torch.testing.assert_close(scores[r, c, s, d], value)


def test_the_table_is_exact_whatever_the_default(bfloat16_by_default):
    exact = rope_table((2, 300), 12)
    with bfloat16_by_default():
        assert torch.equal(rope_table((2, 300), 12), exact)


def test_two_turns_make_one():
    table, x = rope_table((2, 3), 8), torch.randn(1, 1, 6, 8)
    once, _ = rotary_forward(x, table)
    twice, _ = rotary_forward(once, table)
    cos, sin = table
    doubled = torch.stack([cos.square() - sin.square(), 2 * sin * cos])
    torch.testing.assert_close(twice, rotary_forward(x, doubled)[0])


def test_tokens_in_front_are_not_turned():
    x = torch.randn(2, 2, 3 + 6, 8)
    y, _ = rotary_forward(x, rope_table((2, 3), 8))
    assert torch.equal(y[:, :, :4], x[:, :, :4])  # patch 0 lies at row 0, column 0: angle 0
    assert not torch.isclose(y[:, :, 4:], x[:, :, 4:]).all(-1).any()


def test_as_a_node_of_the_graph():
    x = torch.randn(1, 2, 7, 8, requires_grad=True)
    table, cotangent = rope_table((2, 3), 8), torch.randn(1, 2, 7, 8)
    grads = [
        torch.autograd.grad((rotary(x, table, gradients=mode) * cotangent).sum(), x)[0]
        for mode in ("derived", "autograd")
    ]
    torch.testing.assert_close(*grads)


def test_a_width_that_does_not_divide_is_told():
    with pytest.raises(ValueError, match="dim / heads=6 is not divisible by 4") as refusal:
        rope_table((2, 2), 6)
    assert "\n" not in str(refusal.value)
