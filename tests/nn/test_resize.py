import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from vitlib.nn.resize import resize_backward, resize_forward, resize_matrix, resize_positions

pytestmark = pytest.mark.usefixtures("float64")

lengths = st.integers(1, 24)
small = st.tuples(st.integers(1, 4), st.integers(1, 4))


def torchs(sheets, size):
    return interpolate(sheets, size=size, mode="bicubic", antialias=True, align_corners=False)


@settings(max_examples=200)
@given(lengths, lengths)
def test_an_axis_is_pytorchs(old, new):
    x = torch.randn(1, 1, old, old)
    matrix = resize_matrix(old, new)
    torch.testing.assert_close(matrix @ x[0, 0], torchs(x, (new, old))[0, 0], rtol=0, atol=1e-12)
    torch.testing.assert_close(x[0, 0] @ matrix.mT, torchs(x, (old, new))[0, 0], rtol=0, atol=1e-12)


@given(lengths, lengths)
def test_rows_sum_to_one_so_a_constant_stays(old, new):
    torch.testing.assert_close(resize_matrix(old, new).sum(-1), torch.ones(new))


@given(lengths)
def test_nothing_happens_to_the_same_size(size):
    torch.testing.assert_close(resize_matrix(size, size), torch.eye(size))


@given(lengths, lengths)
def test_it_does_the_same_from_the_other_end(old, new):
    matrix = resize_matrix(old, new)
    torch.testing.assert_close(matrix.flip(0, 1), matrix)


@pytest.mark.parametrize(("old", "new"), [(300, 7), (7, 300)])
def test_the_weights_are_exact_whatever_the_default(old, new, bfloat16_by_default):
    exact = resize_matrix(old, new)
    with bfloat16_by_default():
        assert torch.equal(resize_matrix(old, new), exact)


@settings(max_examples=50)
@given(small, small, st.integers(0, 2))
def test_a_table_is_pytorchs(old, new, prefix):
    table = torch.randn(1, prefix + old[0] * old[1], 3)
    resized, _ = resize_forward(table, old, new)
    sheets = table[:, prefix:].reshape(1, *old, 3).permute(0, 3, 1, 2)
    expected = torchs(sheets, new).permute(0, 2, 3, 1).reshape(1, -1, 3)
    torch.testing.assert_close(resized[:, prefix:], expected, rtol=0, atol=1e-12)
    assert torch.equal(resized[:, :prefix], table[:, :prefix])


@settings(max_examples=30)
@given(small, small, st.integers(0, 2))
def test_gradients(assert_gradients, old, new, prefix):
    table = torch.randn(1, prefix + old[0] * old[1], 2)
    assert_gradients(resize_forward, resize_backward, table, old, new)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_precision_is_the_tables(dtype):
    table = torch.randn(1, 10, 2, dtype=dtype, requires_grad=True)
    resized = resize_positions(table, (3, 3), (2, 4))
    resized.sum().backward()
    assert resized.dtype == table.grad.dtype == dtype
    assert resized.shape == (1, 9, 2)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ((3, 4), (2, 2), "pos_embed has 10 positions, fewer than the 3 × 4 of old_grid"),
        ((3, 3), (0, 2), "new_grid=0"),
        ((-3, 3), (2, 2), "old_grid=-3"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_grids_that_do_not_fit_are_told(old, new, message):
    with pytest.raises(ValueError, match=message) as refusal:
        resize_forward(torch.zeros(1, 10, 2), old, new)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("lengths", [{"old": 0, "new": 3}, {"old": 3, "new": 0}])
def test_a_length_below_one_is_told(lengths):
    (wrong,) = (name for name, length in lengths.items() if length == 0)
    with pytest.raises(ValueError, match=f"^{wrong}=0"):
        resize_matrix(**lengths)
