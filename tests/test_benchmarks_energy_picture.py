"""The picture of the energy landscape: it is drawn from end to end, and its paths go down."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image
from scripts import call_script, import_script


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module; its neighbours can be imported as when it is started from the command line."""
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)  # the tests' own stays
    return import_script("energy_picture", monkeypatch)


def test_the_picture_is_drawn_and_its_figures_printed(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call_script(script, monkeypatch, tmp_path / "energy.png", "--steps", "2")
    with Image.open(tmp_path / "energy.png") as image:
        assert image.size == (800, 597)
        assert len(image.convert("RGB").getcolors(1000) or []) > 50
    result = json.loads(capsys.readouterr().out)
    assert list(result["by_penalty"]) == ["0", "0.05"]
    assert all(each["median_slope"] > 0 for each in result["by_penalty"].values())


def test_paths_go_against_the_slope(script: ModuleType) -> None:
    """In a bowl whose energy is half the squared distance from the middle, a stride takes its share of the way."""

    class Bowl(torch.nn.Module):
        def forward(self, points: torch.Tensor) -> torch.Tensor:
            return -points.square().sum(dim=1, keepdim=True) / 2

    found = script.landscape(Bowl(), torch.nn.Identity())
    torch.testing.assert_close(found.paths[1], (1 - script.STRIDE) * found.paths[0])
    middle = script.POINTS // 2
    assert float(found.slopes[middle, middle]) == pytest.approx(0, abs=1e-6)
    assert float(found.energy[0, middle]) == pytest.approx(script.SIDE**2 / 2)
    assert float(found.slopes[middle, -1]) == pytest.approx(script.SIDE)
