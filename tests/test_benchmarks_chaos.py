"""`benchmarks/chaos.py` runs from end to end, on a small disk, without one, and on a server, and it finds a fault."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scripts import FOLDER, call_script, import_script

SHORT = ["--torchrun", 0, "--fresh", 0, "--exports", 1, "--formats", "npy"]

# A publication that is not atomic: a kill leaves half a file, which the resumed encode takes for a whole one.
HALVES = """
import time

from imtok.tokens import store

def publish_once(path, data):
    if path.exists():
        return False
    whole = data if isinstance(data, bytes) else b"".join(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb", buffering=0) as file:
        file.write(whole[: len(whole) // 2])
        time.sleep(0.1)
        file.write(whole[len(whole) // 2 :])
    return True

store.publish_once = publish_once
"""


def assert_whole(found: dict[str, Any], restarts: int) -> None:
    """As many starts as asked for, disturbed, and everything compared and equal."""
    assert found["differences"] == []
    assert (found["restarts"], sum(found["layouts"].values())) == (restarts, restarts)
    assert found["exports"] == found["formats_exported"]["npy"] == found["rounds"] > 0
    assert found["exports_read_back"] == 1
    assert sum(found["events"].values()) >= restarts
    assert sum(times for end, times in found["ends"].items() if "ended" in end or "killed" in end) >= restarts
    assert found["images"] + found["skipped"] == found["inputs"] * found["rounds"]
    assert found["files_compared"] > 15 * found["rounds"]
    assert found["bytes_compared"] > 10_000 * found["rounds"]


@pytest.mark.slow
def test_a_disturbed_encode_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    if not FOLDER.is_dir():
        pytest.skip("the checkout's benchmarks are not here")
    words = ["--restarts", 6, "--scale", 2, "--in-bucket", 0, "--small-disk", "--served", "--scratch", tmp_path, *SHORT]
    command = [sys.executable, FOLDER / "chaos.py", *words, "-o", tmp_path / "chaos.json"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_whole(json.loads(done.stdout.splitlines()[-1]), 6)
    assert (tmp_path / "chaos.json").read_text() == done.stdout.splitlines()[-1] + "\n"
    assert [path.name for path in tmp_path.iterdir()] == ["chaos.json"]


def chaos(monkeypatch: pytest.MonkeyPatch, scratch: Path, *words: object) -> int:
    """Call the script in this process, on this disk, and return its exit code."""
    script = import_script("chaos", monkeypatch)
    with pytest.raises(SystemExit) as ended:
        call_script(script, monkeypatch, *map(str, ["--scale", 1, "--no-served", "--scratch", scratch, *SHORT, *words]))
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.slow
def test_disturbed_tokens_on_an_object_store_are_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = chaos(monkeypatch, tmp_path, "--restarts", 3, "--in-bucket", 1)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert code == 0, found
    assert_whole(found, 3)
    assert found["rounds_in_bucket"] == found["rounds"]


@pytest.mark.slow
def test_chaos_finds_a_unit_that_kept_half_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "halves.py").write_text(HALVES)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CHAOS_BROKEN_BY", "halves")
    code = chaos(monkeypatch, tmp_path, "--restarts", 8, "--in-bucket", 0)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert code == 1
    assert found["differences"]
