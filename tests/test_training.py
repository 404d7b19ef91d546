"""Training: what a run folder holds, that it resumes bit for bit, and what it refuses."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import threading
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from making import fill
from PIL import Image
from runs import TINY, VQ, run_until, tiny
from torch import Tensor

import imtok
import imtok.training.codebook_diagnosis as codebook_diagnosis
from imtok import files
from imtok.analysis import CodebookUsage
from imtok.analysis.statistics import Finding
from imtok.config import load_train_config, merge, parse_settings
from imtok.data.batch import Batch
from imtok.data.collection import ImageCollection
from imtok.data.stream import TrainingStream
from imtok.errors import ConfigError, Interrupted, SourceError, TrainingError, UnprotectedWarning
from imtok.joint_batch import JointBatch
from imtok.quantizers import VectorQuantizer
from imtok.training import TrainProgress, choose, train
from imtok.training.run import RunFolder
from imtok.training.schedule import ema_decay, learning_rate
from imtok.training.state import TrainState
from imtok.training.step import train_step


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Thirty pictures of 40 x 48 smooth random pixels."""
    return fill(tmp_path / "pictures", (f"{number:02}.png" for number in range(30)))


GUMBEL = ["quantizer.kind=gumbel", "quantizer.dim=4", "quantizer.num_codes=16", "quantizer.temperature=2"]
RESIDUAL = [
    "quantizer.kind=residual",
    "quantizer.depth=3",
    "quantizer.quantizer_dropout=0.5",
    "quantizer.part={kind: vq, dim: 4, num_codes: 16, codebook_update: gradient, revival_threshold: 0.5}",
]


@pytest.mark.parametrize(
    "settings",
    [[], VQ, [*VQ, "quantizer.codebook_update=gradient"], ["precision=bf16"], GUMBEL, RESIDUAL],
    ids=["fsq", "vq-ema", "vq-gradient", "bf16", "gumbel", "residual-dropout"],
)
def test_a_resumed_run_equals_an_unbroken_one(settings: list[str], pictures: Path, tmp_path: Path) -> None:
    config = tiny(*settings)
    run_until([], pictures, tmp_path / "unbroken", config)
    run_until([13, 40, 80], pictures, tmp_path / "broken", config)
    for name in ("metrics.jsonl", "config.yaml", "tokenizer/model.safetensors", "tokenizer/config.json"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes(), name


def test_a_run_killed_between_checkpoints_repeats_what_was_lost(pictures: Path, tmp_path: Path) -> None:
    config = tiny()
    run_until([], pictures, tmp_path / "unbroken", config)

    def die(progress: TrainProgress) -> None:
        if progress.seen == 64:  # the last checkpoint was at 48
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train([pictures], tmp_path / "killed", config, progress=die)
    report = train([pictures], tmp_path / "killed", config, resume=True)
    assert report.resumed_from == 48
    for name in ("metrics.jsonl", "tokenizer/model.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes(), name


def test_a_damaged_checkpoint_is_passed_over_with_a_word(pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_until([], pictures, tmp_path / "unbroken", tiny())
    stopped: list[int] = []
    with pytest.raises(Interrupted):
        train([pictures], run, tiny(), progress=lambda p: stopped.append(p.seen), should_stop=lambda: 64 in stopped)
    newest = max((run / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:1000])
    notices: list[str] = []
    report = train([pictures], run, tiny(), progress=lambda p: notices.append(p.notice or ""))
    assert report.resumed_from == 48
    assert any("damaged, skipped" in notice for notice in notices)
    assert (run / "metrics.jsonl").read_bytes() == (tmp_path / "unbroken" / "metrics.jsonl").read_bytes()


def test_a_run_folder_holds_what_a_user_looks_for(pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    report = train([pictures], run, tiny())
    tokenizer = imtok.load(run)
    assert imtok.load(report.tokenizer).fingerprint == tokenizer.fingerprint
    assert load_train_config(yaml.safe_load((run / "config.yaml").read_text())) == tiny(
        "device=cpu", "compile=false", "channels_last=false", "data.rules=2", "data.stream=false"
    )
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["images"] == 96
    assert {"val/psnr", "val/ssim", "val/usage"} <= rows[-1].keys()
    assert {"loss", "learning_rate", "codebook/usage", "codebook/perplexity"} <= rows[-2].keys()
    assert report.validation["val/psnr"] == rows[-1]["val/psnr"]
    with Image.open(run / "previews" / f"{96:012}.png") as preview:
        assert preview.height > 2 * 16  # originals above reconstructions
    assert len(list((run / "checkpoints").iterdir())) <= 2
    assert not list(run.rglob(".tmp-*"))


def test_training_lowers_the_loss_and_validation_sees_it(pictures: Path, tmp_path: Path) -> None:
    config = tiny("images=960", "optimizer.learning_rate=0.005", "validate_every=80", "checkpoint_every=960")
    train([pictures], tmp_path / "run", config)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    quality = [row["val/psnr"] for row in rows if "val/psnr" in row]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    assert quality[-1] > quality[0] + 1


def test_a_finished_run_is_left_as_it_is(pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = train([pictures], run, tiny())
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    again = train([pictures], run, tiny())
    assert again.already_done
    assert again.validation == {"images": 96, **first.validation}
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before


def test_another_configuration_is_refused_and_both_sides_named(pictures: Path, tmp_path: Path) -> None:
    run_until([], pictures, tmp_path / "run", tiny())
    with pytest.raises(ConfigError, match=r"seed = 0, the command asks for 7"):
        train([pictures], tmp_path / "run", tiny("seed=7"))


def test_other_images_are_refused(pictures: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    with pytest.raises(Interrupted):
        train(
            [pictures],
            tmp_path / "run",
            tiny(),
            progress=lambda p: seen.append(p.seen),
            should_stop=lambda: len(seen) > 3,
        )
    Image.new("RGB", (24, 20)).save(pictures / "new.png")
    with pytest.raises(TrainingError, match="not those the run began with"):
        train([pictures], tmp_path / "run", tiny())


def test_other_validation_images_are_refused(pictures: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    def part(val: Path) -> None:
        train(
            [pictures],
            tmp_path / "run",
            tiny(),
            val=[val],
            progress=lambda p: seen.append(p.seen),
            should_stop=lambda: len(seen) > 3,
        )

    with pytest.raises(Interrupted):
        part(pictures / "01.png")
    with pytest.raises(TrainingError, match="give the same --val"):
        part(pictures / "02.png")


def test_unreadable_held_out_images_are_reported_at_the_start(pictures: Path, tmp_path: Path) -> None:
    held_out = ImageCollection.open([pictures]).split(0.2)[1].keys
    notices: list[str] = []
    for number, key in enumerate(held_out, 1):
        (pictures / key).write_bytes(b"<html>")
        run = tmp_path / f"run{number}"
        report = train([pictures], run, tiny(), progress=lambda p: notices.append(p.notice or ""))
        assert any(f"{key}: left out of validation" in notice for notice in notices)
        assert bool(report.validation) is (number < len(held_out))  # none left: nothing measured, and no failure


def test_resume_without_a_checkpoint_is_refused(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no checkpoint"):
        train([pictures], tmp_path / "run", tiny(), resume=True)


def test_a_foreign_folder_is_no_run(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="is no run of imtok"):
        train([pictures], pictures, tiny())


def test_two_processes_cannot_train_one_run(pictures: Path, tmp_path: Path) -> None:
    def again(progress: TrainProgress) -> None:
        with pytest.raises(TrainingError, match="another process is training"):
            train([pictures], tmp_path / "run", tiny())
        raise RuntimeError("seen enough")

    with pytest.raises(RuntimeError, match="seen enough"):
        train([pictures], tmp_path / "run", tiny(), progress=again)


def test_a_run_needs_no_locks_but_a_disk_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter([errno.ENOLCK, errno.EIO])

    def refuse(*_: object) -> None:
        raise OSError(number := next(numbers), os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(files, "_warned", set())
    with pytest.warns(UnprotectedWarning, match="one process at a time"), RunFolder(tmp_path).claimed():
        pass
    with pytest.raises(OSError, match=r"Input/output error.*\.lock"), RunFolder(tmp_path).claimed():
        pass


def test_an_exploding_run_stops_with_advice_and_keeps_its_checkpoints(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"lower optimizer.learning_rate"):
        train([pictures], tmp_path / "run", tiny("optimizer.learning_rate=1e30", "images=4000", "validate_every=4000"))


def test_unreadable_training_images_are_passed_over_and_named(pictures: Path, tmp_path: Path) -> None:
    (pictures / "07.png").write_bytes(b"not a picture")
    notices: list[str] = []
    train([pictures], tmp_path / "run", tiny(), progress=lambda p: notices.append(p.notice or ""))
    assert any("07.png" in notice for notice in notices)


def test_only_unreadable_images_end_in_one_clear_line(tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.jpg").write_bytes(b"no")
    with pytest.raises(SourceError, match="no image of"):
        choose(ImageCollection.open([folder]), gpu=False)
    with pytest.raises(TrainingError, match="no training image of"):
        train([folder], tmp_path / "run", tiny("data.val_fraction=0"))


def test_training_leaves_the_callers_random_state_and_threads_alone(pictures: Path, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train([pictures], tmp_path / "run", tiny())
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
    assert torch.get_num_threads() == threads


def stream(images: ImageCollection, **changes: Any) -> TrainingStream:
    settings: dict[str, Any] = {
        "size": 16, "crop": 8, "flip": True, "seed": 3, "joint": JointBatch(4), "cache_bytes": 10**9, "workers": 2,
    }  # fmt: skip
    return TrainingStream(images, **(settings | changes))


def crops(batches: Iterable[Batch]) -> Tensor:
    return torch.cat([batch.images for batch in batches])


def test_the_stream_is_a_function_of_seed_and_position_alone(pictures: Path) -> None:
    images = ImageCollection.open([pictures])
    whole = crops(stream(images).batches(0, 80))
    later = crops(stream(images, cache_bytes=0, workers=1).batches(32, 80))
    torch.testing.assert_close(whole[32:], later, rtol=0, atol=0)
    assert not torch.equal(whole, crops(stream(images, seed=4).batches(0, 80)))


@pytest.mark.parametrize(("rows", "workers"), [(1, 4), (3, 1), (11, 4)])
def test_batches_are_the_same_from_any_number_of_threads(pictures: Path, rows: int, workers: int) -> None:
    images = ImageCollection.open([pictures])
    source = stream(images, joint=JointBatch(rows), workers=workers)
    batches = [batch.images for batch in source.batches(0, 5 * rows)]
    assert len(batches) == 5
    for number, batch in enumerate(batches):
        expected = np.stack([source._sample(number * rows + row) for row in range(rows)]).transpose(0, 3, 1, 2)
        assert np.array_equal(batch.numpy(), expected)
        assert torch.equal(source.batch(number * rows).images, batch)


def test_several_threads_fill_the_rows_of_one_batch(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: dict[int, set[str]] = {}
    meeting = threading.Barrier(2)
    sample = TrainingStream._sample

    def noted(self: TrainingStream, number: int) -> np.ndarray:
        threads.setdefault(number // 16, set()).add(threading.current_thread().name)
        if number in (0, 4):  # the first images of two pieces: both are begun before either ends
            meeting.wait(5)
        return sample(self, number)

    monkeypatch.setattr(TrainingStream, "_sample", noted)
    images = ImageCollection.open([pictures])
    with closing(stream(images, joint=JointBatch(16)).batches(0, 16)) as batches:
        next(batches)
    assert len(threads[0]) == 2


def test_a_strip_is_trained_on_without_being_enlarged_whole(tmp_path: Path) -> None:
    Image.new("RGB", (6000, 1), (9, 8, 7)).save(tmp_path / "strip.png")
    images = ImageCollection.open([tmp_path])
    strips = stream(images, size=256, crop=64)
    assert strips.batch(0).images.shape == (4, 3, 64, 64)
    assert strips._picture(0).shape == (256, 1024, 3)


def test_permuted_channels_keep_the_pixels_and_change_their_colours(pictures: Path) -> None:
    images = ImageCollection.open([pictures])
    plain = stream(images, joint=JointBatch(16)).batch(0).images
    permuted = stream(images, joint=JointBatch(16), permute_channels=True).batch(0).images
    assert torch.equal(plain.sort(dim=1).values, permuted.sort(dim=1).values)
    changed = (plain != permuted).flatten(1).any(dim=1)
    assert changed.any()
    assert not changed.all()


def test_every_epoch_has_its_own_order_of_all_images(pictures: Path) -> None:
    images = ImageCollection.open([pictures])
    all_crops = crops(stream(images, crop=16, flip=False, joint=JointBatch(1), size=16).batches(0, 60))
    means = all_crops.float().mean(dim=(1, 2, 3))  # one number a picture, nearly independent of where the crop was
    order = [images.keys[int(i)] for i in stream(images)._order(0)]
    assert sorted(order) == images.keys
    assert order != [images.keys[int(i)] for i in stream(images)._order(1)]
    assert len(means) == 60


@pytest.mark.parametrize("count", [1, 7, 20, 29, 30, 50])
def test_a_subsample_has_the_requested_number_of_images(count: int, pictures: Path) -> None:
    images = ImageCollection.open([pictures])
    assert len(set(images.subsample(count).keys)) == min(count, 30)


def test_a_grown_set_keeps_its_split(pictures: Path) -> None:
    before = set(ImageCollection.open([pictures]).split(0.2)[1].keys)
    Image.new("RGB", (24, 20)).save(pictures / "zz.png")
    training, validation = ImageCollection.open([pictures]).split(0.2)
    assert before <= set(validation.keys)
    assert set(training.keys).isdisjoint(validation.keys)
    assert len(training) + len(validation) == 31
    assert ImageCollection.open([pictures]).split(0.0)[1].keys == []


def test_the_learning_rate_rises_then_falls_as_a_cosine() -> None:
    rates = [learning_rate(seen, 1000, 1.0, 0.1) for seen in (0, 50, 100, 550, 1000, 2000)]
    assert rates == pytest.approx([0.0, 0.5, 1.0, 0.5, 0.0, 0.0])
    assert learning_rate(0, 1000, 1.0, 0.0) == 1.0


def test_the_ema_forgets_its_first_weights_soon() -> None:
    assert ema_decay(0, 0.999) == pytest.approx(0.1)
    assert ema_decay(10**6, 0.999) == 0.999


def test_the_ema_without_decay_is_the_live_tokenizer() -> None:
    state = TrainState(tiny("ema_decay=0"), torch.device("cpu"))
    train_step(state, torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8))
    for name, value in state.tokenizer.state_dict().items():
        torch.testing.assert_close(state.ema.model.state_dict()[name], value, rtol=0, atol=0)


def test_a_restarted_code_has_new_optimizer_state_and_ema() -> None:
    state = TrainState(tiny(*VQ, "quantizer.codebook_update=gradient", "ema_decay=0.999"), torch.device("cpu"))
    live, mean = state.tokenizer.quantizer, state.ema.model.quantizer
    assert isinstance(live, VectorQuantizer)
    assert isinstance(mean, VectorQuantizer)
    for seed in range(3):
        torch.manual_seed(seed)
        train_step(state, torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8))
    moments = state.optimizer.adamw.state[live.codebook]  # type: ignore[index]
    moments["exp_avg"] += 1.0
    live.codebook.data[5] = 1000.0  # where no latent is
    live.age[5] = 10**9
    old = live.codebook[5].detach().clone()
    train_step(state, torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8))
    assert (live.codebook[5] - old).norm() > 0.1
    assert (moments["exp_avg"][5] == 0).all()
    assert (moments["exp_avg"] != 0).any()
    torch.testing.assert_close(mean.codebook[5], live.codebook[5], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("side", "gpu", "size", "downsample"),
    [(20, False, 32, 4), (64, False, 64, 4), (300, False, 256, 8), (300, True, 256, 8)],
)
def test_the_automatic_choice_follows_the_images(
    side: int, gpu: bool, size: int, downsample: int, tmp_path: Path
) -> None:
    for number in range(3):
        Image.new("RGB", (side, side + number)).save(tmp_path / f"{number}.png")
    choice = choose(ImageCollection.open([tmp_path]), gpu=gpu)
    config = load_train_config(choice.values)
    assert config.tokenizer.size == size
    assert config.tokenizer.network.downsample == downsample
    assert choice.facts == f"3 images, shorter side {side} to {side} px, median {side}"


def test_the_quantizer_anneals_with_the_progress_of_the_run() -> None:
    state = TrainState(tiny(*GUMBEL), torch.device("cpu"))
    received = []
    for _ in range(3):
        train_step(state, torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8))
        received.append(float(state.tokenizer.get_buffer("quantizer.progress")))
    assert received == pytest.approx([0, 8 / 96, 16 / 96])
    assert float(state.ema.model.get_buffer("quantizer.progress")) == received[-1]


def test_the_log_has_the_statistics_of_stats(pictures: Path, tmp_path: Path) -> None:
    usages: list[CodebookUsage] = []

    def note(progress: TrainProgress) -> None:
        if progress.usage is not None:
            usages.append(progress.usage)

    train([pictures], tmp_path / "run", tiny(*VQ), progress=note)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    logged = [row for row in rows if "codebook/usage" in row]
    assert len(logged) == len(usages) > 0
    for row, usage in zip(logged, usages, strict=True):
        use = usage.as_use().model_dump()
        assert {name: row.get(f"codebook/{name}") for name in use} == use
    assert any("codebook/zipf_slope" in row for row in logged)


def test_a_collapse_is_reported_once_and_at_the_end(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [Finding(name=grade, grade=grade, text=grade, page="p") for grade in ("problem", "warning", "hint")]
    monkeypatch.setattr(codebook_diagnosis, "usage_findings", lambda *_, **__: found)
    reported: list[tuple[int, str]] = []

    def note(progress: TrainProgress) -> None:
        reported.extend(
            (progress.seen, note)
            for note in progress.notes
            if note in ("problem (problem)", "warning (warning)", "hint (hint)")
        )

    train([pictures], tmp_path / "run", tiny("validate_every=16"), progress=note)  # after 16, 32, 48 and so on of 96
    assert reported == [(32, "problem (problem)"), (96, "problem (problem)"), (96, "warning (warning)")]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["quantizer.kind=fsq"], ""),
        (["quantizer.kind=vq", "quantizer.codebook_update=projection", "quantizer.num_codes=9999"], ""),
        (["quantizer.kind=vq", "quantizer.num_codes=9999", "start_from=another"], ""),
        (["quantizer.kind=vq", "quantizer.num_codes=384"], ""),  # 96 images of 16 latents, 4 a code
        (["quantizer.kind=vq", "quantizer.num_codes=385"], "have 1536 latents for the 385 codes.* 97 images or more"),
        (["quantizer={kind: residual, depth: 2, shared: true, part: {kind: vq, num_codes: 768}}"], ""),
        (
            ["quantizer={kind: residual, depth: 2, part: {kind: vq, num_codes: 768}}"],
            r"96 images have 1536 latents for the 768 codes .* fewer codes \(quantizer.part.num_codes\)",
        ),
    ],
)
def test_a_run_too_short_for_its_codebook_is_told_before(settings: list[str], expected: str) -> None:
    config = load_train_config(merge(parse_settings(TINY), parse_settings(settings)))
    warning = codebook_diagnosis.too_short_for_codebook(config)
    assert re.search(expected, warning) if expected else warning == ""


def test_a_warning_of_a_short_run_comes_before_training(pictures: Path, tmp_path: Path) -> None:
    notes: list[tuple[int, str]] = []

    def note(progress: TrainProgress) -> None:
        notes.extend((progress.seen, note) for note in progress.notes if "codes of a codebook" in note)

    train([pictures], tmp_path / "run", tiny(*VQ, "quantizer.num_codes=512"), progress=note)
    assert [seen for seen, _ in notes] == [0]


def test_progress_never_goes_beyond_the_end_of_the_run(pictures: Path, tmp_path: Path) -> None:
    reported: list[int] = []
    train([pictures], tmp_path / "run", tiny("images=90"), progress=lambda progress: reported.append(progress.seen))
    assert max(reported) == reported[-1] == 90
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["images"] == 96


def test_each_codebook_is_logged_where_there_are_several(pictures: Path, tmp_path: Path) -> None:
    usages: list[CodebookUsage] = []

    def note(progress: TrainProgress) -> None:
        if progress.usage is not None:
            usages.append(progress.usage)

    train([pictures], tmp_path / "run", tiny(*RESIDUAL), progress=note)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    logged = next(row for row in rows if "codebook/usage" in row)
    assert [logged[f"codebook/{number}/usage"] for number in (1, 2, 3)] == [each.usage for each in usages[0].codebooks]
    assert all(each.tokens == 8 * 4 * 4 for each in usages[0].codebooks)


def test_an_impossible_quantizer_is_refused_before_images_are_read(tmp_path: Path) -> None:
    config = tiny("quantizer={kind: residual, depth: 2, scales: [1, 2, 3], part: {kind: fsq, levels: [5, 3]}}")
    with pytest.raises(ConfigError, match=r"^quantizer: there are 3 scales for 2 stages"):
        train([tmp_path / "none"], tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


def test_few_held_out_images_are_reported(pictures: Path, tmp_path: Path) -> None:
    notices: list[str] = []

    def note(progress: TrainProgress) -> None:
        notices.append(progress.notice or "")

    train([pictures], tmp_path / "few", tiny("data.val_fraction=0.01"), progress=note)
    assert any("1 image is held out for validation" in notice for notice in notices)
    notices.clear()
    train([pictures], tmp_path / "own", tiny(), val=[pictures / "01.png"], progress=note)
    assert not any("held out for validation" in notice for notice in notices)


def test_the_ema_averages_parameters_and_copies_the_codebook() -> None:
    state = TrainState(tiny(*VQ), torch.device("cpu"))
    start = state.ema.model.encoder.conv_out.weight.clone()
    for _ in range(3):
        train_step(state, torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8))
    live, mean = state.tokenizer, state.ema.model
    assert torch.equal(mean.get_buffer("quantizer.codebook"), live.get_buffer("quantizer.codebook"))
    between = (mean.encoder.conv_out.weight - start) / (live.encoder.conv_out.weight - start)
    assert 0.1 < between.median() < 0.95


def test_the_ema_of_a_projected_codebook_averages_the_projection() -> None:
    state = TrainState(tiny("quantizer.kind=vq", "quantizer.codebook_update=projection"), torch.device("cpu"))
    start = state.ema.model.get_parameter("quantizer.projection.weight").clone()
    for _ in range(3):
        train_step(state, torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8))
    live, mean = state.tokenizer, state.ema.model
    assert torch.equal(mean.get_buffer("quantizer.codebook"), live.get_buffer("quantizer.codebook"))
    moved = live.get_parameter("quantizer.projection.weight") - start
    between = (mean.get_parameter("quantizer.projection.weight") - start) / moved
    assert 0.1 < between.median() < 0.95


def test_small_previews_are_enlarged_pixel_by_pixel(pictures: Path, tmp_path: Path) -> None:
    train([pictures], tmp_path / "run", tiny())
    with Image.open(tmp_path / "run" / "previews" / f"{96:012}.png") as preview:
        pixels = np.asarray(preview.convert("RGB"))[4:100, 4:100]
    blocks = pixels.reshape(16, 6, 16, 6, 3)
    assert np.array_equal(blocks, np.broadcast_to(blocks[:, :1, :, :1], blocks.shape))
