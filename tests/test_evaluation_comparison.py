"""The worst, middle and best images of an evaluation, as a folder for a person."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from imtok.errors import ConfigError
from imtok.evaluation import psnr
from imtok.evaluation.comparison import Comparison, difference


def with_errors(errors: list[int]) -> tuple[list[str], Tensor, Tensor]:
    """Grey images, and the same brighter by each of the errors, with names that say by how much."""
    originals = torch.full((len(errors), 3, 8, 8), 100, dtype=torch.uint8)
    restored = originals + torch.tensor(errors, dtype=torch.uint8).reshape(-1, 1, 1, 1)
    return [f"by-{error:03d}.png" for error in errors], originals, restored


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def groups(folder: Path) -> dict[str, list[str]]:
    rows = json.loads((folder / "index.json").read_text())["images"]
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row["group"], []).append(row["name"])
    return found


def compare(folder: Path, errors: list[int], units: int, shown: int = 2) -> None:
    for unit in range(units):
        with Comparison(folder, "imtok-f8", shown=shown).unit(unit) as writer:
            writer.add(*with_errors(errors[unit::units]))
    Comparison(folder, "imtok-f8", shown=shown).finish(range(units))


@pytest.mark.parametrize("units", [1, 3])
def test_the_groups_are_those_of_all_units_together(tmp_path: Path, units: int) -> None:
    compare(tmp_path / "out", [7, 1, 2, 9, 3, 8, 4, 6, 5], units)
    assert groups(tmp_path / "out") == {
        "worst": ["by-009.png", "by-008.png"],
        "middle": ["by-006.png", "by-005.png"],
        "best": ["by-001.png", "by-002.png"],
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_each_picture_holds_what_its_folder_says(tmp_path: Path) -> None:
    compare(tmp_path, [9, 1, 5], 1, shown=1)
    for name, error in (("worst-01.png", 9), ("middle-01.png", 5), ("best-01.png", 1)):
        assert (read(tmp_path / "originals" / name) == 100).all()
        assert (read(tmp_path / "reconstructions" / name) == 100 + error).all()
        assert (read(tmp_path / "differences" / name) == 128 + 4 * error).all()
    index = json.loads((tmp_path / "index.json").read_text())
    assert index["amplification"] == 4
    names, originals, restored = with_errors([9])
    assert index["images"][0]["psnr"] == pytest.approx(float(psnr(restored, originals)))
    page = (tmp_path / "index.html").read_text()
    assert "4 times their difference" in page
    assert all(f'src="{row[kind]}"' in page for row in index["images"] for kind in ("originals", "differences"))
    assert names[0] in page


def test_a_difference_is_amplified_and_cut_off() -> None:
    original = torch.tensor([0, 100, 255], dtype=torch.uint8).reshape(3, 1, 1)
    restored = torch.tensor([255, 97, 0], dtype=torch.uint8).reshape(3, 1, 1)
    assert difference(restored, original).flatten().tolist() == [255, 116, 0]


def test_of_many_images_the_middle_ones_are_near_it(tmp_path: Path) -> None:
    errors = np.random.default_rng(0).permutation(np.arange(1, 151)).tolist()
    compare(tmp_path, errors, 4)
    found = groups(tmp_path)
    assert found["worst"] == ["by-150.png", "by-149.png"]
    assert found["best"] == ["by-001.png", "by-002.png"]
    assert all(60 <= int(name[3:6]) <= 92 for name in found["middle"])


def test_few_images_are_shown_once_each(tmp_path: Path) -> None:
    compare(tmp_path, [3, 0], 1, shown=8)
    assert groups(tmp_path) == {"worst": ["by-003.png"], "best": ["by-000.png"]}
    assert json.loads((tmp_path / "index.json").read_text())["images"][1]["psnr"] is None
    assert "exact" in (tmp_path / "index.html").read_text()


def test_a_second_comparison_replaces_the_first(tmp_path: Path) -> None:
    compare(tmp_path, list(range(1, 10)), 1, shown=3)
    compare(tmp_path, [9, 1, 5], 1, shown=1)
    assert len(list((tmp_path / "originals").iterdir())) == 3


def test_names_in_the_page_are_escaped(tmp_path: Path) -> None:
    with Comparison(tmp_path, "<b>", shown=1).unit(0) as writer:
        writer.add(["<script>.png"], *with_errors([1])[1:])
    Comparison(tmp_path, "<b>", shown=1).finish([0])
    page = (tmp_path / "index.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;.png" in page


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds files and is no comparison of images"):
        Comparison(tmp_path, "imtok-f8")
    with pytest.raises(ConfigError, match="a file, expected a folder for images"):
        Comparison(tmp_path / "thesis.txt", "imtok-f8")
