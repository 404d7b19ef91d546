"""The scripts in `benchmarks/` under test: imported as when they are started from the command line, and called."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


def import_script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the script as a module, its neighbours importable; skips where the checkout has no benchmarks."""
    if not FOLDER.is_dir():
        pytest.skip("the checkout's benchmarks are not here")
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module(name)


def call_script(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> None:
    """Run the script's `main` with these words on its command line."""
    monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *map(str, words)])
    script.main()
