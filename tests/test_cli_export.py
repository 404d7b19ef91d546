"""`imtok export` of tokens, `imtok verify --against` and `imtok info` of an export: what they print, and exit codes."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from exporting import random_tokens
from making import tiny_tokenizer
from typer.testing import CliRunner, Result

from imtok.cli import app
from imtok.cli.export import TokenizerFormat, TokensFormat
from imtok.export.formats import FORMATS
from imtok.export.formats.npy import Npy
from imtok.interop.exporting.job import FORMATS as TOKENIZER_FORMATS


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return random_tokens(tmp_path / "tokens", units=(6, 9, 5), classes=4)


def imtok(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def test_the_command_knows_every_format() -> None:
    assert set(get_args(TokensFormat)) == set(FORMATS)
    assert set(get_args(TokenizerFormat)) == set(TOKENIZER_FORMATS)


def test_the_report_says_what_the_trainer_needs(tokens: Path, tmp_path: Path) -> None:
    options = ("--boi", 2000, "--eod", 2001, "--label", "before", "--val-fraction", 0.3, "--shuffle", 1)
    result = imtok("export", tokens, "--to", "nanogpt", "-o", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    first, speed, vocabulary, note = result.stdout.splitlines()
    assert first == f"20 images (train 15, val 5) of 9 ids as uint16 in {tmp_path / 'out'}, 4 files (0.4 KB)"
    assert "tokens/s" in speed
    assert vocabulary == "vocabulary: 2,002 ids; codes 0 to 999, classes 1000 to 1003, boi 2000, eod 2001"
    assert note == "nanogpt: vocab_size 2002 in meta.pkl; --block_size=9 is one image"
    again = imtok("export", tokens, "--to", "nanogpt", "-o", tmp_path / "out", *options)
    assert again.stdout.splitlines()[0].startswith("nothing to do: 20 images")


def test_a_split_that_holds_out_nothing_is_noted(tokens: Path, tmp_path: Path) -> None:
    result = imtok("export", tokens, "--to", "nanogpt", "-o", tmp_path / "out", "--val-fraction", 0.001)
    assert result.exit_code == 0, result.output
    assert "--val-fraction 0.001 holds out none of 20 images" in result.stderr


def test_an_export_is_verified_against_its_tokens(tokens: Path, tmp_path: Path) -> None:
    imtok("export", tokens, "--to", "npy", "-o", tmp_path / "out")
    result = imtok("verify", tmp_path / "out", "--against", tokens)
    assert result.exit_code == 0, result.output
    assert "20 images read by numpy" in result.stdout
    assert "ids, keys and labels as in" in result.stdout
    (tmp_path / "out" / "train.keys.txt").write_text("")
    broken = imtok("verify", tmp_path / "out", "--against", tokens)
    assert broken.exit_code == 1
    assert "train.keys.txt" in broken.stderr


def test_verify_asks_for_the_tokens_of_an_export(tokens: Path, tmp_path: Path) -> None:
    imtok("export", tokens, "--to", "npy", "-o", tmp_path / "out")
    result = imtok("verify", tmp_path / "out")
    assert result.exit_code == 2
    assert "--against" in result.stderr


def test_info_describes_an_export(tokens: Path, tmp_path: Path) -> None:
    imtok("export", tokens, "--to", "npy", "-o", tmp_path / "out", "--offset", 7)
    facts = json.loads(imtok("info", tmp_path / "out", "--json").stdout)
    assert (facts["kind"], facts["to"], facts["options"], facts["images"]) == (
        "export",
        "npy",
        {"offset": 7},
        {"train": 20},
    )
    assert facts["vocabulary"] == 1007


def test_a_tokenizer_takes_no_format_of_tokens(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(tmp_path / "tokenizer")
    result = imtok("export", tokenizer, "--to", "npy", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert (
        "a tokenizer, whose formats are torch-export, onnx, diffusers; --to npy takes a token folder" in result.stderr
    )


def test_tokens_take_no_format_of_a_tokenizer(tokens: Path, tmp_path: Path) -> None:
    result = imtok("export", tokens, "--to", "onnx", "-o", tmp_path / "out", "--offset", 3)
    assert result.exit_code == 2
    assert "onnx takes a tokenizer" in result.stderr


def test_a_signal_ends_with_75_and_the_command_resumes(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Npy.write

    def signalled(self: Npy, piece, blocks, plan, folder):  # type: ignore[no-untyped-def]
        if piece.number == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return write(self, piece, blocks, plan, folder)

    command = ("export", tokens, "--to", "npy", "-o", tmp_path / "out", "--shard-size", 6)
    monkeypatch.setattr(Npy, "write", signalled)
    stopped = imtok(*command)
    assert stopped.exit_code == 75
    assert "stopped after 6 of 20 images; run the same command again" in stopped.stderr
    monkeypatch.undo()
    assert imtok(*command).exit_code == 0
    assert imtok("verify", tmp_path / "out", "--against", tokens).exit_code == 0


def test_a_full_disk_ends_with_74(tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Npy, piece, blocks, plan, folder) -> Iterator[str]:  # type: ignore[no-untyped-def]
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    monkeypatch.setattr(Npy, "write", full)
    assert imtok("export", tokens, "--to", "npy", "-o", tmp_path / "out").exit_code == 74
