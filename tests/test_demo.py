"""The demo around its training: its pictures, the marks of its comparison, and the commands it names."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from imtok import demo
from imtok.cli import app
from imtok.config import preset
from imtok.evaluation import Quality
from imtok.training.preview import pair_grid
from imtok.usage import CodebookUsage

command = import_module("imtok.cli.demo")  # whose name in the package is the command itself


def quality(psnr: float) -> Quality:
    usage = CodebookUsage(np.array([3, 1]), 2)
    return Quality(2, 0, 256, "fp32", {"psnr": psnr, "ssim": 0.5}, 0, 100.0, usage)


def test_no_two_pictures_are_views_of_one_thing() -> None:
    names = [name.split("_")[0] for name in (*demo._SEEN, *demo._UNSEEN)]
    assert len(set(names)) == len(names) == demo.TRAINED_ON + 2


def test_the_comparison_marks_what_was_not_trained_on() -> None:
    gray = torch.full((6, 3, 256, 256), 90, dtype=torch.uint8)
    plain = np.asarray(pair_grid(gray, gray))
    marked = np.asarray(pair_grid(gray, gray, ["", "", "", "", "", demo.NOT_SEEN]))
    rows, columns = np.nonzero((plain != marked).any(axis=2))
    assert 2 * 260 < rows.min() < rows.max() < 2 * 260 + 40  # the originals of the second pair of rows
    assert 260 < columns.min() < columns.max() < 2 * 260  # the second column
    assert demo.NOT_SEEN


@pytest.mark.parametrize(("unseen", "explained"), [(25.0, True), (21.0, False)])
def test_a_lower_score_of_seen_pictures_is_explained(
    unseen: float, explained: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = demo.DemoReport(quality(22.0), quality(unseen), CodebookUsage(np.array([3, 1]), 2), 1024, 100.0)
    command._print(report, tmp_path)
    shown = capsys.readouterr().out
    assert ("score lower, as they have finer detail" in shown) == explained
    assert "encode photos/ -o tokens" in shown  # without -t, by the tokenizer that comes with imtok


def test_named_commands_run_without_an_active_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/imtok"
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python"))
    monkeypatch.setenv("PATH", "/nowhere")
    assert command._program() == f"{tmp_path}/bin/python -m imtok"
    program.write_text("")
    program.chmod(0o755)
    assert command._program() == str(program)
    monkeypatch.chdir(tmp_path)
    assert command._program() == "bin/imtok"
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert command._program() == "imtok"


def test_the_length_is_the_same_wherever_it_is_named() -> None:
    readme = " ".join((Path(__file__).parents[1] / "README.md").read_text().split())
    shown = " ".join(CliRunner().invoke(app, ["demo", "--help"]).stdout.replace("│", " ").split())
    for text in (readme, shown):
        assert "two to eight minutes on two CPU cores" in text
    assert f"{preset('demo')['images']:,}" in shown
