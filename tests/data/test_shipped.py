import shutil

import numpy as np
import pytest

from vitlib import data
from vitlib.data import shipped

ARCHIVES = {"digits": "digits.npz", "fashion_mnist_small": "fashion_mnist_small.npz"}
archives = pytest.mark.parametrize(("name", "file"), ARCHIVES.items())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The shipped files, to be spoilt."""
    for path in shipped.FOLDER.iterdir():
        if path.suffix in (".npz", ".jpg"):
            shutil.copy(path, tmp_path)
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    return tmp_path


def complaint(path, load, kind=ValueError):
    with pytest.raises(kind) as error:
        load()
    said = str(error.value)
    assert said.startswith(f"{path}: ")
    assert said.endswith("Install vitlib again.")
    assert "\n" not in said
    return said


@archives
def test_a_missing_file_is_named(folder, name, file):
    (folder / file).unlink()
    assert "missing" in complaint(folder / file, lambda: data.load(name), FileNotFoundError)


@archives
@pytest.mark.parametrize("part", [0, 10, 0.3, 0.9, -1])
def test_no_part_of_a_file_passes_for_the_whole(folder, name, file, part):
    whole = (folder / file).read_bytes()
    length = int(part * len(whole)) if isinstance(part, float) else part
    (folder / file).write_bytes(whole[:length])
    assert "damaged" in complaint(folder / file, lambda: data.load(name))


@archives
def test_a_flipped_bit_is_found(folder, name, file):
    content = bytearray((folder / file).read_bytes())
    content[len(content) // 2] ^= 4
    (folder / file).write_bytes(content)
    assert "damaged" in complaint(folder / file, lambda: data.load(name))


@archives
def test_an_archive_of_other_arrays_is_found(folder, name, file):
    np.savez(folder / file, other=np.zeros(3))
    assert "damaged, or no npz file of" in complaint(folder / file, lambda: data.load(name))


def test_arrays_of_another_shape_or_kind_are_found(folder):
    for images in (np.zeros((1797, 8, 9), np.uint8), np.zeros((1797, 8, 8))):
        np.savez(folder / "digits.npz", images=images, labels=np.zeros(1797, np.uint8))
        said = complaint(folder / "digits.npz", lambda: data.load("digits"))
        assert f"images is {images.dtype} {images.shape}, expected uint8 (1797, 8, 8)" in said


def test_an_archive_that_would_run_code_is_not_opened(folder):
    labels = np.array([print] * 1797)
    np.savez(folder / "digits.npz", images=np.zeros((1797, 8, 8), np.uint8), labels=labels)
    assert "damaged" in complaint(folder / "digits.npz", lambda: data.load("digits"))


@pytest.mark.parametrize("name", ["china", "flower"])
def test_a_photograph_that_is_missing_or_none_is_named(folder, name):
    path = folder / f"{name}.jpg"
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], (folder / "digits.npz").read_bytes()):
        path.write_bytes(content)
        assert "damaged, or no image" in complaint(path, data.photographs)
    path.unlink()
    assert "missing" in complaint(path, data.photographs, FileNotFoundError)


def test_every_shipped_work_of_others_has_its_licence_beside_it():
    notes = shipped.shipped("LICENSES.txt").read_text()
    works = [path.name for path in shipped.FOLDER.iterdir() if path.suffix in (".npz", ".jpg")]
    assert len(works) == 4
    for work in works:
        assert f"\n\n{work}\n\n" in notes
