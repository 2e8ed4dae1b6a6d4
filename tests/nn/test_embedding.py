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


def test_the_module_in_both_modes(assert_modes_agree):
    for patch_size in (2, (2, 3)):
        assert_modes_agree(
            lambda gradients, size=patch_size: PatchEmbedding(2, size, 5, gradients),
            torch.randn(3, 2, 4, 6),
        )
