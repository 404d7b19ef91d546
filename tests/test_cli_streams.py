"""Standard output and error of the command: readers that leave, full disks, and encodings that lack signs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from making import fill, write_tar

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


SCRIPT = """
import json, sys
from imtok.cli import app
from imtok.cli.streams import prepare_streams
prepare_streams()
for command in json.loads(sys.argv[1]):
    app(command, standalone_mode=False)
"""


def test_file_names_survive_a_locale_of_ascii(tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", ["ünï/名前.png", "a.png"])
    photos.joinpath("a.png").rename(os.fsdecode(bytes(photos) + b"/\xff.png"))
    write_tar(tmp_path / "täр.tar", [("ünï/名.png", (photos / "ünï/名前.png").read_bytes())])
    commands = [
        ["encode", photos, "-o", tmp_path / "tök", "-t", TOKENS / "tokenizer"],
        ["decode", tmp_path / "tök", "-o", tmp_path / "bäck"],
        ["decode", tmp_path / "tök", "-o", tmp_path / "bäck.tar"],
        ["encode", tmp_path / "täр.tar", "-o", tmp_path / "töks", "-t", TOKENS / "tokenizer"],
        ["decode", tmp_path / "töks", "-o", tmp_path / "bäcks"],
        ["stats", tmp_path / "tök"],
    ]
    arguments = json.dumps([list(map(str, command)) for command in commands], ensure_ascii=False)
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", SCRIPT, arguments], capture_output=True, env=plain)
    assert done.returncode == 0, done.stderr
    done.stdout.decode("ascii")
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("bäck*/**/*.png")}
    assert names == {"bäck/ünï/名前.png.png", "bäck/\\xff.png.png", "bäcks/täр/ünï/名.png.png"}
    with tarfile.open(tmp_path / "bäck.tar") as tar:
        assert sorted(tar.getnames()) == ["\\xff.png.png", "ünï/名前.png.png"]
