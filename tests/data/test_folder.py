import os

import pytest
from PIL import Image

from vitlib import data
from vitlib.data.folder import open_folder


def fill(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2)).save(root / path)


def paths(pictures, root):
    found = [pictures[i] for i in range(len(pictures.labels))]
    assert [picture.label for picture in found] == pictures.labels.tolist()
    assert [picture.name for picture in found] == [str(picture.source) for picture in found]
    return [str(picture.source.relative_to(root)) for picture in found]


def complaint(root, kind=ValueError):
    with pytest.raises(kind) as error:
        open_folder(root)
    assert "\n" not in str(error.value)
    assert str(root) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["test", "val"])
def test_train_and_test_are_two_folders_of_the_same_classes(tmp_path, name):
    fill(tmp_path, "train/dog/b.png", "train/dog/a.jpg", "train/cat/c.JPEG")
    fill(tmp_path, f"{name}/dog/x.webp", f"{name}/cat/deep/er/y.png", f"{name}/cat/z.png")
    collection = open_folder(tmp_path)
    assert collection.classes == ("cat", "dog")
    assert paths(collection.train, tmp_path) == [
        "train/cat/c.JPEG", "train/dog/a.jpg", "train/dog/b.png"
    ]  # fmt: skip
    assert paths(collection.test, tmp_path) == [
        f"{name}/cat/deep/er/y.png", f"{name}/cat/z.png", f"{name}/dog/x.webp"
    ]  # fmt: skip
    assert collection.test.labels.tolist() == [0, 0, 1]
    assert collection.notes == ()


def test_classes_alone_are_divided_by_a_rule(tmp_path):
    fill(tmp_path, *(f"{name}/{number}.png" for name in "ab" for number in range(7)))
    collection = open_folder(tmp_path)
    assert paths(collection.test, tmp_path) == ["a/4.png", "b/4.png"]
    assert len(paths(collection.train, tmp_path)) == 12
    assert "every fifth" in collection.notes[0]


def test_a_training_part_alone_is_divided_too(tmp_path):
    fill(tmp_path, *(f"train/{name}/{number}.png" for name in "ab" for number in range(5)))
    (tmp_path / "test").mkdir()
    fill(tmp_path, "test/unsorted.png")
    assert paths(open_folder(tmp_path).test, tmp_path) == ["train/a/4.png", "train/b/4.png"]


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path, *(f"{name}/{number}.png" for name in ("ship", "train") for number in range(5)))
    assert open_folder(tmp_path).classes == ("ship", "train")


def test_test_goes_before_val(tmp_path):
    fill(tmp_path, "train/a/0.png", "val/a/1.png", "test/a/2.png")
    assert paths(open_folder(tmp_path).test, tmp_path) == ["test/a/2.png"]


def test_what_is_hidden_or_no_image_is_left_out_and_counted(tmp_path):
    fill(tmp_path, "train/a/0.png", "train/a/.1.png", "train/a/.cache/2.png", "train/.b/3.png")
    fill(tmp_path, "test/a/0.png")
    (tmp_path / "train/a/readme.txt").write_text("hello")
    (tmp_path / "test/a/Thumbs.db").write_bytes(b"")
    collection = open_folder(tmp_path)
    assert paths(collection.train, tmp_path) == ["train/a/0.png"]
    assert collection.notes == ("Files left out, hidden or no images by their suffix: 3.",)


def test_links_are_followed_and_loops_end(tmp_path):
    fill(tmp_path, "train/a/0.png", "train/b/1.png", "test/a/2.png", "test/b/3.png")
    fill(tmp_path, "elsewhere/4.png")
    (tmp_path / "train/a/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/itself").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "train/a/up").symlink_to(tmp_path / "train")  # would bring b's images
    (tmp_path / "train/a/more").symlink_to(tmp_path)
    (tmp_path / "train/a/itself").symlink_to(tmp_path / "train/a/itself")
    (tmp_path / "train/a/5.png").symlink_to(tmp_path / "elsewhere/4.png")
    assert paths(open_folder(tmp_path).train, tmp_path) == [
        "train/a/0.png", "train/a/5.png", "train/a/link/4.png", "train/b/1.png"
    ]  # fmt: skip


def test_the_order_is_that_of_the_names_whatever_the_disk_says(tmp_path, monkeypatch):
    fill(tmp_path, *(f"{name}/{number}/x.png" for name in "ba" for number in range(5)))
    there = open_folder(tmp_path)
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: reversed(list(scandir(path))))
    back = open_folder(tmp_path)
    assert paths(there.train, tmp_path) == paths(back.train, tmp_path)


def test_names_that_are_no_utf8_are_read(tmp_path):
    fill(tmp_path, *(f"a/{number}.png" for number in range(4)))
    fill(tmp_path, os.fsdecode(b"a/\xff.png"))
    test = open_folder(tmp_path).test
    assert test[0].source.exists()


def test_a_folder_that_is_none_or_empty_is_named(tmp_path):
    assert "there is no such folder" in complaint(tmp_path / "none", FileNotFoundError)
    assert "has no subfolders" in complaint(tmp_path)
    fill(tmp_path, "loose.png")
    assert "has no subfolders" in complaint(tmp_path)


def test_a_class_without_images_is_named(tmp_path):
    fill(tmp_path, "train/a/0.png", "test/a/0.png")
    (tmp_path / "train/b").mkdir()
    (tmp_path / "train/b/text.txt").write_text("hello")
    assert f"{tmp_path / 'train'}: no image shows 'b'" in complaint(tmp_path)


def test_classes_that_differ_are_named(tmp_path):
    fill(tmp_path, "train/a/0.png", "train/b/0.png", "test/a/0.png", "test/c/0.png")
    assert "train has 2 classes and test 2; not in both is 'b', 'c'" in complaint(tmp_path)


def test_a_source_may_be_a_folder(tmp_path):
    fill(tmp_path, "train/a/0.png", "test/a/0.png")
    assert data.open_source(str(tmp_path)).name == str(tmp_path)


def test_a_source_may_be_a_data_set():
    assert data.open_source("digits").name == "digits"


@pytest.mark.parametrize("name", ["digts", "no/such/folder", "hf:", "other:thing"])
def test_a_source_that_is_none_is_named_with_what_there_is(name):
    with pytest.raises(FileNotFoundError) as error:
        data.open_source(name)
    said = str(error.value)
    assert f"no data set and no folder is called {name!r}" in said
    assert "fashion_mnist" in said
    assert "hf-stream:…" in said
