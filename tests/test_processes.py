"""The processes of a job: what their environment says, and what each receives of the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from imtok.cli import app
from imtok.errors import ConfigError, SourceError
from imtok.launcher import Numbers, launched
from imtok.processes import Processes, joined

WHOLE = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "a"}
WHOLE |= {"MASTER_PORT": "29500"}

# Three processes, and what each receives.
SCRIPT = """
import json, sys, time
import torch.distributed as dist
import imtok.processes as module
from imtok.errors import DiskError, SourceError, TrainingError
from imtok.processes import joined
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=3)
module._PIECE = 7
def refuse(error):
    raise error
def outcome(work):
    try:
        return [work(), None, False]
    except Exception as error:
        return [type(error).__name__, str(error), getattr(error, "reported", False)]
def together(error):
    with processes.together():
        if error:
            raise error
found = {}
with joined() as processes, joined() as again:
    assert again is processes
    found["gathered"] = processes.gather({"rank": rank})
    found["bytes"] = [len(each) for each in processes.gather_bytes(bytes(10 * rank))]
    found["first"] = processes.bytes_of_first(bytes(range(40)) if rank == 0 else None).hex()
    found["value"] = processes.by_first(lambda: [1, "two"])
    found["by_first"] = outcome(lambda: processes.by_first(lambda: refuse(SourceError("no image"))))
    found["unforeseen"] = outcome(lambda: processes.by_first(lambda: refuse(KeyError("x"))))
    found["one"] = outcome(lambda: together(SourceError("no image") if rank == 1 else None))
    found["all"] = outcome(lambda: together(SourceError("no image")))
    vote = processes.vote()
    found["votes"] = [vote(rank == 1 and step == 2) for step in range(5)] + [vote.close()]
    wanted = []
    stopped = processes.stop_of_any(lambda: bool(wanted))
    processes.gather(None)
    if rank == 2:
        wanted.append(1)
    until = time.monotonic() + 30
    while not stopped() and time.monotonic() < until:
        time.sleep(0.01)
    found["stopped"] = stopped()
    found["block"] = list(processes.block(7))
try:
    with joined() as processes:
        if rank == 2:
            raise DiskError("tokens", "No space left on device")
        processes.gather(None)
except Exception as error:
    found["lost"] = [type(error).__name__, str(error), processes.reported_by_first(str(error))]
open(f"{folder}/{rank}.json", "w").write(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The values that each of three processes received."""
    folder = tmp_path_factory.mktemp("processes")
    ranks = [
        subprocess.Popen([sys.executable, "-c", SCRIPT, str(rank), folder], stderr=subprocess.PIPE, text=True)
        for rank in range(3)
    ]
    for rank in ranks:
        _, errors = rank.communicate(timeout=120)
        assert rank.returncode == 0, errors
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(3)]


def test_all_receive_what_all_give(found: list[dict[str, Any]]) -> None:
    for each in found:
        assert each["gathered"] == [{"rank": 0}, {"rank": 1}, {"rank": 2}]
        assert each["bytes"] == [0, 10, 20]
        assert each["first"] == bytes(range(40)).hex()
        assert each["value"] == [1, "two"]
    assert [number for each in found for number in each["block"]] == list(range(7))


def test_an_error_of_the_first_is_reported_once(found: list[dict[str, Any]]) -> None:
    assert [each["by_first"] for each in found] == [["SourceError", "no image", rank > 0] for rank in range(3)]
    assert found[0]["unforeseen"][0] == "KeyError"
    assert [each["unforeseen"] for each in found[1:]] == [["TrainingError", "KeyError: 'x'", True]] * 2


def test_an_error_of_one_names_it(found: list[dict[str, Any]]) -> None:
    assert [each["one"] for each in found] == [["SourceError", "rank 1: no image", rank > 0] for rank in range(3)]
    assert [each["all"] for each in found] == [["SourceError", "no image", rank > 0] for rank in range(3)]


def test_a_yes_of_one_reaches_all_one_round_later(found: list[dict[str, Any]]) -> None:
    assert [each["votes"] for each in found] == [[False, False, False, True, False, False]] * 3


def test_a_stop_of_one_reaches_all(found: list[dict[str, Any]]) -> None:
    assert [each["stopped"] for each in found] == [True] * 3


def test_a_process_that_ends_is_named_with_its_words(found: list[dict[str, Any]]) -> None:
    own = "tokens: No space left on device; make room or choose another disk, then run the same command again: what is "
    own += "committed stays"
    others = ["TrainingError", f"rank 2 of this training has ended ({own}); the same command resumes"]
    assert found[2]["lost"] == ["DiskError", own, False]
    assert [each["lost"] for each in found[:2]] == [[*others, False], [*others, True]]


def test_one_process_alone_does_its_work_without_messages() -> None:
    processes = Processes()
    assert (processes.first, processes.several, list(processes.block(3))) == (True, False, [0, 1, 2])
    assert processes.gather("x") == ["x"]
    assert processes.gather_bytes(b"x") == [b"x"]
    assert processes.by_first(lambda: 3) == 3
    vote = processes.vote()
    assert [vote(True), vote(False), vote.close()] == [True, False, False]
    assert processes.stop_of_any(lambda: True)()
    with pytest.raises(SourceError), processes.together():
        raise SourceError("no image")


@pytest.mark.parametrize("environment", [{}, {"WORLD_SIZE": "1", "RANK": "0"}])
def test_one_process_needs_no_launcher(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with joined() as processes:
        assert not processes.several


def test_a_whole_environment_gives_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in WHOLE.items():
        monkeypatch.setenv(name, value)
    assert launched() == Numbers(rank=1, ranks=4, local_rank=1, local_ranks=2)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"WORLD_SIZE": "2"}, "has WORLD_SIZE=2 and no RANK, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT;"),
        ({"RANK": "1"}, "has RANK=1 and no WORLD_SIZE; start several processes by torchrun, or unset these for one"),
        ({**WHOLE, "RANK": "4"}, "RANK=4 of WORLD_SIZE=4"),
        ({**WHOLE, "LOCAL_RANK": "2"}, "LOCAL_RANK=2 of LOCAL_WORLD_SIZE=2"),
        ({"WORLD_SIZE": "0", "RANK": "0"}, "RANK=0 of WORLD_SIZE=0"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two', expected a number"),
    ],
)
def test_half_an_environment_is_one_clear_line(
    environment: dict[str, str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="torchrun"):
        launched()
    result = CliRunner().invoke(app, ["train", str(tmp_path), "-o", str(tmp_path / "run")])
    assert result.exit_code == 1
    (line,) = result.output.splitlines()
    assert expected in line
    assert os.listdir(tmp_path) == []  # noqa: PTH208  (names are enough)
