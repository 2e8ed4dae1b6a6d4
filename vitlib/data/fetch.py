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
    # Not above: few who import the library download anything. Pooch itself brings requests.
    import pooch
    import requests

    cache = pooch.os_cache("vitlib")
    try:
        return Path(pooch.retrieve(url, f"sha256:{sha256}", url.rpartition("/")[2], cache))
    except requests.RequestException as error:
        raise FileNotFoundError(
            f"{url} cannot be downloaded ({_reason(error)}). Check the network and try again, or "
            "give the folder where the file is."
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{url} is not the file expected (SHA-256 {sha256}). Try again; if it stays so, "
            "the file there has changed."
        ) from error
    except OSError as error:
        raise OSError(
            f"{cache}: the download cannot be kept there ({_reason(error)}). Free space, or change "
            "the folder's permissions."
        ) from error


def _reason(error: BaseException) -> str:
    """What the first of a chain of errors says: the later ones wrap it, ever longer."""
    while error.__context__ is not None:
        error = error.__context__
    return " ".join(str(error).split()).rstrip(".")
