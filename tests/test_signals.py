"""SIGTERM and Ctrl-C: whenever they come, a command says what is true of what it saved and ends with 75."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from making import fill

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
def evaluate(*_, **__):
    threading.Thread(target=time.sleep, args=(60,)).start()
    threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGTERM)).start()
    time.sleep(60)
imtok.evaluation.evaluate = evaluate
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
