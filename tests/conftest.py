"""What all tests share: enforced shapes, one thread a process, the same numbers each time."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # also for the processes that tests start

import shutil
from collections.abc import Iterator

import hypothesis
import jaxtyping
import pytest
import torch
from playwright.sync_api import Browser, sync_playwright

jaxtyping.install_import_hook(["vitlib.nn", "vitlib.fast"], "beartype.beartype")

torch.set_num_threads(1)


class TorchRandom:
    """PyTorch's generator in the form in which hypothesis seeds and restores generators."""

    seed = staticmethod(torch.manual_seed)
    getstate = staticmethod(torch.get_rng_state)
    setstate = staticmethod(torch.set_rng_state)


TORCH_RANDOM = TorchRandom()  # hypothesis keeps a weak reference only
hypothesis.register_random(TORCH_RANDOM)
hypothesis.settings.register_profile("vitlib", deadline=None, derandomize=True)
hypothesis.settings.load_profile("vitlib")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def unchecked_shapes(monkeypatch):
    """The library as users have it, where nobody checks annotations before it speaks itself."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def chromium() -> str:
    """Where the browser is.

    Without it the tests that need it are skipped at a reader's place, and fail in CI.
    """
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        reason = "no chromium on the path: install it (Debian: apt-get install chromium)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, without a page."""
    executable = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable,
            args=["--no-sandbox", "--disable-background-networking", "--no-first-run"],
        )
        yield browser
        browser.close()
