"""Names that come when they are used: what `dir` lists, and that importing the package loads no torch."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

import imtok


def test_packages_inside_imtok_are_reached_and_torch_waits() -> None:
    program = (
        "import imtok, sys; names = dir(imtok); assert 'torch' not in sys.modules; "
        "imtok.tokens.open_tokens; imtok.quantizers.FSQ; assert names == dir(imtok)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("package", ["imtok", "imtok.quantizers", "imtok.networks", "imtok.evaluation"])
def test_dir_lists_what_is_public_and_nothing_else(package: str) -> None:
    module = import_module(package)
    names = {name for name in dir(module) if not name.startswith("__")}
    assert names == set(module.__all__) - {"__version__"}
    assert all(hasattr(module, name) for name in names)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'imtok' has no attribute 'nothing'"):
        imtok.nothing  # type: ignore[attr-defined]  # noqa: B018
