"""Steps that are not finite are skipped and change nothing; a restored state steps on as if never stopped."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from making import fill
from runs import GAN, VQ, run_until, tiny
from typer.testing import CliRunner

from imtok.cli import app
from imtok.errors import ConfigError, TrainingError
from imtok.training import train
from imtok.training.checkpoint import unpack
from imtok.training.state import TrainState
from imtok.training.step import train_step

CPU = torch.device("cpu")
KINDS = {
    "fsq": [],
    "vq-ema": [*VQ, "quantizer.revival_threshold=0"],
    "vq-gradient": [*VQ, "quantizer.codebook_update=gradient", "quantizer.revival_threshold=0"],
    "adversarial": [*GAN, "adversarial.discriminator.norm=batch"],
    "spectral-norm": [*GAN, "adversarial.discriminator.spectral_norm=true"],
}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return fill(tmp_path / "pictures", (f"{number:02}.png" for number in range(20)))


def images(count: int = 8) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def poison(state: TrainState, part: str, factor: float) -> None:
    """Let the next output of a part be infinite or NaN, without touching a weight."""
    last: Any = state.tokenizer.get_submodule(f"{part}.conv_out")

    def once(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        handle.remove()
        return output * factor

    handle = last.register_forward_hook(once)


def kept(state: TrainState) -> dict[str, torch.Tensor]:
    """All that a checkpoint holds, but for counters and random numbers."""
    tensors = {name: value for name, value in unpack(state.to_bytes({})).items() if isinstance(value, torch.Tensor)}
    return {name: value for name, value in tensors.items() if not name.startswith(("window.", "skipped.", "random."))}


@pytest.mark.parametrize("part", ["decoder", "encoder"])
@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS.keys())
def test_a_non_finite_step_changes_nothing_and_is_counted(settings: list[str], part: str) -> None:
    torch.manual_seed(0)
    state = TrainState(tiny(*settings), CPU)
    for _ in range(6):
        train_step(state, images())
    before = kept(state)
    poison(state, part, math.inf if part == "decoder" else math.nan)
    train_step(state, images())
    after = kept(state)
    assert after.keys() == before.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert (int(state.skipped.all), int(state.skipped.in_a_row)) == (1, 1)
    means = state.metrics.means()
    assert means["skipped_steps"] == 1
    assert math.isfinite(means["loss"])
    train_step(state, images())
    assert (int(state.skipped.all), int(state.skipped.in_a_row)) == (1, 0)
    weight = "tokenizer.encoder.conv_out.weight"
    assert not torch.equal(kept(state)[weight], before[weight])


def test_a_run_that_skips_step_after_step_stops_with_advice(pictures: Path, tmp_path: Path) -> None:
    config = tiny(*GAN, "optimizer.learning_rate=1e30", "images=4000", "validate_every=4000")
    wanted = r"not finite in the last \d+ steps.*lower optimizer.learning_rate"
    with pytest.raises(TrainingError, match=wanted) as caught:
        train([pictures], tmp_path / "run", config)
    assert "lower adversarial.weight (now 0.1)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_line_shows_that_advice_as_one_line(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(tiny("optimizer.learning_rate=1e30", "images=400").to_yaml())
    command = ["train", str(pictures), "-o", str(tmp_path / "run"), "--config", str(tmp_path / "c.yaml")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "lower optimizer.learning_rate" in result.output.replace("\n", " ")
    assert "unforeseen" not in result.output


def test_only_latents_without_a_code_skip_a_step() -> None:
    state = TrainState(tiny(), CPU)

    def fail(*_: Any) -> None:
        raise ValueError("another mistake")

    state.tokenizer.decoder.conv_out.register_forward_hook(fail)
    with pytest.raises(ValueError, match="another mistake"):
        train_step(state, images())


@pytest.mark.parametrize("settings", [[], GAN], ids=["pixels", "adversarial"])
def test_a_restored_state_steps_on_as_the_original(settings: list[str]) -> None:
    torch.manual_seed(0)
    config = tiny(*settings, "channels_last=true")
    batches = torch.randint(0, 256, (8, 8, 3, 16, 16), dtype=torch.uint8)
    first, second = TrainState(config, CPU), TrainState(config, CPU)
    for batch in batches[:4]:
        train_step(first, batch)
    second.restore(first.to_bytes({}))
    for batch in batches[4:]:
        train_step(first, batch)
        train_step(second, batch)
    assert all(torch.equal(a, b) for a, b in zip(first.optimizer.parameters, second.optimizer.parameters, strict=True))


def test_a_stop_within_a_line_keeps_the_bytes_of_metrics(pictures: Path, tmp_path: Path) -> None:
    length = ["images=900", "batch_size=2", "validate_every=900", "checkpoint_every=900"]  # more steps than lines
    config = tiny(*GAN, *length)
    run_until([], pictures, tmp_path / "unbroken", config)
    run_until([2 * 151], pictures, tmp_path / "broken", config)
    assert (tmp_path / "broken" / "metrics.jsonl").read_bytes() == (
        tmp_path / "unbroken" / "metrics.jsonl"
    ).read_bytes()


def test_images_too_small_for_a_perceptual_loss_are_refused() -> None:
    with pytest.raises(ConfigError, match="16 px a side or more, these are 8"):
        tiny("data.crop=8", "loss.perceptual=1")


def test_a_codebook_that_learned_in_another_way_is_refused(pictures: Path, tmp_path: Path) -> None:
    train([pictures], tmp_path / "first", tiny(*VQ))
    config = tiny(*VQ, "quantizer.codebook_update=gradient", f"start_from={tmp_path / 'first'}")
    with pytest.raises(ConfigError, match=r"learned in another way; leave codebook_update of the quantizer"):
        train([pictures], tmp_path / "second", config)
