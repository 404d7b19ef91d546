"""A run that cannot be lost: kills, damaged checkpoints, full disks, steps that are not finite."""

from __future__ import annotations

import dataclasses
import errno
import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from making import fill
from runs import GAN, VQ, FullDisk, logged, run_until, stop_at, tiny

import imtok
import imtok.training.run as run_module
from imtok.errors import ConfigError, DiskError, Interrupted
from imtok.training import train
from imtok.training.checkpoint import pack, unpack
from imtok.training.run import JsonLines, RunFolder
from imtok.training.state import TrainState

CPU = torch.device("cpu")
KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from imtok.config import load_train_config, read_config_file
from imtok.training import train
pictures, run, config, last = sys.argv[1:]
def note(progress):
    if progress.seen >= int(last):
        os.kill(os.getpid(), signal.SIGKILL)
torch.set_num_threads(1)
train([pictures], Path(run), load_train_config(read_config_file(Path(config))), progress=note)
"""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return fill(tmp_path / "pictures", (f"{number:02}.png" for number in range(20)))


@pytest.mark.parametrize("settings", [[*VQ], [*GAN, "adversarial.adaptive=true"]], ids=["vq", "adversarial"])
def test_a_run_killed_at_random_steps_ends_as_unbroken(settings: list[str], pictures: Path, tmp_path: Path) -> None:
    config = tiny(*settings)
    run_until([], pictures, tmp_path / "unbroken", config)
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    drawn = random.Random(str(settings))
    for seen in sorted(drawn.sample(range(8, 96), 2)):
        command = [sys.executable, "-c", KILLED, str(pictures), str(tmp_path / "run"), str(tmp_path / "config.yaml")]
        killed = subprocess.run([*command, str(seen)], check=False, capture_output=True, timeout=120)
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    report = train([pictures], tmp_path / "run", config)
    assert report.resumed_from > 0
    for name in ("metrics.jsonl", "tokenizer/model.safetensors", "best/model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes(), name


def test_a_single_wrong_bit_in_a_checkpoint_is_found(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train([pictures], tmp_path / "run", tiny(), **stop_at(64))
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    data = bytearray(newest.read_bytes())
    data[-5] ^= 1  # in the midst of a tensor, where the file's form says nothing
    newest.write_bytes(data)
    notices: list[str] = []
    report = train([pictures], tmp_path / "run", tiny(), progress=lambda p: notices.append(p.notice or ""))
    assert report.resumed_from == 48
    assert any("damaged, skipped" in notice and "hash" in notice for notice in notices)


def test_a_checkpoint_comes_back_as_it_was_packed() -> None:
    tensors = {"a": torch.randn(3, 2), "b": torch.tensor(7), "c": torch.randn(4).to(torch.bfloat16), "e": torch.ones(0)}
    facts = {"seen": 5, "best": {"val/psnr": 1.5}}
    found = unpack(pack(tensors | facts))
    assert {name: found[name] for name in facts} == facts
    assert found.keys() == tensors.keys() | facts.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    with pytest.raises(KeyError):
        unpack(safetensors.torch.save({"a": torch.ones(1)}, {"imtok": "{}"}))


def test_the_newest_checkpoints_and_the_best_are_kept(pictures: Path, tmp_path: Path) -> None:
    quality = iter([20.0, 30.0, 25.0, 24.0, 23.0, 22.0])
    run = tmp_path / "run"

    def measured(*arguments: Any, **options: Any) -> Any:
        found = measure(*arguments, **options)
        return dataclasses.replace(found, metrics={**found.metrics, "psnr": next(quality)})

    import imtok.training.validation as validation

    measure = validation.measure_together
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "measure_together", measured)
        report = train([pictures], run, tiny("validate_every=16", "checkpoint_every=16", "keep_checkpoints=3"))
    assert report.best["images"] == 32
    assert report.best["val/psnr"] == 30
    assert RunFolder(run).checkpoints_seen() == [80, 64, 48, 32]
    assert report.best_tokenizer == run / "best"
    assert imtok.load(run / "best").fingerprint != imtok.load(run).fingerprint


def test_the_best_outlives_a_restart(pictures: Path, tmp_path: Path) -> None:
    run_until([], pictures, tmp_path / "unbroken", tiny("validate_every=16"))
    report = run_until([50], pictures, tmp_path / "run", tiny("validate_every=16"))
    best = max(
        (row for row in logged(tmp_path / "unbroken") if "val/psnr" in row), key=lambda row: float(row["val/psnr"])
    )
    assert report.best == best
    assert (tmp_path / "run/best/model.safetensors").read_bytes() == (
        tmp_path / "unbroken/best/model.safetensors"
    ).read_bytes()


def test_a_full_disk_is_reported_once_and_stops_nothing(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_until([], pictures, tmp_path / "unbroken", tiny())
    disk, notices = FullDisk(monkeypatch, "checkpoints", "best"), []

    def note(progress: Any) -> None:
        disk.full = 20 <= progress.seen < 80
        if progress.notice:
            notices.append(progress.notice)

    train([pictures], tmp_path / "run", tiny(), progress=note)
    assert disk.refused >= 3
    reported = [notice for notice in notices if "could not be written" in notice]
    assert len(reported) == 2  # a checkpoint, and the best tokenizer: each once
    assert all("No space left" in notice and "training continues" in notice for notice in reported)
    for name in ("metrics.jsonl", "tokenizer/model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes(), name


def test_a_stop_on_a_full_disk_keeps_the_last_checkpoint(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_until([], pictures, tmp_path / "unbroken", tiny())
    disk = FullDisk(monkeypatch, "checkpoints")
    disk.full = False
    stop = stop_at(64)

    def note(progress: Any) -> None:
        disk.full = progress.seen > 50
        stop["progress"](progress)

    with pytest.raises(DiskError, match="make room") as caught:
        train([pictures], tmp_path / "run", tiny(), progress=note, should_stop=stop["should_stop"])
    assert caught.value.exit_code == 74
    disk.full = False
    report = train([pictures], tmp_path / "run", tiny())
    assert report.resumed_from == 48
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (tmp_path / "unbroken" / "metrics.jsonl").read_bytes()


def test_older_checkpoints_make_room_for_a_newer_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, state = RunFolder(tmp_path), TrainState(tiny(), CPU)
    for state.seen in (8, 16):
        folder.save_checkpoint(state, {}, kept=2, best=None)
    write = run_module.write_atomically

    def room_for_two(path: Path, data: bytes) -> None:
        if len(folder.checkpoints_seen()) >= 2:
            raise DiskError(path, "No space left on device", errno.ENOSPC)
        write(path, data)

    monkeypatch.setattr(run_module, "write_atomically", room_for_two)
    state.seen = 24
    folder.save_checkpoint(state, {}, kept=2, best=None)
    assert folder.checkpoints_seen() == [24, 16]


def test_lines_refused_by_a_full_disk_are_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = JsonLines(tmp_path / "metrics.jsonl")
    lines.rewind(0)
    lines.add({"images": 8})

    def half(self: Path, mode: str) -> Any:
        opened = real(self, mode)
        opened.write(b'{"ima')
        opened.close()
        raise OSError(errno.ENOSPC, "No space left on device")

    real = Path.open
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", half)
        for images in (16, 24):
            with pytest.raises(DiskError):
                lines.add({"images": images})
    lines.add({"images": 32})
    assert [json.loads(line)["images"] for line in lines.path.read_text().splitlines()] == [8, 16, 24, 32]


def test_the_report_has_speed_wait_and_skips(pictures: Path, tmp_path: Path) -> None:
    report = train([pictures], tmp_path / "run", tiny())
    assert report.images_per_second > 0
    assert 0 <= report.data_wait <= 1
    assert report.skipped_steps == 0


@pytest.mark.parametrize(
    "settings", [[], VQ, [*VQ, "quantizer.codebook_update=gradient"]], ids=["fsq", "vq", "gradient"]
)
def test_fine_tuning_with_frozen_codes_keeps_every_token_valid(
    settings: list[str], pictures: Path, tmp_path: Path
) -> None:
    train([pictures], tmp_path / "first", tiny(*settings))
    first = imtok.load(tmp_path / "first")
    tuned = tiny(*settings, f"start_from={tmp_path / 'first'}", "freeze_codes=true", "optimizer.learning_rate=0.01")
    run_until([40], pictures, tmp_path / "second", tuned)
    second = imtok.load(tmp_path / "second")
    assert second.fingerprint == first.fingerprint
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    codes = first.encode(images)
    assert torch.equal(second.encode(images), codes)
    assert not torch.equal(second.decode(codes), first.decode(codes))


def test_fine_tuning_starts_where_the_tokenizer_was(pictures: Path, tmp_path: Path) -> None:
    train([pictures], tmp_path / "first", tiny())
    state = TrainState(tiny(f"start_from={tmp_path / 'first'}"), CPU)
    first = imtok.load(tmp_path / "first").state_dict()
    assert all(torch.equal(value, first[name]) for name, value in state.tokenizer.state_dict().items())
    assert all(parameter.requires_grad for parameter in state.tokenizer.parameters())


def test_a_fine_tuned_run_resumes_without_its_initial_tokenizer(pictures: Path, tmp_path: Path) -> None:
    train([pictures], tmp_path / "first", tiny())
    config = tiny(f"start_from={tmp_path / 'first'}", "freeze_codes=true")
    with pytest.raises(Interrupted):
        train([pictures], tmp_path / "second", config, **stop_at(40))
    (tmp_path / "first").rename(tmp_path / "moved")
    report = train([pictures], tmp_path / "second", config)
    assert report.resumed_from == 40


def test_an_initial_tokenizer_of_another_shape_is_refused(pictures: Path, tmp_path: Path) -> None:
    train([pictures], tmp_path / "first", tiny())
    config = tiny(f"start_from={tmp_path / 'first'}", "quantizer.levels=[7,5,5]")
    with pytest.raises(ConfigError, match=r"first: its quantizer is not that of this run .*7, 5, 5"):
        train([pictures], tmp_path / "second", config)
    assert not (tmp_path / "second" / "config.yaml").exists()


def test_frozen_codes_need_a_tokenizer_to_start_from() -> None:
    with pytest.raises(ConfigError, match="needs a trained tokenizer: name it by start_from"):
        tiny("freeze_codes=true")


def test_the_initial_tokenizer_is_measured_and_may_be_best(pictures: Path, tmp_path: Path) -> None:
    train([pictures], tmp_path / "first", tiny("images=800", "optimizer.learning_rate=0.01"))
    ruinous = tiny(f"start_from={tmp_path / 'first'}", "optimizer.learning_rate=3", "ema_decay=0")
    report = train([pictures], tmp_path / "second", ruinous)
    assert logged(tmp_path / "second")[0]["images"] == 0
    assert report.best["images"] == 0
    assert imtok.load(tmp_path / "second" / "best").fingerprint == imtok.load(tmp_path / "first").fingerprint
