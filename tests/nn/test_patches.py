import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from vitlib.nn.patches import patchify, patchify_backward, patchify_forward, unpatchify

pytestmark = pytest.mark.usefixtures("float64")

sizes = st.integers(1, 3)
images_and_patches = st.tuples(
    st.lists(st.integers(1, 3), max_size=2), sizes, sizes, sizes, sizes, sizes
)


def images(batch, channels, rows, columns, p, q):
    return torch.randn(*batch, channels, rows * p, columns * q)


@given(images_and_patches)
def test_unpatchify_undoes_patchify(shape):
    *_, rows, columns, p, q = shape
    whole = images(*shape)
    patches = patchify(whole, (p, q))
    assert patches.shape == (*whole.shape[:-3], rows * columns, shape[1] * p * q)
    assert torch.equal(unpatchify(patches, (p, q), (rows * p, columns * q)), whole)


@given(images_and_patches)
def test_patchify_undoes_unpatchify(shape):
    batch, channels, rows, columns, p, q = shape
    patches = torch.randn(*batch, rows * columns, channels * p * q)
    whole = unpatchify(patches, (p, q), (rows * p, columns * q))
    assert torch.equal(patchify(whole, (p, q)), patches)


@given(sizes, sizes, sizes, sizes, sizes, sizes)
def test_patches_are_those_of_unfold(batch, channels, rows, columns, p, q):
    whole = images([batch], channels, rows, columns, p, q)
    unfolded = functional.unfold(whole, kernel_size=(p, q), stride=(p, q))
    assert torch.equal(patchify(whole, (p, q)), unfolded.mT)


@settings(max_examples=30)
@given(images_and_patches)
def test_gradients(assert_gradients, shape):
    assert_gradients(patchify_forward, patchify_backward, images(*shape), shape[-2:])


def test_patches_go_row_by_row_and_their_entries_by_channel_row_column():
    image = torch.arange(2.0 * 4 * 4).view(2, 4, 4)
    patches = patchify(image, 2)
    assert patches[1].tolist() == [2, 3, 6, 7, 18, 19, 22, 23]
    assert patches[2, 0] == image[0, 2, 0]


def test_one_number_means_a_square():
    image = torch.randn(1, 4, 4)
    assert torch.equal(patchify(image, 2), patchify(image, (2, 2)))
    assert torch.equal(unpatchify(patchify(image, 2), 2, 4), image)


def test_what_is_not_contiguous_is_cut_alike():
    image = torch.randn(2, 4, 6, 3).movedim(-1, 1)
    assert torch.equal(patchify(image, 2), patchify(image.contiguous(), 2))


IMAGE, PATCHES = torch.zeros(1, 3, 6, 8), torch.zeros(1, 4, 12)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: patchify(IMAGE, 4), ValueError, "4 × 4 pixels do not fill an image of 6 × 8"),
        (lambda: patchify(IMAGE, (6, 3)), ValueError, "6 × 3 pixels do not fill"),
        (lambda: patchify(IMAGE, 16), ValueError, "16 × 16 pixels do not fill"),
        (lambda: patchify(IMAGE, 0), ValueError, "patch_size=0"),
        (lambda: patchify(IMAGE, (2, -2)), ValueError, "patch_size=-2"),
        (lambda: patchify(IMAGE, (2, 2, 2)), ValueError, r"patch_size=\(2, 2, 2\)"),
        (lambda: patchify(IMAGE, 2.0), TypeError, "patch_size=2.0"),
        (lambda: patchify(IMAGE, True), TypeError, "patch_size=True"),
        (lambda: patchify(IMAGE[0, 0], 2), ValueError, r"shape \(6, 8\)"),
        (lambda: unpatchify(PATCHES, 2, 6), ValueError, "4 patches of 12 numbers do not make"),
        (lambda: unpatchify(PATCHES, 2, 5), ValueError, "2 × 2 pixels do not fill"),
        (lambda: unpatchify(PATCHES[..., :10], 2, 4), ValueError, "4 patches of 10 numbers"),
        (lambda: unpatchify(PATCHES[0, 0], 2, 4), ValueError, r"shape \(12,\)"),
        (lambda: unpatchify(PATCHES, 2, "4"), TypeError, "image_size='4'"),
        (lambda: unpatchify(PATCHES, "2", 4), TypeError, "patch_size='2'"),
    ],
)
def test_sizes_that_do_not_fit_are_told_in_one_line(call, error, says):
    with pytest.raises(error, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert "expected" in str(caught.value) or "choose" in str(caught.value)
