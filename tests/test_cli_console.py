"""Lines and bars of a command on a terminal: one console, so that none stands in another's way."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest
import typer

from imtok.cli.console import reports_errors
from imtok.errors import Interrupted
from imtok.signals import GOES_ON

# A bar with a line above it, a result in the middle, and a second bar.
SCRIPT = """
from imtok.cli.console import err, print_result, progress_bar, say, warn
from imtok.cli.streams import prepare_streams
prepare_streams()
with err().status("looking"):
    say("line one")
for name in ("encoding", "measuring"):
    with progress_bar(name) as bar:
        bar(1, 4)
        warn("line two")
        print_result("a result")
        bar(4, 4)
print_result("the end")
"""


def screen(text: str) -> list[str]:
    """The lines that a terminal shows after it received `text`: enough of its control characters for bars."""
    lines, row, column = [""], 0, 0
    text = text.replace("\x1b[?25l", "").replace("\x1b[?25h", "")
    while text:
        if text.startswith("\x1b["):
            end = next(at for at in range(2, len(text)) if text[at].isalpha())
            code, text = text[2 : end + 1], text[end + 1 :]
            if code.endswith("A"):
                row -= int(code[:-1])
            elif code == "2K":
                lines[row] = ""
            else:
                assert code.endswith("m"), code
            continue
        sign, text = text[0], text[1:]
        if sign == "\r":
            column = 0
        elif sign == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        else:
            lines[row] = lines[row].ljust(column)[:column] + sign + lines[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines if line.strip()]


def on_terminal(*, output: bool) -> tuple[list[str], str]:
    """What a terminal shows of the script, and what a pipe gets where standard output is one."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "60", "LINES": "30"}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdin=theirs,
        stdout=theirs if output else subprocess.PIPE,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)
    received = b""
    try:
        while data := os.read(ours, 4096):
            received += data
    except OSError:  # the terminal of a process that ended
        pass
    os.close(ours)
    piped = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    assert "━".encode() in received
    return screen(received.decode()), (piped or b"").decode()


def test_no_line_sticks_to_a_bar_and_no_bar_stays() -> None:
    lines, _ = on_terminal(output=True)
    assert lines == ["line one", *["note: line two", "a result"] * 2, "the end"]


def test_results_for_a_pipe_do_not_go_to_the_terminal() -> None:
    lines, piped = on_terminal(output=False)
    assert lines == ["line one", *["note: line two"] * 2]
    assert piped.splitlines() == ["a result", "a result", "the end"]


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("stopped on request", "stopped: on request; the same command resumes from what was saved"),
        ("t: stopped after 3; run the same command again", "stopped: t: stopped after 3; run the same command again"),
    ],
)
def test_a_stop_says_how_to_go_on(capsys: pytest.CaptureFixture[str], raised: str, said: str) -> None:
    def command() -> None:
        raise Interrupted(raised)

    with pytest.raises(typer.Exit) as ended:
        reports_errors(command, stopped=GOES_ON)()
    assert ended.value.exit_code == 75
    assert capsys.readouterr().err == f"{said}\n"
