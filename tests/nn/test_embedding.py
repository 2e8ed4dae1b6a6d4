import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from vitlib.nn.embedding import PatchEmbedding, embedding_backward, embedding_forward

pytestmark = pytest.mark.usefixtures("float64")

sizes = st.integers(1, 3)


@settings(max_examples=30)
@given(sizes, sizes, sizes, sizes, sizes, sizes, sizes, st.booleans())
def test_gradients(assert_gradients, batch, channels, rows, columns, p, q, dim, bias):
    images = torch.randn(batch, channels, rows * p, columns * q)
    weight, bias = torch.randn(dim, channels, p, q), torch.randn(dim) if bias else None
    assert_gradients(embedding_forward, embedding_backward, images, weight, bias)


@given(sizes, sizes, sizes, sizes, sizes, sizes, sizes)
def test_it_is_a_convolution_of_the_patchs_stride(batch, channels, rows, columns, p, q, dim):
    images = torch.randn(batch, channels, rows * p, columns * q)
    weight, bias = torch.randn(dim, channels, p, q), torch.randn(dim)
    embeddings, _ = embedding_forward(images, weight, bias)
    convolved = functional.conv2d(images, weight, bias, stride=(p, q))
    torch.testing.assert_close(embeddings, convolved.flatten(2).mT)


@settings(max_examples=30)
@given(sizes, sizes, sizes, sizes, sizes, sizes, sizes)
def test_its_gradients_are_the_convolutions(batch, channels, rows, columns, p, q, dim):
    images = torch.randn(batch, channels, rows * p, columns * q, requires_grad=True)
    weight = torch.randn(dim, channels, p, q, requires_grad=True)
    bias = torch.randn(dim, requires_grad=True)
    convolved = functional.conv2d(images, weight, bias, stride=(p, q)).flatten(2).mT
    cotangent = torch.randn_like(convolved)
    expected = torch.autograd.grad(convolved, (images, weight, bias), cotangent)
    with torch.inference_mode():
        _, saved = embedding_forward(images, weight, bias)
        found = embedding_backward(cotangent, saved)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_module_in_both_modes(assert_modes_agree):
    for patch_size in (2, (2, 3)):
        assert_modes_agree(
            lambda gradients, size=patch_size: PatchEmbedding(2, size, 5, gradients),
            torch.randn(3, 2, 4, 6),
        )


def test_it_is_autograds_unless_told():
    assert PatchEmbedding(2, 2, 5).gradients == "autograd"


def test_the_kernel_is_not_turned_round():
    images = torch.arange(4.0).view(1, 1, 2, 2)
    weight = torch.tensor([[[[1.0, 10.0], [100.0, 1000.0]]]])
    embeddings, _ = embedding_forward(images, weight)
    assert embeddings.item() == 0 * 1 + 1 * 10 + 2 * 100 + 3 * 1000


@pytest.mark.usefixtures("unchecked_shapes")
def test_patches_that_do_not_fill_the_image_are_refused_where_a_convolution_would_crop():
    images, weight = torch.randn(1, 1, 5, 4), torch.randn(3, 1, 2, 2)
    with pytest.raises(ValueError, match="2 × 2 pixels do not fill an image of 5 × 4"):
        embedding_forward(images, weight)
