"""The copy of its tokenizer that a token folder holds."""

from __future__ import annotations

from pathlib import Path

from imtok.data.addresses import is_remote
from imtok.hub import is_hub_address
from imtok.tokenizer import Tokenizer, load
from imtok.tokens.folder import TOKENIZER
from imtok.tokens.store import Location, store_of


def load_copy(folder: Location) -> Tokenizer:
    """Load the tokenizer in a token folder; raises TokenizerError where it is missing or damaged."""
    with store_of(folder).local_folder(TOKENIZER) as copy:
        return load(copy)


def has_copy(folder: Location) -> bool:
    """Return whether a token folder holds a tokenizer."""
    return store_of(folder).file(f"{TOKENIZER}/config.json").exists()


def load_any(name: str | Path) -> Tokenizer:
    """Load a tokenizer as `imtok.load` does; an address such as `s3://bucket/tokens` is that of a token folder."""
    if isinstance(name, str) and is_remote(name) and not is_hub_address(name):
        return load_copy(name)
    return load(name)
