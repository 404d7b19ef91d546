"""The scripts in `benchmarks/`: they run from end to end, and the figures they print are what they say."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from families import noise
from making import fill_split
from scripts import call_script, import_script

from imtok.quantizers import BSQ, FSQ, LFQ, GumbelQuantizer, ResidualQuantizer, VectorQuantizer

SHORT = ["--images", "16", "--batch-size", "8", "--channels", "8", "--log2-codes", "8", "--device", "cpu"]


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module; its neighbours can be imported as when it is started from the command line."""
    return import_script("quantizer_study", monkeypatch)


@pytest.fixture
def call(study: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def called(*words: str | Path) -> None:
        call_script(study, monkeypatch, *words)

    return called


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Tars of 12 pictures for training and 6 held out."""
    return fill_split(tmp_path, train=12, val=6)


def test_the_study_runs_every_quantizer_and_reprints_its_table(
    study: ModuleType, call: Callable[..., None], pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = pictures / "results.jsonl"
    call(pictures, "--results", results, *SHORT)
    *text, last = capsys.readouterr().out.splitlines()
    figures = json.loads(last)["figures"]
    assert set(figures) == {f"{kind}/8" for kind in study.KINDS}
    for line in map(json.loads, results.read_text().splitlines()):
        assert line["tokens"] == 6 * 64
        assert 1 <= line["perplexity"] <= line["used"] <= line["codes"] <= 256
        assert 0 < line["psnr"] < 60
        assert (line["error"] is None) == (line["kind"] == "gumbel")
    call("--table", results)
    assert capsys.readouterr().out.splitlines() == text


def test_only_a_study_run_cut_short_is_made_again(
    study: ModuleType, call: Callable[..., None], pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = pictures / "results.jsonl"
    call(pictures, "--results", results, *SHORT, "--kinds", "fsq", "lfq")
    first, second = results.read_text().splitlines()
    results.write_text(first + "\n" + second[:40])
    made = []
    run = study.run

    def noted(kind: str, *rest: object) -> object:
        made.append(kind)
        return run(kind, *rest)

    monkeypatch.setattr(study, "run", noted)
    call(pictures, "--results", results, *SHORT, "--kinds", "fsq", "lfq")
    assert made == ["lfq"]
    assert [line["kind"] for line in study.finished(results)] == ["fsq", "lfq"]


def test_study_runs_of_other_settings_are_made_again(
    study: ModuleType, call: Callable[..., None], pictures: Path
) -> None:
    results = pictures / "results.jsonl"
    call(pictures, "--results", results, *SHORT, "--kinds", "fsq")
    call(pictures, "--results", results, *SHORT, "--kinds", "fsq", "--seed", "1")
    assert len(study.finished(results)) == 2
    with pytest.raises(SystemExit, match="differ in settings"):
        study.table(study.finished(results))


def test_a_run_that_diverges_is_a_result(study: ModuleType, call: Callable[..., None], pictures: Path) -> None:
    results = pictures / "results.jsonl"
    call(pictures, "--results", results, *SHORT, "--kinds", "vq-ema", "--learning-rate", "1e30")
    (line,) = study.finished(results)
    assert "finite" in line["failed"] or "NaN" in line["failed"]
    assert "| failed |" in study.table([line])


def test_all_quantizers_see_the_same_images_in_the_same_order(study: ModuleType, pictures: Path) -> None:
    images, _ = study.load_images(pictures)
    settings = study.Settings(
        data="", train_images=12, val_images=6, images=24, batch_size=8, learning_rate=1e-3, warmup=0.05,
        clip_norm=1.0, fold=4, channels=(8,), blocks=1, seed=0, precision="fp32",
    )  # fmt: skip
    first = [batch for _, batch in study.batches(images, settings)]
    torch.manual_seed(7)  # what a quantizer draws must not change the order
    second = [batch for _, batch in study.batches(images, settings)]
    assert torch.equal(torch.cat(first), torch.cat(second))
    shown = {tuple(sorted((image.tolist(), image.flip(2).tolist()))[0][0][0]) for image in torch.cat(first)[:12]}
    assert len(shown) == 12  # an epoch shows each image once


def test_fsq_rounds_within_half_a_step_of_its_codes(study: ModuleType) -> None:
    quantizer = FSQ([8, 6, 5])
    latents = noise(4, 3, 8, 8) * 3
    half_widths = torch.tensor([4.0, 3.0, 2.0])
    rounded = (study.as_compared(quantizer, latents) * half_widths).round() / half_widths
    assert torch.equal(rounded, study.to_rows(quantizer(latents).latents))


def test_errors_are_taken_where_codes_are_compared(study: ModuleType) -> None:
    latents = noise(2, 8, 3, 3) * 5
    assert torch.equal(study.as_compared(LFQ(8), latents), study.to_rows(latents))
    assert torch.equal(study.as_compared(VectorQuantizer(8, 4), latents), study.to_rows(latents))
    for quantizer in (BSQ(8), VectorQuantizer(8, 4, metric="cosine")):
        torch.testing.assert_close(study.as_compared(quantizer, latents).norm(dim=1), torch.ones(18))
    assert study.as_compared(GumbelQuantizer(8, 4), latents) is None


def test_use_of_two_codebooks_is_that_of_their_pairs(study: ModuleType) -> None:
    quantizer = ResidualQuantizer([VectorQuantizer(2, 4), VectorQuantizer(2, 4)])
    found = study.usage(torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]), quantizer)
    assert found["codes"] == 16
    assert found["used"] == 4
    assert found["perplexity"] == pytest.approx(4)
    assert found["usage_of_each"] == [0.5, 0.5]


@pytest.mark.filterwarnings("ignore")  # of the peers' own
def test_the_kernels_are_measured_and_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("vector_quantize_pytorch", reason="the peer that kernels are measured against is not installed")
    if importlib.util.find_spec("faiss") is None:  # importing it here would warn
        pytest.skip("the peer that searches are measured against is not installed")
    kernels = import_script("kernels", monkeypatch)
    # Its cache of compiled kernels is a folder that is gone afterwards.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    words = ["--rounds", "1", "--shrink", "64", "--device", "cpu", "--threads", "1"]
    call_script(kernels, monkeypatch, *words)
    *table, last = capsys.readouterr().out.splitlines()
    assert len(table) == 2 + len(kernels.MEASURES) + 1
    result = json.loads(last)
    assert len(result["ratios"]) == len(kernels.MEASURES)
    for measure, ratios in result["ratios"].items():
        assert ratios["imtok"] > 0, measure
        medians = result["median_ms"][measure]
        assert ratios["imtok"] == pytest.approx(
            medians["imtok"] / medians["base"], rel=0.02, abs=2e-4
        )  # of the only round
