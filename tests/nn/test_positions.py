from math import cos, sin

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitlib import ViTConfig
from vitlib.nn.positions import (
    position_table,
    positions_backward,
    positions_forward,
    sincos1d_table,
    sincos2d_table,
)

pytestmark = pytest.mark.usefixtures("float64")

sizes = st.integers(1, 4)


@given(sizes, sizes, sizes)
def test_gradients(assert_gradients, batch, tokens, dim):
    inputs = torch.randn(batch, tokens, dim), torch.randn(1, tokens, dim)
    assert_gradients(positions_forward, positions_backward, *inputs)


def test_every_image_receives_the_same_positions():
    x, table = torch.randn(3, 4, 2), torch.randn(1, 4, 2)
    y, _ = positions_forward(x, table)
    for image in range(3):
        assert torch.equal(y[image], x[image] + table[0])


def test_a_table_that_needs_no_gradient_gets_none():
    grad_y = torch.randn(3, 4, 2)
    grad_x, grad_table = positions_backward(grad_y, None, (True, False))
    assert torch.equal(grad_x, grad_y)
    assert grad_table is None


@given(st.integers(1, 9), sizes)
def test_a_sequence_by_its_formula(count, frequencies):
    dim = 2 * frequencies
    expected = [
        [(cos if j % 2 else sin)(t / 10_000 ** (2 * (j // 2) / dim)) for j in range(dim)]
        for t in range(count)
    ]
    torch.testing.assert_close(sincos1d_table(count, dim)[0], torch.tensor(expected))


@given(sizes, sizes, sizes)
def test_a_grid_by_its_formula_in_timms_order(rows, columns, frequencies):
    def row_of_table(r, c):
        waves = [10_000 ** (-i / frequencies) for i in range(frequencies)]
        return [wave(place * w) for wave in (sin, cos) for place in (r, c) for w in waves]

    expected = [row_of_table(r, c) for r in range(rows) for c in range(columns)]
    table = sincos2d_table((rows, columns), 4 * frequencies)
    torch.testing.assert_close(table[0], torch.tensor(expected))


@pytest.mark.parametrize(
    ("make", "places"),
    [(sincos1d_table, 300), (sincos2d_table, (300, 2)), (sincos2d_table, (2, 300))],
)
def test_fixed_tables_are_exact_whatever_the_default(make, places, bfloat16_by_default):
    exact = make(places, 12)
    with bfloat16_by_default():
        assert torch.equal(make(places, 12), exact)


@given(sizes, sizes, sizes)
def test_the_similarity_of_two_places_depends_on_their_offset_alone(rows, columns, frequencies):
    table = sincos2d_table((rows, columns), 4 * frequencies)[0]
    similarity = (table @ table.mT).reshape(rows, columns, rows, columns)
    found = {}
    for r, c, s, d in torch.cartesian_prod(*map(torch.arange, similarity.shape)).tolist():
        value = found.setdefault((r - s, c - d), similarity[r, c, s, d])
        torch.testing.assert_close(similarity[r, c, s, d], value)


def config(position, **options):
    return ViTConfig(image_size=(8, 12), patch_size=4, dim=8, heads=2, position=position, **options)


@pytest.mark.parametrize("pool", ["cls", "mean"])
@pytest.mark.parametrize("registers", [0, 2])
def test_the_table_of_a_configuration(pool, registers):
    has_class_token = pool == "cls"
    in_a_row = position_table(config("sincos1d", pool=pool, registers=registers))
    assert torch.equal(in_a_row, sincos1d_table(6 + has_class_token, 8))
    on_a_grid = position_table(config("sincos2d", pool=pool, registers=registers))
    assert on_a_grid.shape == (1, 6 + has_class_token, 8)
    assert not on_a_grid[:, :-6].any()
    assert torch.equal(on_a_grid[:, -6:], sincos2d_table((2, 3), 8))


@pytest.mark.parametrize("position", ["learned", "rope2d", "none"])
def test_no_fixed_table(position):
    assert position_table(config(position)) is None


@pytest.mark.parametrize(
    ("table", "dim", "message"),
    [
        (lambda dim: sincos1d_table(3, dim), 5, "dim=5 is not divisible by 2"),
        (lambda dim: sincos2d_table((2, 3), dim), 6, "dim=6 is not divisible by 4"),
        (lambda dim: sincos2d_table((2, 3), dim), 0, "dim=0"),
    ],
)
def test_a_width_that_does_not_divide_is_told(table, dim, message):
    with pytest.raises(ValueError, match=message) as refusal:
        table(dim)
    assert "\n" not in str(refusal.value)
