"""Every kind of quantizer goes through every command, and every preset trains."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from making import QUANTIZERS, fill, tiny
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

import imtok.tokens
from imtok.analysis import codebook_usage
from imtok.cli import app
from imtok.config import TrainConfig, load_train_config, merge, preset, preset_names
from imtok.tokenizer import to_uint8
from imtok.training.state import TrainState
from imtok.training.step import train_step

IMAGES = 3


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("kinds") / "pictures", (f"{number}.png" for number in range(IMAGES)))


@pytest.mark.parametrize("name", QUANTIZERS)
def test_tokens_are_made_checked_decoded_and_counted_by_the_commands(name: str, pictures: Path, tmp_path: Path) -> None:
    tokenizer = tiny(quantizer=QUANTIZERS[name]).eval()
    tokenizer.save(tmp_path / "tokenizer")
    tokens = tmp_path / "tokens"
    call("encode", pictures, "-t", tmp_path / "tokenizer", "-o", tokens, "--batch-size", 2)
    assert f"sound, {IMAGES} images" in call("verify", tokens)

    held = imtok.tokens.open_tokens(tokens)
    codes = torch.stack([codes for _, codes in held])
    each = tokenizer.num_codebooks
    assert codes.shape == (IMAGES, 4, 4) if each == 1 else codes.shape == (IMAGES, 4, 4, each)
    assert held.num_codebooks == each
    assert held.info.index_order == tokenizer.config.quantizer.index_order

    call("decode", tokens, "-o", tmp_path / "back", "--batch-size", 1)
    expected = to_uint8(tokenizer.decode(codes[:1]))[0].permute(1, 2, 0)
    with Image.open(tmp_path / "back" / "0.png.png") as picture:
        decoded = torch.from_numpy(np.array(picture))
    assert (decoded.int() - expected.int()).abs().max() <= 1

    figures = json.loads(call("stats", tokens, "--json"))
    check_counts(figures, codes.reshape(-1, each), tokenizer.num_codes)
    measured = json.loads(call("eval", tmp_path / "tokenizer", pictures, "--json"))
    assert measured["bits_per_image"] == pytest.approx(16 * each * math.log2(tokenizer.num_codes))
    assert len(measured["codebooks"]) == each
    facts = json.loads(call("info", tokens, "--json"))
    assert (facts["codebook_size"], facts["num_codebooks"]) == (tokenizer.num_codes, each)
    assert json.loads(call("info", tmp_path / "tokenizer", "--json"))["fingerprint"] == tokenizer.fingerprint


def check_counts(figures: dict[str, Any], codes: Tensor, codebook_size: int) -> None:
    """Against codes (N, Q): every code of every codebook counts, and each codebook apart."""
    assert (figures["images"], figures["tokens"]) == (IMAGES, codes.numel())
    assert figures["codebook_size"] == codebook_size
    assert figures["used"] == len(set(codes.flatten().tolist())) == codebook_size - figures["dead"]
    assert [each["used"] for each in figures["codebooks"]] == [len(set(column.tolist())) for column in codes.T]


def test_the_index_order_of_digits_and_signs_is_recorded() -> None:
    orders = {name: record.index_order for name, record in QUANTIZERS.items()}
    assert {name for name, order in orders.items() if order == "first dimension fastest"} == {"fsq", "residual-fsq"}
    signs = {"lfq", "bsq", "product-shared", "product-of-residuals"}
    assert {name for name, order in orders.items() if order == "first dimension most significant"} == signs
    lfq = tiny(quantizer=QUANTIZERS["lfq"]).quantizer
    assert lfq.lookup(torch.tensor([[[32]]])).flatten().tolist() == [1, -1, -1, -1, -1, -1]
    fsq = tiny(quantizer=QUANTIZERS["fsq"]).quantizer
    first, *others = (fsq.lookup(torch.tensor([[[1]]])) - fsq.lookup(torch.tensor([[[0]]]))).flatten().tolist()
    assert first > 0
    assert others == [0, 0]


def test_a_codebook_that_others_hide_is_seen(pictures: Path, tmp_path: Path) -> None:
    tokenizer = tiny(quantizer=QUANTIZERS["product"])
    with torch.no_grad():
        tokenizer.quantizer.get_parameter("parts.1.codebook")[1:] = 1e6  # so that code 0 takes every latent
    tokenizer.save(tmp_path / "tokenizer")
    call("encode", pictures, "-t", tmp_path / "tokenizer", "-o", tmp_path / "tokens")
    alive, collapsed = codebook_usage(imtok.tokens.open_tokens(tmp_path / "tokens")).codebooks
    assert (alive.used > 1, collapsed.used, collapsed.tokens) == (True, 1, IMAGES * 16)


def small(name: str) -> TrainConfig:
    """A preset at a size that trains in a moment."""
    over = {
        "tokenizer": {"size": 32, "network": {"fold": 4, "channels": [8, 8], "blocks": 1}},
        "data": {"crop": 32},
        "loss": {"perceptual": 0},  # its weights are a download
        "adversarial": {"start": 0, "warmup": 0, "ramp": 0, "discriminator": {"channels": 4, "layers": 1}},
        "images": 8,
        "batch_size": 2,
        "accumulate": 1,
        "precision": "fp32",
        "device": "cpu",
        "threads": 1,
    }
    return load_train_config(merge(preset(name), over), name)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_trains(name: str) -> None:
    torch.manual_seed(0)
    state = TrainState(small(name), torch.device("cpu"))
    before = state.tokenizer.encoder.conv_out.weight.clone()
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        train_step(state, torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=generator))
    assert not torch.equal(state.tokenizer.encoder.conv_out.weight, before)
    means = state.metrics.means()
    assert math.isfinite(means["loss"])
    assert means["skipped_steps"] == 0
    assert ("adversarial/weight" in means) is (state.config.adversarial.weight > 0)
    downsample, each = state.tokenizer.downsample, state.tokenizer.num_codebooks
    assert state.metrics.counts.sum(dim=1).tolist() == [2 * 2 * (32 // downsample) ** 2] * each


def test_every_kind_has_a_preset() -> None:
    kinds = {load_train_config(preset(name)).tokenizer.quantizer.kind for name in preset_names()}
    assert kinds == {"fsq", "vq", "lfq", "bsq", "gumbel", "residual", "product"}
