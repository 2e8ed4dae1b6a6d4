import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from vitlib import data
from vitlib.data.shards import expand, open_shards


def picture(number, kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (number % 256, 0, 0)).save(buffer, kind)
    return buffer.getvalue()


def write(path, files, **options):
    with tarfile.open(path, "w", **options) as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def samples(first, count, classes=3, suffix="png"):
    for number in range(first, first + count):
        yield f"{number:04}.{suffix}", picture(number, "JPEG" if suffix == "jpg" else suffix)
        yield f"{number:04}.cls", str(number % classes).encode()


@pytest.fixture
def folder(tmp_path, cache):
    """Four shards of unequal lengths to train on, one for the test."""
    for shard, (first, count) in enumerate([(0, 9), (9, 3), (12, 10), (22, 8)]):
        write(tmp_path / f"train-{shard:03}.tar", samples(first, count))
    write(tmp_path / "test.tar", samples(100, 6))
    return tmp_path


def complaint(pattern, kind=ValueError):
    with pytest.raises(kind) as error:
        open_shards(str(pattern))
    assert "\n" not in str(error.value)
    return str(error.value)


def shown(pictures):
    """The number that each image shows."""
    red = [
        Image.open(io.BytesIO(pictures[i].source)).getpixel((0, 0))[0]
        for i in range(len(pictures.labels))
    ]
    assert [pictures[i].label for i in range(len(red))] == pictures.labels.tolist()
    return red


def test_each_image_is_found_with_its_class_and_its_file(folder):
    pattern = f"{folder}/train-{{000..003}}.tar::{folder}/test.tar"
    collection = data.open_source(f"shards:{pattern}")
    assert shown(collection.train) == list(range(30))
    assert collection.train.labels.tolist() == [number % 3 for number in range(30)]
    assert collection.train.blocks.tolist() == [0] * 9 + [1] * 3 + [2] * 10 + [3] * 8
    assert shown(collection.test) == list(range(100, 106))
    assert collection.train[11].name == f"{folder}/train-001.tar: 0011.png"
    assert collection.classes == ("0", "1", "2")
    assert collection.notes == ()
    assert collection.name == f"shards:{pattern}"


def test_without_test_shards_every_fifth_of_a_class_is_one(folder):
    collection = open_shards(f"{folder}/train-*.tar")
    assert collection.test.labels.bincount().tolist() == [2, 2, 2]
    assert sorted(shown(collection.train) + shown(collection.test)) == list(range(30))


def test_classes_have_the_names_in_the_file_beside(folder):
    (folder / "classes.txt").write_text("cat\ndog, small\nélan\n", encoding="utf-8")
    assert open_shards(f"{folder}/train-*.tar").classes == ("cat", "dog, small", "élan")
    (folder / "classes.txt").write_text("cat\ndog")
    assert "has 2 different names, and the shards classes up to number 2" in complaint(
        folder / "train-*.tar"
    )


def test_headers_are_read_once_and_again_when_a_shard_changes(folder, cache, monkeypatch):
    pattern = f"{folder}/train-*.tar"
    first = open_shards(pattern)
    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "open", None)
        assert shown(open_shards(pattern).train) == shown(first.train)
    write(folder / "train-001.tar", samples(9, 2))
    changed = open_shards(pattern)
    assert len(changed.train.labels) + len(changed.test.labels) == 29
    for path in cache.glob("shards-*"):
        path.write_bytes(path.read_bytes()[:-100])
    assert shown(open_shards(pattern).train)


def test_a_cache_that_cannot_be_written_is_done_without(folder, cache):
    cache.parent.mkdir()
    cache.write_text("in the way")
    assert len(open_shards(f"{folder}/train-*.tar").train.labels) == 24


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_kind_of_tar_file_is_read(tmp_path, cache, form):
    deep = "a/" * 60 + "x" * 90 if form != tarfile.USTAR_FORMAT else "folder"
    files = [(f"{deep}/{name}", content) for name, content in samples(0, 15, suffix="jpg")]
    write(tmp_path / "s.tar", files, format=form)
    collection = open_shards(str(tmp_path / "s.tar"))
    assert len(collection.train.labels) == 12
    assert Image.open(io.BytesIO(collection.train[3].source)).format == "JPEG"


def test_what_is_no_image_with_a_class_is_left_out_and_counted(tmp_path, cache):
    files = [
        ("readme.txt", b"hello"),
        ("lonely.png", picture(0)),
        ("lost.cls", b"1"),
        *samples(0, 4, classes=1),
        ("0004.PNG", picture(4)), ("0004.CLS", b"0"),
        ("two.png", picture(0)), ("two.jpg", picture(0, "JPEG")), ("two.cls", b"0"),
        ("more.json", b"{}"), ("more.webp", picture(5, "WEBP")), ("more.cls", b"0\n"),
    ]  # fmt: skip
    write(tmp_path / "s.tar", files)
    collection = open_shards(str(tmp_path / "s.tar"))
    assert len(collection.train.labels) + len(collection.test.labels) == 6
    assert collection.notes[0] == "Files left out of the shards, no image with a class: 6."


@pytest.mark.parametrize("text", [b"", b"cat", b"-1", b"1.5", b"9" * 10, b"1 2"])
def test_a_class_that_is_no_number_is_named(tmp_path, cache, text):
    write(tmp_path / "s.tar", [*samples(0, 5), ("bad.png", picture(0)), ("bad.cls", text)])
    assert f"{tmp_path}/s.tar: bad.cls: {text!r} is no class" in complaint(tmp_path / "s.tar")


def test_a_shard_that_is_cut_or_compressed_or_something_else_is_named(folder):
    content = (folder / "train-002.tar").read_bytes()
    for name, spoilt in [
        ("cut.tar", content[:3000]),
        ("header.tar", content[:100]),
        ("empty.tar", b""),
        ("text.tar", b"hello " * 1000),
    ]:
        (folder / name).write_bytes(spoilt)
        assert complaint(folder / name).startswith(f"{folder / name}: no whole, uncompressed tar")
    with tarfile.open(folder / "packed.tar", "w:gz") as archive:
        archive.add(folder / "test.tar")
    assert "unpack it" in complaint(folder / "packed.tar")


def test_shards_without_images_are_named(tmp_path, cache):
    write(tmp_path / "s.tar", [("readme.txt", b"hello")])
    assert "Expected pairs such as 000.jpg and 000.cls" in complaint(tmp_path / "s.tar")


def test_a_missing_shard_is_named(folder):
    for pattern, missing in [
        ("train-{002..004}.tar", "train-004.tar"),
        ("no-*.tar", "no-*.tar"),
        ("none.tar", "none.tar"),
    ]:
        said = complaint(folder / pattern, FileNotFoundError)
        assert said.startswith(f"{folder / missing}: there is no such file")


def test_patterns_stand_for_what_they_do_in_a_shell(tmp_path):
    names = ["a-08", "a-09", "a-10", "b-09", "c-1"]
    for name in names:
        (tmp_path / name).touch()

    def found(pattern):
        return [Path(path).name for path in expand(f"{tmp_path}/{pattern}")]

    assert found("a-{08..10}") == ["a-08", "a-09", "a-10"]
    assert found("{b,a}-09") == ["b-09", "a-09"]
    assert found("c-{1..1}") == ["c-1"]
    assert found("a-*") == ["a-08", "a-09", "a-10"]
    assert found("?-0[89]") == ["a-08", "a-09", "b-09"]
