"""Names of a package that are imported when they are first used, so that importing the package loads no torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, str], parts: Collection[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for a package whose names come lazily.

    `homes` gives the module that defines each name, `parts` names packages inside this one. `dir` lists these and
    `__all__`, and nothing that the package imports for itself.
    """

    def get(name: str) -> Any:
        if name in homes:
            return getattr(import_module(homes[name]), name)
        if name in parts:
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names() -> list[str]:
        own = vars(sys.modules[package])
        return sorted({*homes, *parts, *own.get("__all__", ()), *(name for name in own if name.startswith("__"))})

    return get, names
