"""Training by several processes: a run is the same on any number of them, and they begin, stop and fail together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from making import encoded, picture
from PIL import Image
from vgg import vgg_weights

from imtok.config import preset_names

HERE = Path(__file__).parent
RESUMED = "123"  # numbers of processes on which the run is resumed


def coloured(folder: Path, count: int) -> Path:
    """Pictures whose red is their number everywhere."""
    folder.mkdir()
    for number in range(count):
        pixels = np.array(picture(number, 16, 16))
        pixels[:, :, 0] = number
        (folder / f"{number:02}.png").write_bytes(encoded(Image.fromarray(pixels)))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which three processes have worked."""
    folder = tmp_path_factory.mktemp("ranks")
    coloured(folder / "pictures", 20)
    coloured(folder / "other", 19)
    generator = torch.Generator().manual_seed(0)
    torch.save(vgg_weights(lambda shape: 0.02 * torch.randn(shape, generator=generator)), folder / "vgg.pth")
    ranks = [
        subprocess.Popen(
            [sys.executable, HERE / "rank_work.py", str(rank), folder],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(3)
    ]
    for rank in ranks:
        _, errors = rank.communicate(timeout=300)
        assert rank.returncode == 0, errors
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    """The findings of each process."""
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(3)]


def joint_rows(results: list[dict[str, Any]]) -> list[list[int]]:
    """The images of each step in the order of the joint batch: of each of two parts the rows of rank after rank."""
    steps = zip(*(result["rows"] for result in results), strict=True)
    return [
        [number for part in range(2) for rows in step for number in rows[part * len(rows) // 2 :][: len(rows) // 2]]
        for step in steps
    ]


def test_a_stop_asked_of_one_process_stops_all_together(folder: Path, found: list[dict[str, Any]]) -> None:
    first, second = found[0]["stopped"], found[1]["stopped"]
    assert first["interrupted"]
    assert first["error"] == second["error"]
    assert "30 of 66" in first["error"]  # the step after the one that asked
    assert [len(first["rows"]), len(second["rows"])] == [5, 5]
    assert (folder / "run" / "checkpoints" / "000000000030.safetensors").exists()


def test_a_run_resumes_on_any_number_with_each_image_once(folder: Path, found: list[dict[str, Any]]) -> None:
    before = joint_rows([found[0]["stopped"], found[1]["stopped"]])
    after = {ranks: joint_rows([each[ranks] for each in found[: int(ranks)]]) for ranks in RESUMED}
    assert after["1"] == after["2"] == after["3"]
    seen = [number for step in before + after["3"] for number in step]
    training = len(set(seen))
    assert training == 13
    for epoch in range(len(seen) // training):
        assert len(set(seen[epoch * training : (epoch + 1) * training])) == training


def test_the_weights_are_those_of_one_process(folder: Path, found: list[dict[str, Any]]) -> None:
    one, *others = (
        safetensors.torch.load_file(folder / f"run{ranks}" / "tokenizer" / "model.safetensors") for ranks in RESUMED
    )
    for other in others:
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


def test_validation_is_shared_and_the_same_everywhere(folder: Path, found: list[dict[str, Any]]) -> None:
    one = found[0]["1"]["validation"]
    for ranks in "23":
        results = [each[ranks] for each in found[: int(ranks)]]
        assert all(result["validation"] == results[0]["validation"] for result in results)
        assert all(result["best"] == results[0]["best"] for result in results)
        assert results[0]["validation"] == pytest.approx(one, rel=1e-4)


def test_the_log_is_of_the_joint_batches(folder: Path, found: list[dict[str, Any]]) -> None:
    def lines(ranks: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (folder / f"run{ranks}" / "metrics.jsonl").read_text().splitlines()]

    for ranks in "23":
        for line, one in zip(lines(ranks), lines("1"), strict=True):
            assert line == pytest.approx(one, rel=1e-3, abs=1e-4)


def test_processes_with_other_images_are_refused_together(folder: Path, found: list[dict[str, Any]]) -> None:
    errors = {each["others"]["error"] for each in found}
    (error,) = errors
    assert "rank 2 found other images than rank 0" in error
    assert not (folder / "never").exists()


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_takes_two_steps_in_two_processes(name: str, found: list[dict[str, Any]]) -> None:
    assert [each["presets"][name] for each in found[:2]] == [{"agree": True, "moved": True, "skipped": 0}] * 2


def said(found: list[dict[str, Any]], name: str, code: int) -> str:
    """Return what the first of two processes printed; both ended by the same code, and the other printed nothing."""
    (first, text), other = (each["commands"][name] for each in found[:2])
    assert (first, other) == (code, [code, ""])
    return str(text)


def test_a_dry_run_shows_the_share_of_each_process(found: list[dict[str, Any]]) -> None:
    text = said(found, "plan", 0)
    assert "# processes      2, each of which computes 3 or 4 of the 7 images of a batch" in text
    assert "on cpu, in each process" in text
    assert "activations of 4 images" in text


@pytest.mark.parametrize(
    ("name", "code", "expected"),
    [
        ("mistake", 1, "error: configuration: data.crop 17 is no multiple of the downsampling 4"),
        ("too small", 1, "error: batch_size 1 in 1 part gives 1 image a part, too few for 2 processes"),
        ("one process", 1, "error: rank 1 found other images than rank 0: 12 images to train on and 7 held out"),
        ("full disk", 74, "No space left on device; make room or choose another disk, then run the same command"),
    ],
)
def test_an_error_is_printed_once(name: str, code: int, expected: str, found: list[dict[str, Any]]) -> None:
    text = said(found, name, code)
    assert text.count(expected) == 1
    assert text.count("error:") == 1


def test_a_run_refused_by_the_disk_goes_on(found: list[dict[str, Any]]) -> None:
    assert "trained on 8 images" in said(found, "again", 0)
    assert "this run is finished" in said(found, "finished", 0)
