"""Every module of imtok can be imported, and every command runs once on a few small pictures (demo by its help)."""

from __future__ import annotations

import importlib
import json
import pkgutil
from pathlib import Path

import pytest
from making import fill
from typer.main import get_command
from typer.testing import CliRunner

import imtok
from imtok.cli import app

MODULES = [found.name for found in pkgutil.walk_packages(imtok.__path__, "imtok.") if found.name != "imtok.__main__"]
SMALL = "size=16 data.crop=16 network.fold=2 network.channels=[8] network.blocks=1 images=16 batch_size=8 threads=1"
# In this order, in one folder with pictures/ in it.
COMMANDS = {
    "train": f"train pictures -o run --preset cpu-fsq-f8 --set {' --set '.join(SMALL.split())}",
    "encode": "encode pictures -t run -o tokens",
    "status": "status tokens --watch --json",
    "verify": "verify tokens",
    "info": "info tokens",
    "decode": "decode tokens -o back",
    "stats": "stats tokens --report report.html --plots plots --json",
    "eval": "eval run pictures",
    "import": "import --help",
    "push": "push run me/tokenizer --license mit --dry-run",
    "export": "export run --to torch-export -o exported",
    "demo": "demo --help",
}


@pytest.mark.parametrize("name", MODULES)
def test_every_module_can_be_imported(name: str) -> None:
    assert importlib.import_module(name).__name__ == name


def test_every_command_runs_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "pictures", (f"{number}.png" for number in range(6)))
    names = get_command(app).commands  # type: ignore[attr-defined]
    assert set(names) == set(COMMANDS)
    printed = {}
    for name in COMMANDS:
        result = CliRunner().invoke(app, COMMANDS[name].split())
        assert result.exit_code == 0, f"{name}\n{result.output}"
        printed[name] = result.stdout
    assert json.loads(printed["stats"])["images"] == 6
    assert json.loads(printed["status"])["complete"]
    assert len(list((tmp_path / "back").glob("*.png"))) == 6
    assert "</html>" in (tmp_path / "report.html").read_text()
    assert list((tmp_path / "plots").glob("*.png"))


@pytest.mark.parametrize("name", sorted(get_command(app).commands))  # type: ignore[attr-defined]
def test_every_command_has_a_help_page(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0
    assert f" {name} " in result.stdout
