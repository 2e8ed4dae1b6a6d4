"""pyproject.toml, requirements.lock and environment.yml agree, and the base install is small."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def pins(lines: list[str]) -> dict[str, str]:
    exact = [line.split("==") for line in lines if "==" in line and not line.startswith("#")]
    return {canonicalize_name(name): version.strip() for name, version in exact}


LOCK_LINES = (ROOT / "requirements.lock").read_text().splitlines()
LOCK = pins(LOCK_LINES)
REQUIREMENTS = [
    Requirement(line) for line in sum(EXTRAS.values(), start=list(PROJECT["dependencies"]))
]


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_every_requirement_is_locked_within_its_range(requirement: Requirement) -> None:
    assert Version(LOCK[canonicalize_name(requirement.name)]) in requirement.specifier


def test_the_lock_holds_exact_public_versions_only() -> None:
    for line in LOCK_LINES:
        assert re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), line


def test_the_environment_file_installs_the_locked_versions_of_the_same_packages() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (lines,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    wanted = [*PROJECT["dependencies"], *EXTRAS["book"], *EXTRAS["lab"]]
    names = {canonicalize_name(Requirement(line).name) for line in wanted}
    assert pins(lines) == {name: LOCK[name] for name in names}
    assert {"--constraint requirements.lock", "--editable ."} <= set(lines)
    assert environment["channels"] == ["conda-forge"]


def test_the_library_and_its_command_load_nothing_of_the_book_or_for_downloads() -> None:
    foreign = {"IPython", "hypothesis", "jupytext", "matplotlib", "nbformat", "sklearn", "sphinx"}
    foreign |= {"pooch", "requests"}
    code = (
        "import sys, vitlib, vitlib.cli, vitlib.train, vitlib.data\n"
        f"print(*sorted({foreign} & set(sys.modules)))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.split() == []


def test_a_wheel_carries_data_and_types(tmp_path: Path) -> None:
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "-w",
            str(tmp_path),
            str(ROOT),
        ],
        check=True,
    )
    (wheel,) = tmp_path.glob("vitlib-*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    shipped = {path for path in (ROOT / "vitlib").rglob("*") if path.is_file()}
    expected = {str(path.relative_to(ROOT)) for path in shipped if "__pycache__" not in path.parts}
    assert expected <= inside
    assert not [name for name in inside if name.startswith(("tests/", "book/"))]
