"""`imtok status`: text and JSON of a token folder at work."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from making import token_folder
from typer.testing import CliRunner, Result

from imtok.cli import app
from imtok.encoding.claims import Claim, Failure
from imtok.encoding.status import read_status
from imtok.tokens.folder import MANIFEST, shard_path

formatted = import_module("imtok.cli.status")._formatted  # the package has the command under this name
WHO = {"host": "node7", "pid": 4711, "process": "0 of 2", "since": "2026-11-30T17:03:12+00:00"}


def imtok(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["status", *map(str, arguments)])


@pytest.fixture
def complete(tmp_path: Path) -> Path:
    return token_folder(tmp_path / "t", [np.zeros((3, 4, 4), np.int64)] * 4, 16)


@pytest.fixture
def unfinished(complete: Path) -> Path:
    (complete / MANIFEST).unlink()
    (complete / shard_path(3)).unlink()
    return complete


def test_a_complete_set_is_said_to_be_complete(complete: Path) -> None:
    result = imtok(complete)
    assert (result.exit_code, result.stderr) == (0, "")
    first, last = result.stdout.splitlines()
    assert first == f"{complete}: 4 of 4 units committed, 12 images, 0 skipped"
    assert last.startswith("complete: data set ")


def test_every_part_of_the_state_has_its_line(unfinished: Path) -> None:
    state = read_status(unfinished)
    lines = formatted(
        type(state)(
            **vars(state)
            | {
                "units": 50,
                "units_missing": 47,
                "units_held": 12,
                "units_failed": 1,
                "units_waiting": 34,
                "skips": {"truncated": 1200, "unreadable": 1},
                "held": tuple(Claim(unit=unit, **WHO) for unit in range(12)),
                "failed": (Failure(unit=41, name="a.tar", reason="cut short", **WHO),),
                "damaged": (2,),
                "images_per_second": 412.3,
                "seconds_left": 3661.2,
            }
        )
    ).splitlines()
    assert lines[:3] == [
        f"{unfinished}: 3 of 50 units committed, 9 images, 0 skipped",
        "skipped 1,200: truncated",
        "skipped 1: unreadable",
    ]
    assert lines[3].startswith("held: unit 0 by process 0 of 2 (pid 4711 on node7) since 2026-1")
    assert lines[13:] == [
        "held: 2 other units",
        "failed: unit 41, a.tar: cut short",
        "damaged: unit 2; `imtok verify` says why",
        "missing: 47 units, 12 held, 1 failed, 34 waiting",
        "rate: 412 images/s, about 1:01:01 left",
    ]


def test_an_unfinished_set_at_rest_says_what_goes_on(unfinished: Path) -> None:
    lines = imtok(unfinished).stdout.splitlines()
    assert lines[1:] == [
        "missing: 1 unit, 0 held, 0 failed, 1 waiting",
        "rate: nobody works here; the same `imtok encode` goes on",
    ]


def test_a_damaged_manifest_is_not_one_to_be_written(complete: Path) -> None:
    (complete / MANIFEST).write_text("x\n")
    assert imtok(complete).stdout.splitlines()[1].startswith(f"not complete: {complete / MANIFEST}: line 1: damaged")


def test_watching_ends_when_the_set_is_complete(complete: Path) -> None:
    (complete / MANIFEST).rename(complete / "later")
    thread = threading.Timer(0.5, (complete / "later").rename, [complete / MANIFEST])
    thread.start()
    result = imtok(complete, "--watch", "--every", "0.1", "--json")
    thread.join()
    assert result.exit_code == 0
    assert [json.loads(line)["complete"] for line in result.stdout.splitlines()] == [False, True]


def test_a_stop_of_watching_is_no_error(unfinished: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "imtok", "status", str(unfinished), "--watch", "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["units_waiting"] == 1
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("", None)
    assert process.returncode == 0


def test_the_command_loads_no_torch(unfinished: Path) -> None:
    call = "app(['status', sys.argv[1]], standalone_mode=False)"
    code = f"import sys; from imtok.cli import app; {call}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, unfinished], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_another_folder_is_an_error(tmp_path: Path) -> None:
    result = imtok(tmp_path)
    assert result.exit_code == 1
    assert "not a token folder" in result.stderr
