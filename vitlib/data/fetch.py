"""Download a file once, and never keep one that is not what was asked for."""

from pathlib import Path


def fetch(url: str, sha256: str) -> Path:
    """The file at `url`, from the user's cache of downloads or, the first time, from the network.

    What arrives is written under another name and takes its own only when its checksum is right.
    A file in the cache is checked too, and replaced if it has changed since.

    Args:
        url: Where the file is; its last part is the name in the cache.
        sha256: Its SHA-256, in hexadecimal.

    Raises:
        FileNotFoundError: The file cannot be had: no network, no such file, a broken transfer.
        ValueError: What arrived is another file.
        OSError: The cache cannot be written.
    """
    # Not above: few who import the library download anything.
    import pooch
    import requests

    cache = pooch.os_cache("vitlib")
    try:
        return Path(pooch.retrieve(url, f"sha256:{sha256}", url.rpartition("/")[2], cache))
    except requests.RequestException as error:
        raise FileNotFoundError(
            f"{url} cannot be downloaded ({' '.join(str(error).split())}). Check the network and "
            "try again."
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{url} is not the file expected (SHA-256 {sha256}). Try again; if it stays so, "
            "the file there has changed."
        ) from error
