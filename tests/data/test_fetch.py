import hashlib
import resource

import pooch
import pytest
import requests

from vitlib.data.fetch import fetch

CONTENT = bytes(range(256)) * 800
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def _file(server):
    server.files["numbers.bin"] = CONTENT


@pytest.fixture
def url(server):
    return server.url + "numbers.bin"


def complaint(url, kind):
    with pytest.raises(kind) as error:
        fetch(url, SHA256)
    assert "\n" not in str(error.value)
    return str(error.value)


def kept(cache):
    return sorted(path.name for path in cache.rglob("*"))


def test_a_file_is_fetched_once(server, cache, url):
    path = fetch(url, SHA256)
    assert path.read_bytes() == CONTENT
    assert path.parent == cache
    assert fetch(url, SHA256) == path
    assert server.asked == 1
    assert kept(cache) == ["numbers.bin"]


@pytest.mark.parametrize(
    ("fault", "kind", "why"),
    [
        ("cut", FileNotFoundError, "cannot be downloaded"),
        ("cut, length unknown", ValueError, "not the file expected"),
        ("corrupted", ValueError, "not the file expected"),
        (404, FileNotFoundError, "404"),
        (500, FileNotFoundError, "500"),
    ],
)
def test_a_spoilt_transfer_leaves_nothing_and_the_next_succeeds(
    server, cache, url, fault, kind, why
):
    server.fault = fault
    said = complaint(url, kind)
    assert said.startswith(url)
    assert why in said
    assert kept(cache) == []
    server.fault = None
    assert fetch(url, SHA256).read_bytes() == CONTENT


def test_a_server_that_is_down_leaves_nothing_and_the_next_try_succeeds(server, cache, url):
    server.stop()
    said = complaint(url, FileNotFoundError)
    assert "refused" in said
    assert kept(cache) == []
    server.start()
    assert fetch(url, SHA256).read_bytes() == CONTENT


def test_ctrl_c_leaves_nothing(cache, url, monkeypatch):
    def interrupted(*_, **__):
        yield CONTENT[:1000]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(requests.Response, "iter_content", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch(url, SHA256)
    assert kept(cache) == []
    assert fetch(url, SHA256).read_bytes() == CONTENT


def test_a_full_disk_is_told_by_the_folder_and_leaves_nothing(cache, url):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        said = complaint(url, OSError)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert said.startswith(f"{cache}: the download cannot be kept there")
    assert "File too large" in said
    assert kept(cache) == []
    assert fetch(url, SHA256).read_bytes() == CONTENT


def test_a_cache_that_cannot_be_made_is_told(tmp_path, url, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "file" / project)
    assert str(tmp_path / "file") in complaint(url, OSError)


def test_what_is_in_the_cache_needs_no_network(server, cache, url):
    fetch(url, SHA256)
    server.stop()
    assert fetch(url, SHA256).read_bytes() == CONTENT
    server.start()


def test_what_has_changed_in_the_cache_is_replaced(cache, url):
    fetch(url, SHA256).write_bytes(CONTENT[:-1])
    assert fetch(url, SHA256).read_bytes() == CONTENT
    assert kept(cache) == ["numbers.bin"]
