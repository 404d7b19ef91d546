"""SIGTERM and Ctrl-C: whenever they come, a command says what is true of what it saved and ends with 75."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from making import fill
from servers import served

from imtok.signals import GOES_ON, NOT_BEGUN, NOTHING_SAVED

TOKENS = Path(__file__).parent / "formats" / "tokens-v1"

# A process that gets signals at the moment at which it imports a module.
SCRIPT = """
import os, sys
module, numbers, *sys.argv[1:] = sys.argv[1:]
class Finder:
    def find_spec(self, name, path, target=None):
        if name == module:
            sys.meta_path.remove(self)
            for number in numbers.split(","):
                os.kill(os.getpid(), int(number))
sys.meta_path.insert(0, Finder())
from imtok.__main__ import main
main()
"""


def stopped(module: str, numbers: str, *arguments: object) -> tuple[int, str]:
    """The exit code and the errors of a command that gets signals as it imports a module."""
    command = [sys.executable, "-c", SCRIPT, module, numbers, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("command", "module", "outcome"),
    [
        (["eval", TOKENS / "tokenizer", TOKENS], "typer", NOT_BEGUN),
        (["eval", TOKENS / "tokenizer", TOKENS], "imtok.evaluation", NOTHING_SAVED),
        (["verify", TOKENS], "imtok.tokens.verify", NOTHING_SAVED),
        (["info", TOKENS], "imtok.description", NOTHING_SAVED),
        (["demo", "-o", "nowhere"], "imtok.demo", GOES_ON),
    ],
)
def test_a_stop_says_what_is_true(number: int, command: list[object], module: str, outcome: str) -> None:
    assert stopped(module, str(int(number)), *command) == (75, f"stopped: on request; {outcome}\n")


def test_a_stop_while_threads_work_ends_at_once(tmp_path: Path) -> None:
    fill(tmp_path / "pictures", ["a.png"])
    script = """
import os, signal, threading, time, sys
import imtok.evaluation
def evaluate_tokenizers(*_, **__):
    threading.Thread(target=time.sleep, args=(60,)).start()
    threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGTERM)).start()
    time.sleep(60)
imtok.evaluation.evaluate_tokenizers = evaluate_tokenizers
from imtok.cli import main
main()
"""
    command = [sys.executable, "-c", script, "eval", TOKENS / "tokenizer", tmp_path / "pictures"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (75, f"stopped: on request; {NOTHING_SAVED}\n")


def test_an_encode_stopped_early_goes_on_later(tmp_path: Path) -> None:
    fill(tmp_path / "pictures", ["a.png"])
    command = ["encode", tmp_path / "pictures", "-o", tmp_path / "tokens", "-t", TOKENS / "tokenizer"]
    code, errors = stopped("imtok.encoding", str(int(signal.SIGTERM)), *command)
    assert code == 75
    assert "0 of 1 unit committed; run the same command again to resume" in errors
    code, errors = stopped("imtok.encoding.job", f"{int(signal.SIGTERM)},{int(signal.SIGINT)}", *command)
    assert (code, errors) == (75, f"stopped: on request; {GOES_ON}\n")


def test_a_stop_of_stats_saves_nothing() -> None:
    code, errors = stopped("imtok.analysis.job", str(int(signal.SIGTERM)), "stats", TOKENS)
    assert (code, errors) == (75, f"stopped: on request; {NOTHING_SAVED}\n")


def test_a_process_stops_while_the_first_reads_a_shard(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "imtok", "train", "-o", tmp_path / "run", "--images", "8"]
    with served({"/a.tar": b""}) as web:
        web.faults["/a.tar"] = ["no answer"] * 5
        numbers = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        processes = [
            subprocess.Popen(
                [*map(str, command), f"{web.url}/a.tar"],
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **numbers, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in range(2)
        ]
        until = time.monotonic() + 100
        while not web.requests and time.monotonic() < until:
            time.sleep(0.05)
        assert web.requests
        for process in reversed(processes):  # the second process waits for the first one, which waits for the server
            process.terminate()
            assert (process.communicate(timeout=15)[1], process.returncode) == (f"stopped: on request; {GOES_ON}\n", 75)


def test_a_signal_ends_a_process_that_waits_for_the_others() -> None:
    code = (
        "import threading, torch.distributed\n"
        "from imtok.processes import joined\n"
        "from imtok.signals import end_on_signals\n"
        "end_on_signals()\n"
        "threading.Timer(2.0, lambda: print('waits', flush=True)).start()\n"
        "with joined(): pass\n"
    )
    numbers = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    with socket.create_server(("127.0.0.1", 0)) as free:
        numbers |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | numbers, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"waits\n"
        process.terminate()
        assert process.wait(timeout=5) == -signal.SIGTERM
    finally:
        process.kill()
        process.communicate()
