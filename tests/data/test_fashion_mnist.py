import gzip
import hashlib
import os
import struct

import numpy as np
import pytest
import torch

from vitlib import data
from vitlib.data import fashion_mnist
from vitlib.data.fashion_mnist import DEBIAN, TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS

pytestmark = pytest.mark.skipif(
    not DEBIAN.is_dir() and "CI" not in os.environ,
    reason="Debian's package dataset-fashion-mnist is not installed",
)

FILES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)

# From the authors' README, and when they packed each file.
MD5 = {
    TRAIN_IMAGES: "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    TRAIN_LABELS: "25c81989df183df01b3e8a0aad5dffbe",
    TEST_IMAGES: "bef4ecab320f06d8554ea6380940ec79",
    TEST_LABELS: "bb300cfdad3c16e7a12a480ee83cd310",
}
PACKED_AT = {
    TRAIN_IMAGES: 1504176606,
    TRAIN_LABELS: 1504176606,
    TEST_IMAGES: 1504176627,
    TEST_LABELS: 1504176627,
}


def published(file):
    """The authors' own file: Debian's, with the gzip header that Debian replaced."""
    debian = (DEBIAN / file.name).read_bytes()
    name = file.name.removesuffix(".gz").encode()
    time = struct.pack("<I", PACKED_AT[file])
    return b"\x1f\x8b\x08\x08" + time + debian[8:10] + name + b"\0" + debian[10:]


@pytest.fixture
def folder(tmp_path):
    """A folder with the four files in it, to be spoilt."""
    for file in FILES:
        (tmp_path / file.name).symlink_to(DEBIAN / file.name)
    return tmp_path


@pytest.fixture(scope="module")
def whole():
    return data.load("fashion_mnist")


def complaint(kind, **options):
    with pytest.raises(kind) as error:
        data.load("fashion_mnist", **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_checksums_are_those_of_the_published_files():
    for file in FILES:
        content = published(file)
        assert hashlib.md5(content).hexdigest() == MD5[file]
        assert hashlib.sha256(content).hexdigest() == file.packed


def test_it_is_what_the_files_hold(whole):
    for file, images in ((TRAIN_IMAGES, whole.train_images), (TEST_IMAGES, whole.test_images)):
        pixels = np.frombuffer(gzip.decompress((DEBIAN / file.name).read_bytes())[16:], np.uint8)
        assert images.dtype == torch.float32
        assert torch.equal(images.flatten(), torch.tensor(pixels).float() / 255)
    for file, labels in ((TRAIN_LABELS, whole.train_labels), (TEST_LABELS, whole.test_labels)):
        numbers = gzip.decompress((DEBIAN / file.name).read_bytes())[8:]
        assert labels.tolist() == list(numbers)


def test_its_measures_are_those_that_everyone_quotes(whole):
    assert whole.train_images.shape == (60_000, 1, 28, 28)
    assert whole.test_images.shape == (10_000, 1, 28, 28)
    assert whole.train_labels.bincount().tolist() == [6000] * 10
    assert whole.test_labels.bincount().tolist() == [1000] * 10
    assert len(whole.classes) == 10
    assert whole.classes[9] == "Ankle boot"  # what the first training image shows
    assert whole.train_labels[0] == 9
    assert whole.normalisation.mean == pytest.approx((0.2860,), abs=5e-5)
    assert whole.normalisation.std == pytest.approx((0.3530,), abs=5e-5)


def test_a_given_folder_comes_first(folder, whole, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "DEBIAN", folder / "nowhere")
    given = data.load("fashion_mnist", folder=str(folder))
    assert torch.equal(given.test_images, whole.test_images)


def test_without_folder_and_package_it_is_downloaded_once(
    server, cache, tmp_path, monkeypatch, whole
):
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "nowhere")
    monkeypatch.setattr(fashion_mnist, "URL", server.url)
    server.files = {file.name: published(file) for file in FILES}
    server.fault = "cut"
    said = complaint(FileNotFoundError)
    assert said.startswith(server.url + TRAIN_IMAGES.name)
    assert "folder" in said
    server.fault = None
    downloaded = data.load("fashion_mnist")
    assert torch.equal(downloaded.train_images, whole.train_images)
    assert torch.equal(downloaded.test_labels, whole.test_labels)
    assert sorted(path.name for path in cache.iterdir()) == sorted(server.files)
    server.stop()
    assert torch.equal(data.load("fashion_mnist").test_images, whole.test_images)
    server.start()


def test_a_folder_that_is_none_is_named(tmp_path):
    assert f"{tmp_path / 'none'}: there is no such folder" in complaint(
        FileNotFoundError, folder=tmp_path / "none"
    )
    assert "folder=3: expected the path of a folder" in complaint(TypeError, folder=3)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_missing_file_is_named(folder, file):
    (folder / file.name).unlink()
    said = complaint(FileNotFoundError, folder=folder)
    assert said.startswith(f"{folder / file.name}: there is no such file")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_half_a_file_is_named(folder, file):
    half = (DEBIAN / file.name).read_bytes()
    (folder / file.name).unlink()
    (folder / file.name).write_bytes(half[: len(half) // 2])
    assert f"{folder / file.name}: not a whole gzip file" in complaint(ValueError, folder=folder)


def test_files_that_changed_places_are_found(folder):
    (folder / TRAIN_IMAGES.name).rename(folder / "kept")
    (folder / TEST_IMAGES.name).rename(folder / TRAIN_IMAGES.name)
    (folder / "kept").rename(folder / TEST_IMAGES.name)
    assert "holds the shape (10000, 28, 28)" in complaint(ValueError, folder=folder)


@pytest.mark.parametrize("spoil", [lambda label: 10, lambda label: (label + 1) % 10])
def test_labels_of_another_data_set_are_found(folder, spoil):
    """MNIST's files have the same names and shapes, and other values."""
    content = bytearray(gzip.decompress((DEBIAN / TEST_LABELS.name).read_bytes()))
    content[100] = spoil(content[100])
    (folder / TEST_LABELS.name).unlink()
    (folder / TEST_LABELS.name).write_bytes(gzip.compress(content))
    said = complaint(ValueError, folder=folder)
    assert f"{folder / TEST_LABELS.name}: has the shape of Fashion-MNIST's file but not" in said
