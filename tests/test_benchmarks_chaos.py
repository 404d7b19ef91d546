"""`benchmarks/chaos.py` runs from end to end, on a small disk and without one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scripts import FOLDER


def chaos(scratch: Path, *words: object) -> dict[str, Any]:
    """The script's last line; the script fails where any byte differs from the undisturbed ones."""
    if not FOLDER.is_dir():
        pytest.skip("the checkout's benchmarks are not here")
    command = [sys.executable, FOLDER / "chaos.py", "--scratch", scratch, "--scale", 3, *words]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("restarts", "place"), [(6, ["--small-disk", "--served"]), (3, ["--no-small-disk", "--no-served"])]
)
def test_a_disturbed_encode_ends_as_an_undisturbed_one(tmp_path: Path, restarts: int, place: list[str]) -> None:
    short = ["--restarts", restarts, "--torchrun", 0, "--fresh", 0, "--in-bucket", 0, "--formats", "npy"]
    found = chaos(tmp_path, *short, *place)
    assert (found["restarts"], sum(found["layouts"].values())) == (restarts, restarts)
    assert found["exports"] == found["rounds"] > 0
    assert sum(found["events"].values()) >= restarts
    assert found["bytes_compared"] > 10_000
    assert not list(tmp_path.iterdir())
