"""imtok: images to discrete tokens and back, and a look at the codebook in between.

Names are handed out lazily: `import imtok` loads no torch, so `imtok --help` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from imtok.version import __version__

if TYPE_CHECKING:
    from imtok.tokenizer import Tokenizer, load

__all__ = ["Tokenizer", "__version__", "load"]

_HOMES = {"Tokenizer": "imtok.tokenizer", "load": "imtok.tokenizer"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'imtok' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
