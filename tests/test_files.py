import resource

import pytest

from vitlib.files import write_atomically


@pytest.fixture
def path(tmp_path):
    return tmp_path / "report.html"


def test_a_file_holds_what_it_was_given_and_nothing_lies_beside_it(path):
    for content in (b"first, and longer", b"second", b""):
        write_atomically(path, content)
        assert path.read_bytes() == content
        assert list(path.parent.iterdir()) == [path]


def test_who_reads_the_old_file_reads_it_to_its_end(path):
    write_atomically(path, b"old" * 1000)
    with path.open("rb") as file:
        assert file.read(3) == b"old"
        write_atomically(path, b"new")
        assert file.read() == b"old" * 999


def test_a_full_disk_leaves_the_old_file_and_nothing_else(path):
    write_atomically(path, b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_atomically(path, b"new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "none" / "file", b"content")
    assert list(tmp_path.iterdir()) == []
