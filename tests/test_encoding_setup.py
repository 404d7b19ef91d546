"""How a process begins, or joins, a token folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from making import contents, fill, tiny_tokenizer

from imtok.encoding import encode
from imtok.errors import TokensError
from imtok.tokens.folder import INFO
from imtok.tokens.store import LocalStore


def test_a_folder_begun_between_two_looks_is_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tiny_tokenizer(tmp_path / "tokenizer")
    fill(tmp_path / "in", ["a.png", "b.png"])
    real = LocalStore.check_new

    def begun_meanwhile(store: LocalStore) -> None:
        monkeypatch.setattr(LocalStore, "check_new", real)
        encode([tmp_path / "in"], tmp_path / "t", tokenizer)
        real(store)

    monkeypatch.setattr(LocalStore, "check_new", begun_meanwhile)
    encode([tmp_path / "in"], tmp_path / "t", tokenizer)
    encode([tmp_path / "in"], tmp_path / "whole", tokenizer)
    assert contents(tmp_path / "t") == contents(tmp_path / "whole")


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "in", ["a.png"])
    with pytest.raises(TokensError, match="holds files and is no token folder"):
        encode([tmp_path / "in"], tmp_path / "in", tiny_tokenizer(tmp_path / "tokenizer"))
    assert not (tmp_path / "in" / INFO).exists()
