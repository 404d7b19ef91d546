"""Notes before a run on its images: those that are enlarged, and those for validation that are trained on too."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from making import encoded, fill, picture
from runs import tiny

from imtok.data.collection import ImageCollection
from imtok.data.overlap import shared_images
from imtok.training import train
from imtok.training.plan import plan


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Thirty pictures of 40 x 48 pixels."""
    return fill(tmp_path / "pictures", (f"{number:02}.png" for number in range(30)))


def notices_of(pictures: Path, run: Path, *settings: str, **options: Any) -> list[str]:
    """The notices of a run."""
    notices: list[str] = []
    train([pictures], run, tiny(*settings), progress=lambda p: notices.append(p.notice or ""), **options)
    return [notice for notice in notices if notice]


def test_validation_images_that_are_trained_on_are_reported(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    (tmp_path / "val/copy.png").write_bytes((pictures / "03.png").read_bytes())  # known by its bytes
    (tmp_path / "val/03.png").write_bytes(encoded(picture(99)))  # the name alone makes no copy
    notices = notices_of(pictures, tmp_path / "run", val=[tmp_path / "val"])
    assert [note for note in notices if "1 of 2 validation images are also trained on (first copy.png)" in note]
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert {line["val/also_trained_on"] for line in lines if "val/psnr" in line} == {1}


def test_the_same_folder_for_validation_is_reported(pictures: Path, tmp_path: Path) -> None:
    count = len(list(pictures.iterdir()))
    notices = notices_of(pictures, tmp_path / "run", val=[pictures])
    assert [note for note in notices if f"{count} of {count} validation images are also trained on" in note]


def test_copies_within_the_source_are_reported_too(pictures: Path, tmp_path: Path) -> None:
    for path in list(pictures.iterdir()):
        (pictures / f"copy-{path.name}").write_bytes(path.read_bytes())
    assert [note for note in notices_of(pictures, tmp_path / "run") if "also trained on" in note]


def test_equal_sizes_alone_are_no_copies(pictures: Path) -> None:
    whole = ImageCollection.open([pictures])
    (pictures / "02.png").write_bytes(b"x" * whole.sizes[4])
    changed = ImageCollection.open([pictures])
    assert shared_images(changed.only([2]), changed.only([4])) == []
    assert shared_images(changed, changed.only([4, 2])) == ["04.png", "02.png"]


def test_a_dry_run_notes_shared_and_small_images(pictures: Path) -> None:
    notes = plan(tiny("size=64", "data.crop=32"), [pictures], [pictures]).notes
    assert [words for words in ("also trained on", "enlarged") if any(words in note for note in notes)] == [
        "also trained on",
        "enlarged",
    ]
    assert plan(tiny(), [pictures]).notes == ()


def test_validation_without_copies_is_not_mentioned(pictures: Path, tmp_path: Path) -> None:
    assert not [note for note in notices_of(pictures, tmp_path / "run") if "also trained on" in note]
    assert "also_trained_on" not in (tmp_path / "run/metrics.jsonl").read_text()


def test_enlarged_training_images_are_reported(pictures: Path, tmp_path: Path) -> None:
    notices = notices_of(pictures, tmp_path / "run", "size=64", "data.crop=32", "images=16")
    (found,) = [note for note in notices if "enlarged" in note]
    assert re.search(r"\d+ of \d+ pictures are smaller than 64 px and enlarged 1\.\d times on average", found)
    assert not [note for note in notices_of(pictures, tmp_path / "small") if "enlarged" in note]
