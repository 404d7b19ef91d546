"""The run folder on a bad disk: what is damaged, refused or left half is neither lost nor taken for what it is not."""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from making import fill
from runs import GAN, FullDisk, logged, run_until, stop_at, tiny

import imtok
import imtok.losses.perceptual as perceptual
import imtok.training.loop as loop
import imtok.training.run as run_module
import imtok.training.tensorboard as tensorboard
import imtok.training.validation as validation
from imtok.config import TrainConfig, load_train_config, merge, read_config_file
from imtok.errors import ConfigError, DiskError, Interrupted, TokenizerError, TrainingError, disk_errors
from imtok.training import TrainProgress, TrainReport, resolve, train
from imtok.training.best import written_metrics
from imtok.training.run import JsonLines, RunFolder
from imtok.training.skipped_steps import SkippedSteps
from imtok.training.state import TrainState

CPU = torch.device("cpu")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return fill(tmp_path / "pictures", (f"{number:02}.png" for number in range(20)))


@pytest.fixture
def best_is_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validations after 40 images find 30 dB, all later ones less."""
    measured_qualities(monkeypatch, iter([30.0, *[20.0] * 20]))


def measured_qualities(patch: pytest.MonkeyPatch, psnr: Iterator[float]) -> None:
    measure = validation.measure_together

    def measured(*arguments: Any, **options: Any) -> Any:
        found = measure(*arguments, **options)
        return dataclasses.replace(found, metrics={**found.metrics, "psnr": next(psnr)})

    patch.setattr(validation, "measure_together", measured)


def stopped(pictures: Path, run: Path, seen: int, *settings: str) -> None:
    with pytest.raises(Interrupted):
        train([pictures], run, tiny(*settings), **stop_at(seen))


def trained(pictures: Path, run: Path, *settings: str) -> tuple[TrainReport, list[str]]:
    """Train to the end, and what was said meanwhile."""
    notices: list[str] = []
    report = train([pictures], run, tiny(*settings), progress=lambda p: notices.append(p.notice or ""))
    return report, [notice for notice in notices if notice]


def same_end(one: Path, other: Path) -> None:
    for name in ("metrics.jsonl", "tokenizer/model.safetensors", "best/model.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def full_for(patch: pytest.MonkeyPatch, name: str) -> Callable[[bool], None]:
    """A switch: while it is on, the file `name` of a run takes no line."""
    write, full = JsonLines.write, False

    def refusing(self: JsonLines, *, durable: bool = False) -> None:
        with disk_errors(self.path):
            if full and self.path.name == name:
                raise OSError(errno.ENOSPC, "No space left on device")
        write(self, durable=durable)

    def switch(on: bool) -> None:
        nonlocal full
        full = on

    patch.setattr(JsonLines, "write", refusing)
    return switch


@pytest.mark.parametrize("kept", [1, 2])
def test_a_damaged_checkpoint_removes_no_newer_one(kept: int, pictures: Path, tmp_path: Path) -> None:
    settings, run = f"keep_checkpoints={kept}", tmp_path / "run"
    run_until([], pictures, tmp_path / "unbroken", tiny(settings))
    stopped(pictures, run, 64, settings)
    newest = max((run / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:1000])
    stopped(pictures, run, 56, settings)
    assert RunFolder(run).checkpoints_seen()[0] == 56
    assert newest.with_name("000000000064.damaged").stat().st_size == 1000
    report = train([pictures], run, tiny(settings))
    assert report.resumed_from == 56
    same_end(run, tmp_path / "unbroken")


def test_the_checkpoint_just_written_is_never_dropped(tmp_path: Path) -> None:
    folder, state = RunFolder(tmp_path), TrainState(tiny(), CPU)
    for state.seen in (64, 48, 56):
        folder.save_checkpoint(state, {}, kept=1, best=None)
    assert folder.checkpoints_seen() == [64, 56]


def test_as_many_damaged_checkpoints_are_kept_as_whole_ones(tmp_path: Path) -> None:
    folder, state = RunFolder(tmp_path), TrainState(tiny(), CPU)
    for state.seen in (8, 16, 24, 32):
        folder.save_checkpoint(state, {}, kept=4, best=None)
    for seen in (16, 24, 32):
        (tmp_path / f"checkpoints/{seen:012d}.safetensors").write_bytes(b"")
    _, notices = folder.restore_newest(state)
    assert [notice.split()[-2] for notice in notices] == [f"{seen:012d}.damaged" for seen in (32, 24, 16)]
    state.seen = 40
    folder.save_checkpoint(state, {}, kept=2, best=None)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "000000000008.safetensors", "000000000024.damaged", "000000000032.damaged", "000000000040.safetensors",
    ]  # fmt: skip


def test_a_checkpoint_that_cannot_be_read_is_passed_over_too(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(pictures, tmp_path / "run", 64)
    read = Path.read_bytes

    def failing(path: Path) -> bytes:
        if path.name == "000000000064.safetensors":
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    report, notices = trained(pictures, tmp_path / "run")
    assert report.resumed_from == 48
    assert any("64.safetensors: damaged, skipped (Input/output error)" in notice for notice in notices)


def test_unreadable_checkpoints_stay_and_their_reasons_are_reported(tmp_path: Path) -> None:
    folder, state = RunFolder(tmp_path), TrainState(tiny(), CPU)
    for state.seen in (8, 16, 24):
        folder.save_checkpoint(state, {}, kept=3, best=None)
    short, flipped, old = ((tmp_path / f"checkpoints/{seen:012d}.safetensors") for seen in (8, 16, 24))
    short.write_bytes(short.read_bytes()[:-1])
    flipped.write_bytes(flipped.read_bytes()[:-5] + b"\x7f" + flipped.read_bytes()[-4:])
    old.write_bytes(safetensors.torch.save({"a": torch.ones(1)}, {"imtok": "{}"}))
    with pytest.raises(TrainingError) as caught:
        folder.restore_newest(state)
    assert (
        "(000000000024.safetensors: written by an earlier imtok; 000000000016.safetensors: its content does not have "
        "the hash it was written with; 000000000008.safetensors: cut short or overwritten)"
    ) in str(caught.value)
    assert folder.checkpoints_seen() == [24, 16, 8]


@pytest.mark.parametrize(("number", "left"), [(errno.EIO, [16, 8]), (errno.EROFS, [16, 8]), (errno.EDQUOT, [24, 16])])
def test_older_checkpoints_make_room_only_where_room_is_lacking(
    number: int, left: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, state = RunFolder(tmp_path), TrainState(tiny(), CPU)
    for state.seen in (8, 16):
        folder.save_checkpoint(state, {}, kept=2, best=None)
    write = run_module.write_atomically

    def refusing(path: Path, data: bytes) -> None:
        with disk_errors(path):
            if len(folder.checkpoints_seen()) == 2:
                raise OSError(number, "refused")
        write(path, data)

    monkeypatch.setattr(run_module, "write_atomically", refusing)
    state.seen = 24
    if number == errno.EDQUOT:
        folder.save_checkpoint(state, {}, kept=2, best=None)
    else:
        with pytest.raises(DiskError) as caught:
            folder.save_checkpoint(state, {}, kept=2, best=None)
        assert caught.value.errno == number
    assert folder.checkpoints_seen() == left


@pytest.mark.usefixtures("best_is_first")
def test_a_refused_best_tokenizer_is_written_later(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, there = FullDisk(monkeypatch, "best"), {}

    def note(progress: TrainProgress) -> None:
        disk.full = 20 < progress.seen < 48
        there[progress.seen] = written_metrics(tmp_path / "run" / "best").get("images")

    report = train([pictures], tmp_path / "run", tiny(), progress=note)
    assert (there[48], there[56]) == (None, 40)
    assert report.best_tokenizer == tmp_path / "run" / "best"
    assert (report.best["images"], report.best["val/psnr"]) == (40, 30.0)


@pytest.mark.usefixtures("best_is_first")
def test_a_best_tokenizer_refused_to_the_end_is_a_notice(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FullDisk(monkeypatch, "best").full = True
    report, notices = trained(pictures, tmp_path / "run")
    assert report.best_tokenizer is None
    assert report.best["images"] == 40
    assert notices[-1] == "the best tokenizer could not be written (No space left on device)"


@pytest.mark.parametrize("log_too", [False, True])
def test_a_refused_best_tokenizer_comes_back_from_its_checkpoint(
    log_too: bool, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        measured_qualities(patch, iter([30.0, *[20.0] * 9]))
        run_until([], pictures, tmp_path / "unbroken", tiny())
    measured_qualities(monkeypatch, iter([30.0, *[20.0] * 9]))
    with monkeypatch.context() as patch:
        FullDisk(patch, "best").full = True
        full_for(patch, "metrics.jsonl")(log_too)
        stopped(pictures, tmp_path / "run", 64)
    assert not (tmp_path / "run" / "best").exists()
    report = train([pictures], tmp_path / "run", tiny())
    assert report.best["images"] == 40
    same_end(tmp_path / "run", tmp_path / "unbroken")


@pytest.mark.parametrize("full", [False, True])
def test_a_run_given_up_names_its_written_best_tokenizer(
    full: bool, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FullDisk(monkeypatch, "best").full = full
    seen = [0]
    monkeypatch.setattr(SkippedSteps, "problem", lambda _: "no good" if seen[-1] >= 64 else None)
    with pytest.raises(TrainingError, match="no good") as caught:
        train([pictures], tmp_path / "run", tiny(), progress=lambda p: seen.append(p.seen))
    assert (f"--start-from {tmp_path / 'run' / 'best'}" in str(caught.value)) is not full


def test_best_metrics_belong_to_the_best_tokenizer_after_a_kill(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: the steps after the last checkpoint come out worse the second time."""
    measured_qualities(monkeypatch, iter([30.0, *[20.0] * 9]))
    run = tmp_path / "run"

    def die(progress: TrainProgress) -> None:
        if progress.validation is not None:  # the best is written, its checkpoint is not
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train([pictures], run, tiny(), progress=die)
    first = (run / "best/model.safetensors").read_bytes()
    assert RunFolder(run).checkpoints_seen() == [24]
    report = train([pictures], run, tiny())
    assert (run / "best/model.safetensors").read_bytes() == first
    assert report.best == written_metrics(run / "best")
    assert (report.best["images"], report.best["val/psnr"]) == (40, 30.0)


def test_the_best_tokenizer_loads_with_its_metrics_in_it(pictures: Path, tmp_path: Path) -> None:
    report = train([pictures], tmp_path / "run", tiny())
    assert written_metrics(tmp_path / "run" / "best") == report.best
    assert imtok.load(tmp_path / "run" / "best").config == tiny().tokenizer
    assert train([pictures], tmp_path / "run", tiny()).best == report.best


class Writer:
    """Stands for TensorBoard's; refuses the events that a test names."""

    def __init__(self, refuses: str) -> None:
        self.refuses, self.closed = refuses, 0

    def add_scalar(self, *_: object) -> None:
        self._refuse("add")

    def close(self) -> None:
        self.closed += 1
        self._refuse("close")

    def _refuse(self, what: str) -> None:
        if what == self.refuses:
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("refuses", ["open", "add", "close"])
def test_tensorboard_on_a_full_disk_does_not_end_the_run(
    refuses: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object) -> Writer:
        if refuses == "open":
            raise OSError(errno.ENOSPC, "No space left on device")
        return Writer(refuses)

    monkeypatch.setattr(tensorboard, "_open_writer", opened)
    report, notices = trained(pictures, tmp_path / "run")
    assert report.tokenizer.is_dir()
    assert notices.count("TensorBoard's events end here (No space left on device)") == 1


def test_tensorboard_is_closed_where_a_run_is_stopped(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer("nothing")
    monkeypatch.setattr(tensorboard, "_open_writer", lambda *_: writer)
    stopped(pictures, tmp_path / "run", 16)
    assert writer.closed == 1


def test_half_a_line_that_a_kill_left_is_cut_off(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "timing.jsonl")
    lines.path.write_text('{"images": 8}\n{"ima')
    lines.rewind()
    lines.add({"images": 16})
    assert [json.loads(line)["images"] for line in lines.path.read_text().splitlines()] == [8, 16]


def test_a_refused_line_of_metrics_costs_no_line_of_timing(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_until([], pictures, tmp_path / "unbroken", tiny())
    full = full_for(monkeypatch, "metrics.jsonl")
    train([pictures], tmp_path / "run", tiny(), progress=lambda p: full(16 <= p.seen < 64))
    timing = [json.loads(line)["images"] for line in (tmp_path / "run" / "timing.jsonl").read_text().splitlines()]
    assert timing == list(range(8, 97, 8))
    same_end(tmp_path / "run", tmp_path / "unbroken")


def test_lines_of_timing_refused_late_are_written_at_the_end(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = full_for(monkeypatch, "timing.jsonl")
    train([pictures], tmp_path / "run", tiny(), progress=lambda p: full(p.seen > 80 and not p.validation))
    assert len((tmp_path / "run" / "timing.jsonl").read_text().splitlines()) == 12


@pytest.mark.parametrize("refused", ["tokenizer", "metrics"])
def test_a_run_refused_at_its_end_lacks_its_tokenizer_only(
    refused: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        measured_qualities(patch, iter([30.0, *[20.0] * 9]))  # so that the end is not the best, which is saved anyway
        run_until([], pictures, tmp_path / "unbroken", tiny())
    with monkeypatch.context() as patch:
        measured_qualities(patch, iter([30.0, *[20.0] * 9]))
        if refused == "tokenizer":
            FullDisk(patch, ".tokenizer-unfinished").full = True
        full = full_for(patch, "metrics.jsonl")
        with pytest.raises(DiskError) as caught:
            train([pictures], run, tiny(), progress=lambda p: full(refused == "metrics" and p.seen > 80))
    assert caught.value.exit_code == 74
    assert RunFolder(run).checkpoints_seen()[0] == 96
    assert not RunFolder(run).finished
    steps: list[int] = []
    monkeypatch.setattr(loop, "train_step", lambda _, batch: steps.append(len(batch)))
    report = train([pictures], run, tiny())
    assert (report.resumed_from, steps) == (96, [])
    assert report.validation["val/psnr"] == logged(run)[-1]["val/psnr"] == 20
    same_end(run, tmp_path / "unbroken")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ([*GAN, "adversarial.discriminator.layers=6"], ConfigError, "crops of 16 px are too small"),
        (["start_from=START", "quantizer.levels=[7,5,5]"], ConfigError, "its quantizer is not that of this run"),
        (["start_from=/nowhere"], TokenizerError, "no such folder"),
    ],
    ids=["discriminator", "start", "no-start"],
)
def test_an_impossible_run_is_refused_and_leaves_no_folder(
    settings: list[str], error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imtok.Tokenizer(tiny().tokenizer).save(tmp_path / "start")
    monkeypatch.setattr(perceptual, "find_vgg_weights", lambda path: pytest.fail(f"{path} was looked for"))
    config = tiny("loss.perceptual=1", *(setting.replace("START", str(tmp_path / "start")) for setting in settings))
    with pytest.raises(error, match=message):
        train([tmp_path / "no-images"], tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


def test_a_run_of_the_first_format_resumes(tmp_path: Path) -> None:
    """tests/formats/run-v1: VQ with a discriminator, stopped after 28 of 48 images, and the log of its own end."""
    kept = Path(__file__).parent / "formats" / "run-v1"
    shutil.copytree(kept / "run", tmp_path / "run")
    config = RunFolder(tmp_path / "run").saved_config()
    assert config is not None
    report = train([kept / "pictures"], tmp_path / "run", config, resume=True)
    assert report.resumed_from == 28
    expected = [json.loads(line) for line in (kept / "expected.jsonl").read_text().splitlines()]
    for found, row in zip(logged(tmp_path / "run"), expected, strict=True):
        assert found.keys() == row.keys()
        # By what it knows of its codes, since the version that wrote it, it restarts others than that version did.
        kept = {name: value for name, value in row.items() if "codebook" not in name and "perplexity" not in name}
        assert {name: found[name] for name in kept} == pytest.approx(kept, rel=0.1, abs=0.1)


def test_a_run_from_before_rules_goes_on_under_rules_1(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "config.yaml").write_text("images: 10\n")
    saved = folder.saved_config()
    assert saved is not None
    assert saved.data.rules == 1
    assert resolve(TrainConfig(), saved).data.rules == 1
    assert resolve(TrainConfig()).data.rules == 2


# The length of a run


@pytest.mark.parametrize(
    ("images", "message"),
    [(200, "--start-from .*run --config .*config.yaml --images 104 -o .*run-longer"), (48, "choose another -o")],
)
def test_a_finished_run_keeps_its_length(images: int, message: str, pictures: Path, tmp_path: Path) -> None:
    train([pictures], tmp_path / "run", tiny())
    with pytest.raises(ConfigError, match=f"images = 96, the command asks for {images}.*finished.*{message}"):
        train([pictures], tmp_path / "run", tiny(f"images={images}"))


def test_the_command_that_trains_a_finished_run_on_works(pictures: Path, tmp_path: Path) -> None:
    train([pictures], tmp_path / "run", tiny())
    values = read_config_file(tmp_path / "run/config.yaml")
    longer = merge(values, {"start_from": str(tmp_path / "run"), "images": 16})
    report = train([pictures], tmp_path / "longer", load_train_config(longer))
    assert report.images == 16
    with pytest.raises(ConfigError, match="this run is finished and has seed = 0, the command asks for 3"):
        train([pictures], tmp_path / "run", tiny("seed=3"))


def test_an_unfinished_run_keeps_its_length(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train([pictures], tmp_path / "run", tiny(), should_stop=lambda: True)
    with pytest.raises(ConfigError, match="its learning rate follows the length that it began with; drop the setting"):
        train([pictures], tmp_path / "run", tiny("images=200"))
