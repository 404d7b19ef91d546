"""Training by the terms of the list: logit-Laplace, terms from outside, and what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from making import fill
from runs import run_until, tiny
from torch import Tensor

import imtok
from imtok.config import DecoderOutput
from imtok.errors import ConfigError, Interrupted, TrainingError
from imtok.losses import LossTerm
from imtok.training import train
from imtok.training.state import TrainState
from imtok.training.step import train_step


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return fill(tmp_path / "pictures", (f"{number}.png" for number in range(12)))


def test_logit_laplace_trains_resumes_bit_for_bit_and_decodes(pictures: Path, tmp_path: Path) -> None:
    config = tiny("loss.logit_laplace=1", "images=64")
    run_until([], pictures, tmp_path / "unbroken", config)
    run_until([24], pictures, tmp_path / "broken", config)
    for name in ("metrics.jsonl", "tokenizer/model.safetensors", "tokenizer/config.json"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes(), name
    rows = [json.loads(line) for line in (tmp_path / "unbroken" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss/logit_laplace"] for row in rows if "loss" in row]
    assert losses[-1] < losses[0]
    assert not any("loss/l2" in row for row in rows)
    tokenizer = imtok.load(tmp_path / "unbroken")
    images = torch.zeros(1, 3, 16, 16)
    assert tokenizer.decode(tokenizer.encode(images)).abs().mean() < 0.9


def test_a_run_of_logit_laplace_does_not_start_from_pixels(pictures: Path, tmp_path: Path) -> None:
    imtok.Tokenizer(tiny().tokenizer).save(tmp_path / "pixels")
    config = tiny("loss.logit_laplace=1", f"start_from={tmp_path / 'pixels'}")
    with pytest.raises(ConfigError, match="its decoder_output is not that of this run"):
        train([pictures], tmp_path / "run", config)


class Late(LossTerm):
    name: ClassVar[str] = "late"

    def __call__(self, output: Tensor, images: Tensor) -> Tensor:
        return (output - images).abs().amax()

    def active(self, progress: float) -> bool:
        return progress > 0.5


def test_a_term_is_computed_only_while_it_is_active() -> None:
    state = TrainState(tiny("images=16"), torch.device("cpu"), extra_losses=[Late(1.0)])
    logged = []
    for _ in range(2):
        state.metrics.clear()
        train_step(state, torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8))
        logged.append("loss/late" in state.metrics.means())
    assert logged == [False, True]


class SixChannels(Late):
    decoder_output: ClassVar[DecoderOutput] = "logit_laplace"


def test_a_term_for_another_decoder_is_refused() -> None:
    with pytest.raises(ConfigError, match="loss late: needs a decoder of logit_laplace, this run's gives pixels"):
        TrainState(tiny(), torch.device("cpu"), extra_losses=[SixChannels(1.0)])


class Second(Late):
    name: ClassVar[str] = "l2"


def test_two_losses_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="several losses are called l2"):
        TrainState(tiny(), torch.device("cpu"), extra_losses=[Second(1.0)])


def test_a_run_resumes_with_the_extra_losses_it_began_with(pictures: Path, tmp_path: Path) -> None:
    config, stops = tiny("images=32", "checkpoint_every=8"), iter([False, False, True])
    with pytest.raises(Interrupted):
        train([pictures], tmp_path / "run", config, extra_losses=[Late(1.0)], should_stop=lambda: next(stops))
    with pytest.raises(TrainingError, match="the extra losses are not those the run began with"):
        train([pictures], tmp_path / "run", config)
    assert train([pictures], tmp_path / "run", config, extra_losses=[Late(1.0)]).images == 32
