"""Standard output and error of the command: readers that leave, full disks, and encodings that lack signs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOKENS = Path(__file__).parent / "formats" / "tokens-v1"
COMMANDS = [
    ["--help"],
    ["--version"],
    ["encode", "--help"],
    ["train", "--list-presets"],
    ["verify", TOKENS],
    ["stats", TOKENS],
    ["stats", TOKENS, "--json"],
]


def closed_pipe() -> int:
    """The writing end of a pipe whose reader has left."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize(
    "command", COMMANDS, ids=lambda words: " ".join(map(str, words)).replace(str(TOKENS), "TOKENS")
)
def test_a_reader_that_leaves_is_no_error(command: list[object]) -> None:
    writer = closed_pipe()
    try:
        words = [sys.executable, "-m", "imtok", *map(str, command)]
        done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_errors_that_nobody_reads_keep_the_exit_code(tmp_path: Path) -> None:
    writer = closed_pipe()
    try:
        words = [sys.executable, "-m", "imtok", "verify", str(tmp_path)]
        assert subprocess.run(words, stdout=writer, stderr=writer).returncode == 1
    finally:
        os.close(writer)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
@pytest.mark.parametrize("command", [["--help"], ["stats", TOKENS, "--json"]])
def test_results_that_find_no_room_are_an_error(command: list[object]) -> None:
    with Path("/dev/full").open("w") as full:
        words = [sys.executable, "-m", "imtok", *map(str, command)]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 74
    assert done.stderr == "error: No space left on device; make room or write elsewhere\n"
