import gzip
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitlib.data.idx import read_idx

SHAPE = (3, 4, 5)
VALUES = np.arange(60, dtype=np.uint8).reshape(SHAPE)


def packed(values, shape=None, kind=8):
    shape = values.shape if shape is None else shape
    return struct.pack(f">HBB{len(shape)}I", 0, kind, len(shape), *shape) + values.tobytes()


def write(folder, content):
    path = folder / "values.gz"
    path.write_bytes(gzip.compress(content))
    return path


def complaint(path, shape=SHAPE, kind=ValueError):
    with pytest.raises(kind) as error:
        read_idx(path, shape)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    return str(error.value)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.integers(0, 2**32))
def test_what_was_written_is_read(tmp_path_factory, shape, seed):
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    path = write(tmp_path_factory.getbasetemp(), packed(values))
    read = read_idx(path, tuple(shape))
    assert read.dtype == np.uint8
    assert np.array_equal(read, values)


def test_a_missing_file_is_named(tmp_path):
    assert "no such file" in complaint(tmp_path / "none.gz", kind=FileNotFoundError)
    assert "no such file" in complaint(tmp_path, kind=FileNotFoundError)


def test_what_is_not_gzip_is_named(tmp_path):
    path = tmp_path / "values.gz"
    for content in (b"", b"<html>404</html>", packed(VALUES)):
        path.write_bytes(content)
        complaint(path)


def test_no_part_of_a_file_passes_for_the_whole(tmp_path):
    whole = gzip.compress(packed(VALUES))
    path = tmp_path / "values.gz"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        complaint(path)


def test_a_flipped_bit_is_found_or_changes_nothing(tmp_path):
    whole = gzip.compress(packed(VALUES))
    path = tmp_path / "values.gz"
    found = 0
    for place in range(8 * len(whole)):
        spoilt = bytearray(whole)
        spoilt[place // 8] ^= 1 << place % 8
        path.write_bytes(spoilt)
        try:
            assert np.array_equal(read_idx(path, SHAPE), VALUES)
        except ValueError:
            complaint(path)
            found += 1
    assert found > 8 * (len(whole) - 10)  # of the header's ten bytes some mean nothing here


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "starts with the bytes of nothing, expected 00000803"),
        (b"\0\0", "starts with the bytes 0000, expected 00000803"),
        (packed(VALUES, kind=13), "starts with the bytes 00000d03, expected 00000803"),
        (packed(VALUES.reshape(-1)), "starts with the bytes 00000801, expected 00000803"),
        (packed(VALUES)[:9], "holds the shape (3, 0, 0)"),
        (packed(VALUES, (3, 5, 4)), "holds the shape (3, 5, 4), expected (3, 4, 5)"),
        (packed(VALUES[:2]), "holds the shape (2, 4, 5), expected (3, 4, 5)"),
        (packed(VALUES, (2**32 - 1,) * 3), "holds the shape (4294967295, 4294967295, 4294967295)"),
        (packed(VALUES)[:-1], "unpacks to 75 bytes, expected 76"),
        (packed(VALUES) + b"\0", "unpacks to more than 76 bytes, expected 76"),
        (packed(VALUES) + bytes(10_000_000), "unpacks to more than 76 bytes"),
    ],
)
def test_a_file_that_is_something_else_is_told_by_what_it_is(tmp_path, content, why):
    assert why in complaint(write(tmp_path, content))
