"""docs/extending.md does what it says: each recipe's code runs, and what it adds is seen everywhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from making import fill
from runs import logged, tiny
from typer.testing import CliRunner

from imtok.cli import app
from imtok.evaluation import METRICS
from imtok.training import train

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"


def recipe(title: str) -> str:
    """The Python code of one section."""
    if not PAGE.exists():
        pytest.skip("the checkout's docs are not here")
    section = PAGE.read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL))


def run(title: str, **names: object) -> None:
    """Run the code of one section, which may use `names`."""
    exec(compile(recipe(title), f"{PAGE.name}: {title}", "exec"), {"__name__": "recipe", **names})


def imtok(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_an_added_metric_is_seen_wherever_metrics_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "mae", METRICS["psnr"])  # so that the recipe's entry is taken out again
    run("Add a metric")
    pictures = fill(tmp_path / "pictures", (f"{number}.png" for number in range(8)))
    report = train([pictures], tmp_path / "run", tiny("images=16"))
    assert 0 < report.validation["val/mae"] < 255
    assert logged(tmp_path / "run")[-1]["val/mae"] == report.validation["val/mae"]

    assert re.search(r"MAE +\d+\.\d\d levels", imtok("eval", tmp_path / "run", pictures))
    measured = json.loads(imtok("eval", tmp_path / "run", pictures, "--json"))
    assert "MAE mean over images of |x - y|" in measured["protocol"]

    tokens, page = tmp_path / "tokens", tmp_path / "report.html"
    imtok("encode", pictures, "-t", tmp_path / "run", "-o", tokens)
    deep = ("stats", tokens, "--deep", "--images", pictures)
    value = json.loads(imtok(*deep, "--json"))["tokenizer"]["reconstruction"]["mae"]
    assert value == pytest.approx(measured["mae"])
    assert f"{value:.2f} levels" in imtok(*deep, "--report", page)
    assert f"MAE {value:.2f} levels" in page.read_text()
    assert "mean over images of the mean absolute error" in page.read_text()


def test_an_added_loss_is_trained_on_and_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "photos", (f"{number}.png" for number in range(8)))
    run("Add a loss", run=tmp_path / "run", config=tiny("images=16"))
    first = next(row for row in logged(tmp_path / "run") if "loss" in row)
    assert first["loss"] == pytest.approx(first["loss/l2"] + 0.5 * first["loss/charbonnier"])
    assert first["loss/charbonnier"] > 0
