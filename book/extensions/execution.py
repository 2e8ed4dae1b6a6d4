"""When a page is read and a chapter executed again.

The execution cache of MyST-NB knows the code cells and nothing else. What a cell shows depends on
more: on the library, on the locked versions, and, since `proof.open_page` reads them, on the
equations that are printed in the chapter. So each chapter has a cache of its own, named after all
of these.

Likewise Sphinx knows nothing of this folder, of the templates and of the style sheet. They count as
settings: a change in them writes the pages again.

Two pages at a time are read and executed, which Jupyter Book has no option for.

A build that ended with a warning is followed by one that reads every page: a second `make book`
must not pass because Sphinx remembers the pages and forgets the warning.
"""

import hashlib
import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import nbformat
from docutils import nodes
from jupyter_cache import get_cache
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment

from vitlib.proof.chapter import equations


def digest(parts: Iterable[bytes]) -> str:
    """Name some content, in 16 hexadecimal digits."""
    total = hashlib.sha256()
    for part in parts:
        total.update(hashlib.sha256(part).digest())
    return total.hexdigest()[:16]


def digest_of_files(folder: Path, *more: Path) -> str:
    """Name the contents of a folder and of further files, those that exist."""
    files = [path for path in [*folder.rglob("*"), *more] if path.is_file()]
    files = sorted(path for path in files if "__pycache__" not in path.parts)
    return digest(part for path in files for part in (path.name.encode(), path.read_bytes()))


def read_two_at_a_time(app: Sphinx, config: Config) -> None:
    """Have Sphinx fork. On macOS a fork of a process that has opened system libraries may crash."""
    # These forget to say that they may: one numbers sections at the end, the other adds a script.
    for name in ("sphinx_multitoc_numbering", "sphinx-mathjax-offline"):
        app.extensions[name].parallel_read_safe = True
    if sys.platform != "darwin":
        app.parallel = 2


def note_what_pages_depend_on(app: Sphinx, config: Config) -> None:
    """Turn files into settings, whose changes Sphinx notices."""
    spec = find_spec("vitlib")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("vitlib is not installed: run `pip install .` in the repository.")
    source, here = Path(app.srcdir), Path(__file__).parent
    config.book_library = digest_of_files(Path(spec.origin).parent, source / "requirements.lock")
    config.book_machinery = digest_of_files(here)
    config.book_look = digest(
        digest_of_files(here.parent / name).encode() for name in ("assets", "templates")
    )


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


def complete_notebook(app: Sphinx, doctree: nodes.document) -> None:
    """Put the outputs into the notebook that MyST-NB leaves without them when they are cached."""
    path = Path(app.outdir).parent / "jupyter_execute" / f"{app.env.docname}.ipynb"
    if "kernelspec" not in app.env.metadata[app.env.docname] or not path.is_file():
        return
    cache = get_cache(app.env.mystnb_config.execution_cache_path)
    with suppress(KeyError):  # it failed, which has been reported
        _, notebook = cache.merge_match_into_notebook(nbformat.read(path, as_version=4))
        nbformat.write(notebook, path)


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
    app.add_config_value("book_machinery", "", "env", str)
    app.add_config_value("book_look", "", "html", str)
    app.connect("config-inited", read_two_at_a_time)
    app.connect("config-inited", note_what_pages_depend_on)
    app.connect("source-read", choose_cache)
    app.connect("doctree-read", complete_notebook, priority=100)
    app.connect("env-get-outdated", pages_to_mend)
    app.connect("build-finished", remember_complaints)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
