"""Systems without file locks, such as Windows: commands that write say so in one line, and reading works."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from making import fill

FORMATS = Path(__file__).parent / "formats"
SCRIPT = """
import json, sys
sys.modules["fcntl"] = None  # as where Python has no such module
from typer.testing import CliRunner
from imtok.cli import app
results = [CliRunner().invoke(app, command) for command in json.loads(sys.argv[1])]
print(json.dumps([[result.exit_code, result.output] for result in results]))
"""


def test_what_writes_ends_in_one_line_and_what_reads_works(tmp_path: Path) -> None:
    photos, tokens = fill(tmp_path / "photos", ["a.png"]), FORMATS / "tokens-v1"
    writing = [
        ["encode", photos, "-o", tmp_path / "tokens", "-t", tokens / "tokenizer"],
        ["decode", tokens, "-o", tmp_path / "images"],
        ["train", photos, "-o", tmp_path / "run"],
        ["stats", tokens, "--report", tmp_path / "report.html"],
    ]
    reading = [["info", tokens], ["verify", tokens]]
    commands = json.dumps([list(map(str, command)) for command in writing + reading])
    done = subprocess.run([sys.executable, "-c", SCRIPT, commands], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    for command, (code, output) in zip(writing, results, strict=False):
        assert code == 1, (command, output)
        assert "error: this system has no file locks (Python's fcntl)" in output
        assert "Traceback" not in output
    assert [code for code, _ in results[len(writing) :]] == [0, 0], results
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
