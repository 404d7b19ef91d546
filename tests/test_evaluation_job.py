"""The evaluation job: units that are saved, resumed and shared give the numbers of one unbroken pass."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from making import contents, encoded, picture, pictures_tar, tiny, tiny_tokenizer
from torch import nn

from imtok.errors import ConfigError, SourceError
from imtok.evaluation import (
    FID,
    PSNR,
    SSIM,
    ImageMean,
    Result,
    evaluate,
    evaluate_tokenizers,
    job,
    read_results,
    tables,
)
from imtok.evaluation.cells import UnitMeasurer
from imtok.evaluation.entries import NamedTokenizer
from imtok.evaluation.folder import EvaluationFolder, PartsInMemory, Times
from imtok.evaluation.joining import join
from imtok.evaluation.parts import Part, part_to_bytes
from imtok.evaluation.preparation import Job
from imtok.evaluation.protocols import PROTOCOLS
from imtok.evaluation.settings import Settings
from imtok.launcher import Numbers
from imtok.processes import Processes

SMALL: dict[str, Any] = {"device": "cpu", "batch_size": 2, "unit_size": 4}


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    return tiny_tokenizer(tmp_path / "tokenizer")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(9):
        (folder / f"{number}.png").write_bytes(encoded(picture(number)))
    (folder / "5.png").write_bytes(b"no image")
    return folder


def without_times(results: list[Result]) -> list[dict[str, Any]]:
    return [result.as_dict(times=False) for result in results]


def units_in(folder: Path) -> dict[str, bytes]:
    """The units of an evaluation by name, without the times beside them."""
    return {name: data for name, data in contents(folder).items() if name.endswith(".safetensors")}


def test_units_in_a_folder_give_the_numbers_of_one_pass(tokenizer: Path, pictures: Path, tmp_path: Path) -> None:
    whole = evaluate(tokenizer, [pictures], device="cpu", batch_size=2)
    (saved,) = evaluate_tokenizers([tokenizer], [pictures], output=tmp_path / "eval", **SMALL)
    assert saved.metrics == dict(whole.values)
    assert (saved.images, saved.skipped, saved.usage["used"]) == (8, 1, whole.usage.used)
    assert saved.intervals["psnr"][0] < whole.psnr < saved.intervals["psnr"][1]
    assert len(units_in(tmp_path / "eval")) == 3
    assert read_results(tmp_path / "eval") == [saved]


def test_a_killed_evaluation_resumes_to_the_same_bytes(tokenizer: Path, pictures: Path, tmp_path: Path) -> None:
    options = {**SMALL, "protocols": ["imtok", "titok"]}
    unbroken = evaluate_tokenizers([tokenizer], [pictures], output=tmp_path / "unbroken", **options)

    def kill(done: int, total: int | None) -> None:
        assert total == 18
        if done > 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_tokenizers([tokenizer], [pictures], output=tmp_path / "killed", progress=kill, **options)
    assert 0 < len(units_in(tmp_path / "killed")) < 6
    resumed = evaluate_tokenizers([tokenizer], [pictures], output=tmp_path / "killed", **options)
    assert units_in(tmp_path / "killed") == units_in(tmp_path / "unbroken")
    assert without_times(resumed) == without_times(unbroken)


def test_protocols_and_tokenizers_are_added_to_a_folder(tokenizer: Path, pictures: Path, tmp_path: Path) -> None:
    other = tiny_tokenizer(tmp_path / "other", seed=1)
    output = tmp_path / "eval"
    evaluate_tokenizers([tokenizer], [pictures], output=output, **SMALL)
    before = units_in(output)
    measured: list[int] = []
    results = evaluate_tokenizers(
        [tokenizer, other], [pictures], output=output, progress=lambda done, _: measured.append(done)
    )  # options are as recorded
    assert measured[-1] == 8  # the images of the other alone
    assert before.items() < units_in(output).items()
    assert [result.tokenizer for result in results] == [str(tokenizer), str(other)]
    evaluate_tokenizers([tokenizer], [pictures], output=output, protocols=["var"])
    found = [(result.tokenizer, result.protocol_name) for result in read_results(output)]
    assert found == [(str(tokenizer), "imtok"), (str(other), "imtok"), (str(tokenizer), "var")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 16}, "begun with --size 32, this call has 16"),
        ({"limit": 3}, "begun with --limit None, this call has 3"),
        ({"metrics": ["psnr"]}, "begun with --metrics psnr, ssim, this call has psnr"),
        ({"unit_size": 5}, "begun with --unit-size 4, this call has 5"),
    ],
)
def test_other_settings_are_refused_with_both_named(
    options: dict[str, Any], message: str, tokenizer: Path, pictures: Path, tmp_path: Path
) -> None:
    evaluate_tokenizers([tokenizer], [pictures], output=tmp_path / "eval", **SMALL)
    with pytest.raises(ConfigError, match=message):
        evaluate_tokenizers([tokenizer], [pictures], output=tmp_path / "eval", **options)


def test_all_metrics_leave_out_those_that_cannot_be_measured(
    tokenizer: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    for _ in range(2):  # the second call resumes
        (result,) = evaluate_tokenizers(
            [tokenizer], [pictures], output=tmp_path / "eval", metrics=["all"], fetch=False, **SMALL
        )
        assert list(result.metrics) == ["psnr", "ssim"]
        assert result.refused["ms_ssim"] == "MS-SSIM needs 176 pixels or more, and these images have 32"
        assert {"lpips", "rfid", "recall"} <= result.refused.keys()


def test_other_images_and_foreign_folders_are_refused(tokenizer: Path, pictures: Path, tmp_path: Path) -> None:
    evaluate_tokenizers([tokenizer], [pictures], output=tmp_path / "eval", **SMALL)
    (pictures / "late.png").write_bytes(encoded(picture(20)))
    with pytest.raises(ConfigError, match="begun with images other ones"):
        evaluate_tokenizers([tokenizer], [pictures], output=tmp_path / "eval")
    with pytest.raises(ConfigError, match="holds files and is no evaluation"):
        evaluate_tokenizers([tokenizer], [pictures], output=pictures)


def test_a_call_without_the_weights_of_a_metric_resumes(tokenizer: Path, pictures: Path, tmp_path: Path) -> None:
    wanted: dict[str, Any] = {"metrics": ["psnr", "rfid"], "weights": {"inception": tmp_path / "absent.pth"}, **SMALL}
    (first,) = evaluate_tokenizers([tokenizer], [pictures], output=tmp_path / "eval", **wanted)
    (again,) = evaluate_tokenizers([tokenizer], [pictures], output=tmp_path / "eval", **wanted)
    assert first == again
    assert "no such file" in first.refused["rfid"]
    with pytest.raises(ConfigError, match=r"metric rfid: .*absent\.pth: no such file"):
        evaluate_tokenizers([tokenizer], [pictures], output=tmp_path / "new", **{**wanted, "metrics": ["rfid"]})


def test_a_list_of_no_metrics_is_refused(tokenizer: Path, pictures: Path) -> None:
    with pytest.raises(ConfigError, match="--metrics: names none"):
        evaluate_tokenizers([tokenizer], [pictures], metrics=[], **SMALL)


@pytest.mark.parametrize("content", ["[]", "{}", "1", '{"format": "imtok-evaluation", "version": 1}', ""])
def test_damaged_settings_are_named(content: str, tokenizer: Path, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text(content)
    with pytest.raises(ConfigError, match=r"evaluation\.json: cannot be read"):
        evaluate_tokenizers([tokenizer], [pictures], output=tmp_path, **SMALL)


def test_a_damaged_unit_is_named(tokenizer: Path, pictures: Path, tmp_path: Path) -> None:
    evaluate_tokenizers([tokenizer], [pictures], output=tmp_path / "eval", **SMALL)
    unit = next((tmp_path / "eval").rglob("00001.safetensors"))
    unit.write_bytes(unit.read_bytes()[:-40])
    with pytest.raises(ConfigError, match=r"00001\.safetensors: damaged"):
        evaluate_tokenizers([tokenizer], [pictures], output=tmp_path / "eval")


def test_what_cannot_stand_beside_each_other_is_refused(tokenizer: Path, pictures: Path, tmp_path: Path) -> None:
    tiny(seed=1).save(tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps({**config, "size": 16}))
    with pytest.raises(ConfigError, match=r"has 32, .* has 16; metrics of two sizes cannot be compared"):
        evaluate_tokenizers([tokenizer, tmp_path / "other"], [pictures], device="cpu")
    with pytest.raises(ConfigError, match="the same tokenizer"):
        evaluate_tokenizers([tokenizer, tokenizer], [pictures], device="cpu")
    with pytest.raises(ConfigError, match="protocol mine: unknown, expected one of imtok, adm"):
        evaluate_tokenizers([tokenizer], [pictures], device="cpu", protocols=["mine"])


def test_a_stream_gives_the_numbers_of_the_list_and_resumes(tokenizer: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    for shard in range(3):
        pictures_tar(shards / f"{shard}.tar", [f"{shard}{number}.png" for number in range(3)])
    (listed,) = evaluate_tokenizers([tokenizer], [shards], device="cpu", batch_size=3)
    (streamed,) = evaluate_tokenizers([tokenizer], [shards], output=tmp_path / "eval", stream=True, device="cpu")
    assert streamed.metrics == pytest.approx(listed.metrics, rel=1e-12)
    assert streamed.images_sha256 == listed.images_sha256
    units = units_in(tmp_path / "eval")
    next((tmp_path / "eval").rglob("00001.safetensors")).unlink()
    evaluate_tokenizers([tokenizer], [shards], output=tmp_path / "eval", stream=True)
    assert units_in(tmp_path / "eval") == units


def test_the_limit_of_a_stream_takes_its_first_images(tokenizer: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    for shard in range(3):
        pictures_tar(shards / f"{shard}.tar", [f"{shard}{number}.png" for number in range(3)])
    options: dict[str, Any] = {"stream": True, "device": "cpu", "limit": 4}
    (first,) = evaluate_tokenizers([tokenizer], [shards], output=tmp_path / "eval", **options)
    assert (first.images, first.skipped) == (4, 0)
    assert len(units_in(tmp_path / "eval")) == 2
    (again,) = evaluate_tokenizers([tokenizer], [shards], output=tmp_path / "eval", **options)
    assert again.as_dict(times=False) == first.as_dict(times=False)


def test_no_readable_image_is_an_error_that_says_how_many(tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.jpg").write_bytes(b"bad")
    with pytest.raises(SourceError, match="no image of 1 can be read"):
        evaluate_tokenizers([tokenizer], [tmp_path / "bad"], output=tmp_path / "eval", **SMALL)


def test_codecs_at_the_bytes_of_the_codes_are_results_too(tokenizer: Path, pictures: Path, tmp_path: Path) -> None:
    results = evaluate_tokenizers([tokenizer], [pictures], output=tmp_path / "eval", codecs=True, **SMALL)
    codecs = {result.tokenizer: result for result in results[1:]}
    assert {"JPEG", "WebP"} <= codecs.keys()
    assert codecs["JPEG"].larger == 8  # its header alone is larger than these few codes
    assert codecs["JPEG"].bits_per_image > results[0].bits_per_image
    assert (codecs["JPEG"].usage, codecs["JPEG"].images_sha256) == ({}, results[0].images_sha256)
    assert results[0].larger is None
    assert tables(results) == [results]
    assert read_results(tmp_path / "eval") == results


def test_images_are_written_beside_the_metrics_also_after_a_kill(
    tokenizer: Path, pictures: Path, tmp_path: Path
) -> None:
    def kill(done: int, total: int | None) -> None:
        del total
        if done > 4:
            raise KeyboardInterrupt

    def options(name: str) -> dict[str, Any]:
        folder = tmp_path / name
        return {**SMALL, "output": folder / "eval", "images_out": folder / "images", "samples": folder / "samples.npz"}

    (result,) = evaluate_tokenizers([tokenizer], [pictures], **options("one"))
    with pytest.raises(KeyboardInterrupt):
        evaluate_tokenizers([tokenizer], [pictures], progress=kill, **options("two"))
    assert not (tmp_path / "two" / "samples.npz").exists()
    evaluate_tokenizers([tokenizer], [pictures], **options("two"))
    samples, again = (np.load(tmp_path / name / "samples.npz")["arr_0"] for name in ("one", "two"))
    assert (samples.shape, samples.dtype) == ((8, 32, 32, 3), np.uint8)
    assert np.array_equal(samples, again)
    pages = [json.loads((tmp_path / name / "images" / "index.json").read_text()) for name in ("one", "two")]
    assert pages[0] == pages[1]
    values = [image["psnr"] for image in pages[0]["images"]]
    assert np.mean(values) == pytest.approx(result.metrics["psnr"], abs=1e-9)  # of 8 images all are shown
    assert (tmp_path / "one" / "images" / pages[0]["images"][0]["differences"]).exists()


class Alone(Processes):
    """One of several processes that share a folder, which here work one after the other."""

    def by_first(self, work: Callable[[], Any]) -> Any:
        return work()

    def gather(self, value: Any) -> list[Any]:
        return [value]

    @contextmanager
    def together(self) -> Iterator[None]:
        yield

    @contextmanager
    def first_of_machine_first(self) -> Iterator[None]:
        yield


def test_three_processes_share_the_units(
    tokenizer: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (expected,) = evaluate_tokenizers([tokenizer], [pictures], output=tmp_path / "one", **SMALL)
    lacking = {"units": [0, 1, 2]}
    monkeypatch.setattr(job, "_missing", lambda *_: (lacking["units"], None))  # as all hear it from the first
    monkeypatch.setattr(job, "_results", lambda *_: [])
    for rank in (2, 0, 1):
        monkeypatch.setattr(job, "joined", lambda rank=rank: _group(rank))
        evaluate_tokenizers([tokenizer], [pictures], output=tmp_path / "three", **SMALL)
        assert len(units_in(tmp_path / "three")) == {2: 1, 0: 2, 1: 3}[rank]
    monkeypatch.undo()
    assert units_in(tmp_path / "three") == units_in(tmp_path / "one")
    (joined,) = evaluate_tokenizers([tokenizer], [pictures], output=tmp_path / "three")
    assert joined.as_dict(times=False) == expected.as_dict(times=False)


@contextmanager
def _group(rank: int) -> Iterator[Processes]:
    yield Alone(Numbers(rank, 3))


def test_several_processes_need_a_folder(tokenizer: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "joined", lambda: _group(1))
    with pytest.raises(ConfigError, match="several processes share an evaluation by a folder"):
        evaluate_tokenizers([tokenizer], [pictures], device="cpu")


class Listed:
    """Stand-in for the units of 50,000 images; nothing is read."""

    failures: ClassVar[dict[str, str]] = {}

    def __len__(self) -> int:
        return -(-50_000 // 512)

    def name(self, number: int) -> str:
        return f"unit {number}"

    def images(self, number: int) -> int:
        return min(512, 50_000 - 512 * number)


def test_50000_images_on_8_processes_join_as_on_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageMean, "interval", lambda _: None)  # slow, and a function of the rows compared below
    metrics = [PSNR(), SSIM(), FID(nn.Identity())]
    settings = Settings.model_construct(
        size=16, precision="fp32", streamed=False, limit=None, one_core=True, device="cpu", metrics={}
    )
    measurer = UnitMeasurer(PROTOCOLS["adm"], metrics, settings, workers=1)
    named = NamedTokenizer.of("tiny", tiny())
    cell, units = named.cell(measurer.protocol), Listed()

    def part(unit: int) -> bytes:
        random, images = torch.Generator().manual_seed(unit), units.images(unit)
        measurement = measurer.empty(named)
        psnr, ssim, fid = measurement.metrics
        psnr.add_rows(values=torch.rand(images, generator=random, dtype=torch.float64) * 30)
        ssim.add_rows(values=torch.rand(images, generator=random, dtype=torch.float64))
        fid.add_rows(**{name: torch.randn(images, 4, generator=random) for name in ("restored", "originals")})
        measurement.counts += np.random.default_rng(unit).integers(0, 9, measurement.counts.shape)
        measurement.images = images
        return part_to_bytes(
            Part(measurement, images, images, list(range(images)), [(20, 20)] * images, [unit] * images), unit
        )

    alone, shared = PartsInMemory(), EvaluationFolder(tmp_path)
    for unit in range(len(units)):
        alone.put(cell, unit, part(unit), Times(images=units.images(unit)))
    for rank in (5, 0, 7, 3, 1, 2, 6, 4):  # in any order
        for unit in range(len(units))[rank::8]:
            shared.put(cell, unit, part(unit), Times(images=units.images(unit)))
    found = []
    for parts in (alone, shared):
        whole = Job(settings, units, [named], torch.device("cpu"), {}, [measurer.protocol], [measurer], parts, 0, 7, {})  # type: ignore[arg-type]
        found.append(join(whole, measurer, named))
    one, eight = found
    assert one.quality.images == 50_000
    assert dict(one.quality.metrics) == dict(eight.quality.metrics)  # to the bit
    for metric, other in zip(one.part.measurement.metrics, eight.part.measurement.metrics, strict=True):
        assert all(torch.equal(rows, other.rows(name)) for name, rows in metric.state().items())
    assert one.quality.usage.counts.tolist() == eight.quality.usage.counts.tolist()
    assert one.part.positions == list(range(50_000))
    values = one.part.measurement.metrics[0].rows("values")
    order = PROTOCOLS["adm"].order(50_000, 7)
    assert len(order) == 50_001  # an image is repeated for the seventh process
    assert one.quality.psnr == pytest.approx(float(values[order].mean()), rel=1e-12)
