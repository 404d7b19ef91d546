"""Sdist and wheel hold every file they should, and the installed program works away from the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from making import fill

from imtok.config import preset_names

ROOT = Path(__file__).resolve().parents[1]
# Besides the package: what the source distribution holds for whoever tests, reads or cites it.
FOLDERS = ("imtok", "tests", "docs", "benchmarks")
FILES = ("pyproject.toml", "LICENSE", "README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CITATION.cff")
DEPENDENCIES = [path for path in sys.path if path.endswith("-packages")]
LEFT = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")


def files_of(folder: Path) -> set[str]:
    """Paths of the files below a folder of the checkout, from the checkout, without compiled ones."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def built(kind: str, source: Path, folder: Path) -> Path:
    """Build the `sdist` or the `wheel` of a source folder as pip would, with the setuptools that is installed."""
    code = f"import sys; from setuptools.build_meta import build_{kind} as build; build(sys.argv[1])"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], check=False, cwd=source, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (archive,) = folder.iterdir()
    return archive


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of a copy of the checkout, so that the checkout stays as it is."""
    folder = tmp_path_factory.mktemp("sdist")
    shutil.copytree(ROOT, folder / "checkout", ignore=LEFT)
    return built("sdist", folder / "checkout", folder / "built")


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as tar:
        tar.extractall(folder, filter="data")
    (source,) = folder.iterdir()
    return built("wheel", source, folder / "built")


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel in it, and with the dependencies of the environment of these tests."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-index", "--no-deps", wheel], check=True
    )
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(DEPENDENCIES) + "\n")
    return folder / "bin"


def run(command: list[object], folder: Path, **variables: str) -> str:
    """What a command printed, run in a folder without the checkout on Python's path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    done = subprocess.run(
        [str(part) for part in command], check=False, cwd=folder, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_sdist_holds_tests_goldens_and_documents(sdist: Path) -> None:
    with tarfile.open(sdist) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    wanted = set(FILES).union(*(files_of(Path(folder)) for folder in FOLDERS))
    assert "tests/goldens/README.md" in wanted
    assert not wanted - names


def test_the_wheel_holds_every_file_of_the_package_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == files_of(Path("imtok"))


def test_an_installed_imtok_encodes_and_reports_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    fill(tmp_path / "pictures", (f"{number}.png" for number in range(4)))
    where = run([installed / "python", "-c", "import imtok; print(imtok.__file__)"], tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    run([installed / "imtok", "encode", "pictures", "-o", "tokens", "--size", 32], tmp_path)
    run([installed / "imtok", "stats", "tokens", "--images", "pictures", "--report", "report.html"], tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "</html>" in page
    assert re.search(r"<style>[^<]{1000,}", page)


def test_an_editable_install_works_beside_the_checkout(tmp_path: Path) -> None:
    shutil.copytree(ROOT, tmp_path / "imtok", ignore=LEFT)
    wheel = built("editable", tmp_path / "imtok", tmp_path / "wheel")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "packages")
    code = (
        f"import site; site.addsitedir({str(tmp_path / 'packages')!r}); import imtok; print(imtok.load, imtok.__file__)"
    )
    printed = run([sys.executable, "-S", "-c", code], tmp_path, PYTHONPATH=os.pathsep.join(DEPENDENCIES))
    assert f"{tmp_path / 'imtok' / 'imtok' / '__init__.py'}" in printed


def test_an_installed_imtok_finds_its_presets(installed: Path, tmp_path: Path) -> None:
    code = "from imtok.config import preset, preset_names; print(*[preset(name) and name for name in preset_names()])"
    assert run([installed / "python", "-c", code], tmp_path).split() == preset_names()
