import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitlib.nn.class_token import (
    class_token,
    class_token_backward,
    class_token_forward,
    registers,
    registers_backward,
    registers_forward,
)

pytestmark = pytest.mark.usefixtures("float64")

sizes = st.integers(1, 4)
counts = st.integers(0, 3)


@given(sizes, sizes, sizes)
def test_gradients(assert_gradients, batch, patches, dim):
    inputs = torch.randn(batch, patches, dim), torch.randn(1, 1, dim)
    assert_gradients(class_token_forward, class_token_backward, *inputs)


@settings(max_examples=30)
@given(sizes, sizes, sizes, sizes, st.booleans())
def test_gradients_of_registers(assert_gradients, batch, patches, count, dim, behind):
    x, reg_token = torch.randn(batch, patches + behind, dim), torch.randn(1, count, dim)
    assert_gradients(registers_forward, registers_backward, x, reg_token, int(behind))


def test_it_stands_in_front_of_every_image():
    x, token = torch.randn(3, 4, 2), torch.randn(1, 1, 2)
    y, _ = class_token_forward(x, token)
    assert y.shape == (3, 5, 2)
    assert all(torch.equal(image[0], token[0, 0]) for image in y)
    assert torch.equal(y[:, 1:], x)


@given(sizes, sizes, counts, sizes, st.booleans())
def test_registers_stand_between_class_token_and_patches(batch, patches, count, dim, behind):
    x, reg_token = torch.randn(batch, patches + behind, dim), torch.randn(1, count, dim)
    y, _ = registers_forward(x, reg_token, int(behind))
    front, inserted, rest = y.split([int(behind), count, patches], dim=1)
    assert torch.equal(torch.cat([front, rest], dim=1), x)
    assert all(torch.equal(image, reg_token[0]) for image in inserted)


def test_no_registers_change_nothing():
    x = torch.randn(2, 5, 3)
    y, places = registers_forward(x, torch.randn(1, 0, 3), 1)
    assert torch.equal(y, x)
    grad_x, grad_reg = registers_backward(x, places)
    assert torch.equal(grad_x, x)
    assert grad_reg.shape == (1, 0, 3)


def test_their_gradients_are_sums_over_the_batch():
    grad_y = torch.ones(4, 6, 2)
    _, grad_cls = class_token_backward(grad_y, None)
    assert torch.equal(grad_cls, torch.full((1, 1, 2), 4.0))
    _, grad_reg = registers_backward(grad_y, (1, 3))
    assert torch.equal(grad_reg, torch.full((1, 2, 2), 4.0))


@pytest.mark.parametrize("needed", [(True, True), (True, False), (False, True)])
def test_what_needs_no_gradient_gets_none(needed):
    grad_y = torch.randn(4, 6, 2)
    _, grad_cls = class_token_backward(grad_y, None, needed)
    assert (grad_cls is not None) == needed[1]
    grads = registers_backward(grad_y, (1, 3), needed)
    assert [grad is not None for grad in grads] == list(needed)


@pytest.mark.parametrize("gradients", ["autograd", "derived"])
def test_the_whole_front_in_both_modes(gradients):
    x, cls_token, reg_token = torch.randn(3, 4, 2), torch.randn(1, 1, 2), torch.randn(1, 2, 2)
    leaves = [t.requires_grad_() for t in (x, cls_token, reg_token)]
    y = class_token(x, cls_token, gradients=gradients)
    y = registers(y, reg_token, 1, gradients=gradients)
    cotangent = torch.randn_like(y)
    found = torch.autograd.grad(y, leaves, cotangent)
    assert torch.equal(found[0], cotangent[:, 3:])
    torch.testing.assert_close(found[1], cotangent[:, :1].sum(0, keepdim=True))
    torch.testing.assert_close(found[2], cotangent[:, 1:3].sum(0, keepdim=True))
