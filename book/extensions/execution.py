"""When a page is read and a chapter executed again.

The execution cache of MyST-NB knows the code cells and nothing else. What a cell shows depends on
more: on the library, on the locked versions, and, since `proof.open_page` reads them, on the
equations that are printed in the chapter. So each chapter has a cache of its own, named after all
of these.

A build that ended with a warning is followed by one that reads every page: a second `make book`
must not pass because Sphinx remembers the pages and forgets the warning.
"""

import hashlib
import shutil
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from vitlib.proof.chapter import equations


def digest(parts: Iterable[bytes]) -> str:
    """Name some content, in 16 hexadecimal digits."""
    total = hashlib.sha256()
    for part in parts:
        total.update(hashlib.sha256(part).digest())
    return total.hexdigest()[:16]


def library_digest(source: Path) -> str:
    """Name what every chapter depends on: the library's code and data, and the locked versions."""
    spec = find_spec("vitlib")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("vitlib is not installed: run `pip install .` in the repository.")
    package = Path(spec.origin).parent
    files = sorted(
        path
        for path in package.rglob("*")
        if path.is_file()
        and path.suffix not in {".pyc", ".pyo"}
        and "__pycache__" not in path.parts
    )
    lock = source / "requirements.lock"
    names = "\n".join(str(path.relative_to(package)) for path in files)
    contents = [path.read_bytes() for path in [*files, *([lock] if lock.is_file() else [])]]
    return digest([names.encode(), *contents])


def note_library(app: Sphinx, config: object) -> None:
    """Let Sphinx read every page again when the library or the lock changed."""
    app.config.book_library = library_digest(Path(app.srcdir))


def choose_cache(app: Sphinx, docname: str, source: list[str]) -> None:
    """Give the chapter the cache that belongs to the library and to the equations on the page."""
    displays = equations(app.env.doc2path(docname))
    printed = repr([(display.label, display.latex) for display in displays])
    key = digest([app.config.book_library.encode(), printed.encode()])
    folder = Path(app.outdir).parent / ".jupyter_cache" / docname
    for other in folder.glob("*"):
        if other.name != key:
            shutil.rmtree(other)
    app.env.mystnb_config = app.env.mystnb_config.copy(execution_cache_path=str(folder / key))


def pages_to_mend(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> list[str]:
    """Read every page again if the last build had something to complain about."""
    return sorted(env.found_docs) if _complaint(app).exists() else []


def remember_complaints(app: Sphinx, exception: Exception | None) -> None:
    """Note for the next build whether this one was clean."""
    if exception is None and not app._warncount:
        _complaint(app).unlink(missing_ok=True)
    else:
        _complaint(app).touch()


def _complaint(app: Sphinx) -> Path:
    return Path(app.outdir).parent / ".built-with-warnings"


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_config_value("book_library", "", "env", str)
    app.connect("config-inited", note_library)
    app.connect("source-read", choose_cache)
    app.connect("env-get-outdated", pages_to_mend)
    app.connect("build-finished", remember_complaints)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
