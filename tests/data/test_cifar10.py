import hashlib
import io
import tarfile

import numpy as np
import pytest
import torch

from vitlib import data
from vitlib.data import cifar10
from vitlib.data.cifar10 import ARCHIVE, TEST, TRAIN

RECORDS = 20
BYTES = RECORDS * 3073


def packed(files):
    """An archive in the form of the published one."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def files():
    """The files of a stand-in with twenty records each, and what else is in the archive."""
    random = np.random.default_rng(0)
    files = {}
    for name in TRAIN + TEST:
        records = random.integers(0, 256, (RECORDS, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(RECORDS) % 10
        files[name] = records.tobytes()
    return files | {"cifar-10-batches-bin/batches.meta.txt": b"airplane\n", "../../escaped": b"x"}


@pytest.fixture
def publish(monkeypatch):
    """Make a stand-in the archive that is expected."""

    def publish(files):
        content = packed(files)
        monkeypatch.setattr(cifar10, "_RECORDS", RECORDS)
        monkeypatch.setattr(cifar10, "SHA256", hashlib.sha256(content).hexdigest())
        return content

    return publish


def complaint(kind, **options):
    with pytest.raises(kind) as error:
        data.load("cifar10", **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_images_and_labels_are_what_the_records_hold(tmp_path, files, publish):
    (tmp_path / ARCHIVE).write_bytes(publish(files))
    dataset = data.load("cifar10", folder=tmp_path)
    assert dataset.name == "cifar10"
    for names, images, labels in (
        (TRAIN, dataset.train_images, dataset.train_labels),
        (TEST, dataset.test_images, dataset.test_labels),
    ):
        content = b"".join(files[name] for name in names)
        assert images.shape == (RECORDS * len(names), 3, 32, 32)
        assert images.dtype == torch.float32
        assert labels.tolist() == list(content[::3073])
        for image, channel, row, column in ((0, 0, 0, 0), (3, 2, 1, 31), (19, 1, 31, 0)):
            byte = content[image * 3073 + 1 + channel * 1024 + row * 32 + column]
            assert images[image, channel, row, column] == pytest.approx(byte / 255)
    assert dataset.classes[:2] == ("airplane", "automobile")
    assert len(dataset.classes) == 10
    mean = dataset.train_images.double().mean((0, 2, 3))
    assert dataset.normalisation.mean == pytest.approx(mean.tolist())


def test_without_a_folder_it_is_downloaded_once_and_unpacked_nowhere(
    server, cache, tmp_path, monkeypatch, files, publish
):
    monkeypatch.setattr(cifar10, "URL", server.url)
    server.files = {ARCHIVE: publish(files)}
    server.fault = "corrupted"
    assert complaint(ValueError).startswith(server.url + ARCHIVE)
    server.fault = None
    first, again = data.load("cifar10"), data.load("cifar10")
    assert torch.equal(first.train_images, again.train_images)
    assert server.asked == 2
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [ARCHIVE]


def test_a_folder_that_is_none_is_named(tmp_path):
    assert str(tmp_path / ARCHIVE) in complaint(FileNotFoundError, folder=tmp_path)
    assert "folder=3: expected the path" in complaint(TypeError, folder=3)


def test_another_archive_of_that_name_is_not_opened(tmp_path, files, publish):
    content = bytearray(publish(files))
    content[len(content) // 2] ^= 1
    (tmp_path / ARCHIVE).write_bytes(content)
    assert "not the archive that was published" in complaint(ValueError, folder=tmp_path)


@pytest.mark.parametrize("change", ["missing", "short"])
def test_an_archive_of_another_form_is_named(tmp_path, files, publish, change):
    """Which can only happen if the published archive itself is of another form."""
    content = files.pop(TRAIN[2])
    if change == "short":
        files[TRAIN[2]] = content[:-1]
    (tmp_path / ARCHIVE).write_bytes(publish(files))
    said = complaint(ValueError, folder=tmp_path)
    assert said.startswith(str(tmp_path / ARCHIVE))
    assert "damaged" in said if change == "short" else f"holds no {TRAIN[2]}" in said
