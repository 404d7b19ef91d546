"""Events that an encode must survive, each with real processes of `imtok encode`: kills, stops, full disks, bad inputs.

A test of a full disk mounts a disk of its own and needs a system that lets it; a limit on the size of files stands in
for it everywhere.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import Command, Moment
from launching import TORCHRUN, Started
from making import contents, encoded, fill, picture, pictures_tar, tiny_tokenizer, write_tar

import imtok
from imtok.tokens import open_tokens, read_shard, verify_tokens
from imtok.tokens.folder import find_shards, shard_path

UNITS = 6


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer, twelve photos, and the token folder of six units that an encode without an event makes of them."""
    place = tmp_path_factory.mktemp("place")
    tiny_tokenizer(place / "tokenizer")
    fill(place / "photos", (f"{number:02d}.png" for number in range(2 * UNITS)))
    assert Command(*encode(place, place / "whole"), log=place / "whole.txt").wait() == 0
    return place


def encode(place: Path, tokens: Path, *options: object) -> list[object]:
    """The words of the command that makes `tokens`."""
    return ["encode", place / "photos", "-o", tokens, "-t", place / "tokenizer", "--unit-size", 2, *options]


def temporaries(folder: Path) -> list[Path]:
    return list(folder.rglob(".tmp-*"))


def assert_resumes(place: Path, tokens: Path) -> None:
    """The same command ends well, and its folder has the bytes of one without an event."""
    again = Command(*encode(place, tokens), log=tokens.with_suffix(".again"))
    assert again.wait() == 0, again.text
    assert contents(tokens) == contents(place / "whole")
    assert not temporaries(tokens)


# kill -9


@pytest.mark.parametrize(
    ("event", "left"),
    [("open", 0), ("os.link", 1)],  # a temporary of the third unit is about to be made, or to get its name
)
def test_a_kill_loses_at_most_the_unit_in_flight(place: Path, tmp_path: Path, event: str, left: int) -> None:
    tokens = tmp_path / "t"
    moment = Moment(event, ".tmp-00000002.safetensors", 1, signal.SIGKILL)
    assert Command(*encode(place, tokens), log=tmp_path / "killed", moment=moment).wait() == -signal.SIGKILL
    assert set(find_shards(tokens)[0]) == {0, 1}
    assert len(temporaries(tokens)) == left
    assert_resumes(place, tokens)


def test_a_kill_in_the_middle_of_a_write_harms_nothing(place: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "t"
    assert Command(*encode(place, tokens, "--shard", "0/2"), log=tmp_path / "half").wait() == 0
    before = contents(tokens)
    command = Command(*encode(place, tokens), log=tmp_path / "killed", largest_file=500, dies_of_it=True)
    assert command.wait() == -signal.SIGXFSZ
    (left,) = temporaries(tokens)
    assert left.stat().st_size == 500
    assert contents(tokens).items() >= before.items()
    assert_resumes(place, tokens)


def test_the_temporary_of_a_live_process_is_not_swept(place: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "t"
    moment = Moment("os.link", ".tmp-00000002.safetensors", 1, signal.SIGSTOP)
    stopped = Command(*encode(place, tokens), log=tmp_path / "stopped", moment=moment)
    wait_until(lambda: bool(temporaries(tokens)) and stopped.is_stopped())
    (held,) = temporaries(tokens)
    other = Command(*encode(place, tokens), log=tmp_path / "other")
    assert other.wait() == 0, other.text  # with what the stopped one holds still missing
    assert held.exists()
    stopped.signal(signal.SIGCONT)
    assert stopped.wait() == 0, stopped.text
    assert contents(tokens) == contents(place / "whole")


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 100
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


# Disk full


def test_a_file_that_may_not_grow_ends_with_74(place: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "t"
    assert Command(*encode(place, tokens, "--shard", "0/2"), log=tmp_path / "half").wait() == 0
    before = contents(tokens)
    command = Command(*encode(place, tokens), log=tmp_path / "full", largest_file=500)
    assert command.wait() == 74
    assert "File too large; make room or choose another disk, then run the same command again" in command.text
    assert contents(tokens) == before
    assert not temporaries(tokens)
    assert_resumes(place, tokens)


def test_a_full_disk_before_the_first_unit_ends_with_74(place: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "t"
    command = Command(*encode(place, tokens), log=tmp_path / "full", largest_file=500)
    assert command.wait() == 74
    assert "make room or choose another disk, then run the same command again" in command.text
    assert not find_shards(tokens)[0]
    assert not temporaries(tokens)
    assert_resumes(place, tokens)


# The disk is gone with the processes that see it, so this one copies what is on it.
ON_A_SMALL_DISK = """
import os, shutil, subprocess, sys
from pathlib import Path

import imtok.encoding
from imtok.cli import main

place, words = Path(sys.argv[1]), sys.argv[2:]
disk = place / "disk"
if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk]).returncode:
    sys.exit(99)

def imtok(*more):
    child = os.fork()
    if not child:
        sys.argv = ["imtok", *words, *more]
        main()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

print(imtok("--shard", "0/2"))
shutil.copytree(disk / "t", place / "before")
filler = os.open(disk / "filler", os.O_CREAT | os.O_WRONLY)
try:
    while True:
        os.write(filler, bytes(1024))
except OSError as error:
    print(error.strerror)
print(imtok())
shutil.copytree(disk / "t", place / "full")
os.close(filler)
(disk / "filler").unlink()
print(imtok())
shutil.copytree(disk / "t", place / "t")
"""


def test_a_full_disk_ends_with_74_and_harms_nothing(place: Path, tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare, which gives a process disks of its own")
    (tmp_path / "disk").mkdir()
    own_disks = ["unshare", "--user", "--map-root-user", "--mount"]
    command = [sys.executable, "-c", ON_A_SMALL_DISK, tmp_path, *encode(place, tmp_path / "disk/t")]
    done = subprocess.run([*own_disks, *map(str, command)], capture_output=True, text=True, timeout=120)
    if done.returncode == 99 or done.stderr.startswith("unshare:"):
        pytest.skip(f"this system mounts no disk for a test: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    codes = [line for line in done.stdout.splitlines() if not line.startswith(("6 images", "12 images"))]
    assert codes == ["0", "No space left on device", "74", "0"]
    assert "No space left on device; make room or choose another disk" in done.stderr
    assert contents(tmp_path / "full") == contents(tmp_path / "before")
    assert contents(tmp_path / "t") == contents(place / "whole")


# SIGTERM and Ctrl-C


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_drops_the_partial_unit_and_ends_with_75(place: Path, tmp_path: Path, number: int) -> None:
    tokens = tmp_path / "t"
    moment = Moment("open", "04.png", 1, number)  # the first image of the third unit is about to be read
    options = ["--workers", 1, "--batch-size", 1]
    whole = Command(*encode(place, tmp_path / "whole", *options), log=tmp_path / "log")
    command = Command(*encode(place, tokens, *options), log=tmp_path / "stopped", moment=moment)
    assert command.wait() == 75
    assert find_shards(tokens)[0] <= {0, 1}
    done = len(find_shards(tokens)[0])
    assert f"{done} of 6 units committed; run the same command again to resume" in command.text
    assert not temporaries(tokens)
    assert Command(*encode(place, tokens), log=tmp_path / "again").wait() == 0
    assert whole.wait() == 0
    assert contents(tokens) == contents(tmp_path / "whole")


@pytest.mark.slow
def test_a_stop_under_torchrun_leaves_a_folder_that_resumes(place: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(240):
        (tmp_path / "photos" / f"{number:03}.png").write_bytes(encoded(picture(number, 400, 400)))
    words = ["encode", tmp_path / "photos", "-t", place / "tokenizer", "--unit-size", 1, "--device", "cpu"]
    job = [*TORCHRUN, "--standalone", "--nproc-per-node", "2", "-m", "imtok", *words, "-o", tmp_path / "t"]
    started = Started([*map(str, job)], tmp_path / "log")
    started.wait_for(lambda: bool(find_shards(tmp_path / "t")[0]))
    code, seconds = started.signal_and_wait(signal.SIGTERM, rank=1)
    assert code == 1  # torchrun's own
    assert seconds < 30
    assert "exitcode  : 75" in started.text
    assert 0 < len(find_shards(tmp_path / "t")[0]) < 240
    for name in ("t", "whole"):
        assert Command(*words, "-o", tmp_path / name, log=tmp_path / "again").wait() == 0
    assert contents(tmp_path / "t") == contents(tmp_path / "whole")


# Bad inputs

NAMES = ["0.png", "1.png", "2.png", "3.png"]


@dataclass(frozen=True)
class Damaged:
    """Results of two encodes of an image that is broken, of damaged tars, and of tars that are whole."""

    tokens: Path
    code: int
    text: str
    salvaged: Path  # by a second call with `--salvage --on-duplicate suffix`
    salvaged_code: int
    salvaged_text: str


@pytest.fixture(scope="module")
def damaged(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Damaged:
    folder = tmp_path_factory.mktemp("damaged")
    fill(folder / "in", ["a.png", "b.png", "c.png"])
    (folder / "in/b.png").write_bytes(encoded(picture(1))[:100])
    whole = pictures_tar(folder / "whole.tar", NAMES).read_bytes()
    (folder / "cut.tar").write_bytes(whole[: whole.rindex(b"3.png\0") + 600])
    (folder / "member.tar").write_bytes(whole[: whole.rindex(b"3.png\0")])
    (folder / "empty.tar").write_bytes(b"")
    (folder / "foreign.tar").write_bytes(b"GIF89a" * 300)
    pictures_tar(folder / "twice.tar", [*NAMES, NAMES[0]])
    write_tar(folder / "none.tar", [("notes.txt", b"hi")])
    sources = [folder / "in", *sorted(folder.glob("*.tar"))]
    words = ["encode", *sources, "-o", folder / "t", "-t", place / "tokenizer"]
    first = Command(*words, log=folder / "first.txt")
    code = first.wait()
    shutil.copytree(folder / "t", folder / "first")
    second = Command(*words, "--salvage", "--on-duplicate", "suffix", log=folder / "second.txt")
    return Damaged(folder / "first", code, first.text, folder / "t", second.wait(), second.text)


def test_a_corrupt_image_is_skipped_with_its_reason(damaged: Damaged) -> None:
    shard = read_shard(damaged.tokens / shard_path(0))
    assert list(shard.keys) == ["a.png", "c.png"]
    assert list(zip(shard.skip_keys, shard.skip_reasons, strict=True)) == [("b.png", "truncated")]
    assert "skipped 1: truncated (b.png)" in damaged.text
    assert damaged.salvaged_code == 0  # with the same image, which is no failure


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cut", "cut short inside 3.png"),
        ("member", "the end-of-archive blocks are missing"),
        ("empty", "the file is empty"),
        ("foreign", "not an uncompressed tar"),
        ("twice", "1 key occurs more than once, first 0.png"),
    ],
)
def test_a_damaged_tar_fails_named_and_others_finish(damaged: Damaged, name: str, reason: str) -> None:
    (line,) = [line for line in damaged.text.splitlines() if line.startswith("failed: ") and f"/{name}.tar" in line]
    assert reason in line
    assert damaged.code == 1
    assert f"unit {UNIT[name]} ({name}.tar) is missing; run the same `imtok encode` again" in (
        verify_tokens(damaged.tokens).problems
    )
    assert set(find_shards(damaged.tokens)[0]) == {0, UNIT["none"], UNIT["whole"]}


UNIT = {name: unit for unit, name in enumerate(["", "cut", "empty", "foreign", "member", "none", "twice", "whole"])}


def test_salvage_and_suffixes_take_what_is_readable(damaged: Damaged) -> None:
    assert damaged.salvaged_code == 0, damaged.salvaged_text
    found = {name: list(read_shard(damaged.salvaged / shard_path(unit)).keys) for name, unit in UNIT.items() if name}
    some = NAMES[:3]
    assert found == {"cut": some, "empty": [], "foreign": [], "member": some, "none": [], "whole": NAMES} | {
        "twice": [*NAMES, "0~2.png"]
    }
    assert verify_tokens(damaged.salvaged).ok


def test_a_tar_without_images_is_an_empty_unit(damaged: Damaged) -> None:
    assert len(read_shard(damaged.tokens / shard_path(UNIT["none"]))) == 0
    assert "none.tar: holds no images, so its shard is empty" in damaged.text


# Another tokenizer or other options


@pytest.mark.parametrize(
    ("options", "finding"),
    [
        (["--precision", "bf16"], "begun with --precision fp32, this call has bf16"),
        (["--batch-size", 3], "begun with --batch-size 16, this call has 3"),
        (["-t", "OTHER"], "begun with tokenizer {own}, this call has {other}"),
    ],
)
def test_another_way_to_resume_is_refused(place: Path, tmp_path: Path, options: list[object], finding: str) -> None:
    tokens, other = tmp_path / "t", tiny_tokenizer(tmp_path / "other", seed=1)
    assert Command(*encode(place, tokens, "--shard", "0/2"), log=tmp_path / "half").wait() == 0
    before = contents(tokens)
    options = [other if word == "OTHER" else word for word in options]
    command = Command(*encode(place, tokens, *options), log=tmp_path / "log")
    assert command.wait() == 1
    prints = {
        name: imtok.load(path).fingerprint[:12] for name, path in (("own", place / "tokenizer"), ("other", other))
    }
    assert finding.format(**prints) in command.text
    assert contents(tokens) == before
    assert_resumes(place, tokens)


def test_decode_refuses_another_tokenizer(place: Path, tmp_path: Path) -> None:
    other = tiny_tokenizer(tmp_path / "other", seed=1)
    command = Command("decode", place / "whole", "-o", tmp_path / "back", "-t", other, log=tmp_path / "log")
    assert command.wait() == 1
    for tokenizer in (place / "tokenizer", other):
        assert imtok.load(tokenizer).fingerprint[:12] in command.text
    assert not (tmp_path / "back").exists()


def test_the_folder_without_an_event_is_whole(place: Path) -> None:
    assert len(open_tokens(place / "whole")) == 2 * UNITS
    assert verify_tokens(place / "whole").ok
