"""Open-MAGVIT2 in its published layout: the golden, and the same on a checkpoint made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from imported import check_fine_tuning, check_token_folder
from published import check_golden, drawn, imported, parameters
from torch import Tensor

from imtok.interop import Checkpoint
from imtok.interop.families.open_magvit2 import OpenMAGVIT2
from imtok.tokenizer import Tokenizer

SETTINGS: dict[str, Any] = {
    "model": {"class_path": "src.Open_MAGVIT2.models.lfqgan.VQModel", "init_args": {"ddconfig": {"resolution": 128}}},
    "data": {"init_args": {"validation": {"params": {"config": {"size": 32}}}}},
}


def shapes(width: int = 32, multipliers: tuple[int, ...] = (1, 2), blocks: int = 1, dim: int = 6) -> dict[str, Tensor]:
    """The published names and shapes, stated without our network."""
    found: dict[str, tuple[int, ...]] = {"encoder.conv_in.weight": (width, 3, 3, 3)}

    def block(name: str, before: int, after: int) -> int:
        for part, size in (("norm1", before), ("norm2", after)):
            found[f"{name}.{part}.weight"] = found[f"{name}.{part}.bias"] = (size,)
        found[f"{name}.conv1.weight"], found[f"{name}.conv2.weight"] = (after, before, 3, 3), (after, after, 3, 3)
        if before != after:
            found[f"{name}.nin_shortcut.weight"] = (after, before, 1, 1)
        return after

    def layer(name: str, *size: int) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = size, size[:1]

    channels, widths = width, [width * multiplier for multiplier in multipliers]
    for stage, out in enumerate(widths):
        for number in range(blocks):
            channels = block(f"encoder.down.{stage}.block.{number}", channels, out)
        if stage < len(widths) - 1:
            layer(f"encoder.down.{stage}.downsample", out, out, 3, 3)
    for part in ("encoder", "decoder"):
        for number in range(blocks):
            block(f"{part}.mid_block.{number}", channels, channels)
    layer("decoder.conv_in", channels, dim, 3, 3)
    for stage in reversed(range(len(widths))):
        layer(f"decoder.adaptive.{stage}.gamma", channels, dim)
        layer(f"decoder.adaptive.{stage}.beta", channels, dim)
        for number in range(blocks):
            channels = block(f"decoder.up.{stage}.block.{number}", channels, widths[stage])
        if stage:
            layer(f"decoder.up.{stage}.upsample.conv1", 4 * channels, channels, 3, 3)
    for part, before, after, kernel in (("encoder", widths[-1], dim, 1), ("decoder", widths[0], 3, 3)):
        found[f"{part}.norm_out.weight"] = found[f"{part}.norm_out.bias"] = (before,)
        layer(f"{part}.conv_out", after, before, kernel, kernel)
    return {name: torch.empty(size, device="meta") for name, size in found.items()}


def saved(folder: Path) -> Path:
    """A Lightning checkpoint with a moving average, and its configuration beside it."""
    weights, averages = drawn(shapes(), seed=0), drawn(shapes(), seed=1)
    shadow = {f"model_ema.{name.replace('.', '')}": value for name, value in averages.items()}
    shadow |= {"model_ema.decay": torch.tensor(0.999), "model_ema.num_updates": torch.tensor(7)}
    torch.save({"epoch": 1, "state_dict": {**weights, **shadow, "loss.logvar": torch.zeros(())}}, folder / "f2.ckpt")
    (folder / "config.yaml").write_text(yaml.safe_dump(SETTINGS))
    return folder / "f2.ckpt"


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return imported(saved(tmp_path), tmp_path / "imported")


@pytest.mark.parametrize(("ema", "lead"), [(True, "ema"), (False, "out")])
def test_the_golden_of_the_published_code_is_met(shared: Path, tmp_path: Path, ema: bool, lead: str) -> None:
    folder = shared / "goldens/checkpoints/openmagvit2_lfq"
    check_golden(imported(folder / "imagenet_256_L.ckpt", tmp_path / "imported", ema=ema), folder, lead=lead)


def test_the_moving_average_takes_the_place_of_the_weights(tmp_path: Path) -> None:
    path = saved(tmp_path)
    average, trained = imported(path, tmp_path / "a"), imported(path, tmp_path / "b", ema=False)
    for tokenizer, seed in ((trained, 0), (average, 1)):
        weights = drawn(shapes(), seed)
        assert torch.equal(tokenizer.encoder.trunk.conv_in.weight, weights["encoder.conv_in.weight"])
        assert torch.equal(
            tokenizer.decoder.trunk.up[1].resample.conv.bias, weights["decoder.up.1.upsample.conv1.bias"]
        )
    assert average.fingerprint != trained.fingerprint
    assert average.config.size == 32


def test_each_bit_of_a_code_is_a_channels_sign(tokenizer: Tokenizer) -> None:
    images = torch.rand(2, 3, 16, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1
    bits = tokenizer.encoder(images) > 0  # (B, 6, 8, 6)
    codes = (bits * 2 ** torch.arange(6).view(1, -1, 1, 1)).sum(dim=1)
    assert torch.equal(tokenizer.encode(images), codes)
    assert torch.equal(tokenizer.quantizer.lookup(codes), bits.float() * 2 - 1)


def test_the_encoder_is_the_published_arithmetic(tokenizer: Tokenizer) -> None:
    weights = drawn(shapes(), seed=1)
    images = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def block(x: Tensor, name: str) -> Tensor:
        hidden = x
        for number in (1, 2):
            norm, convolution = f"{name}.norm{number}", f"{name}.conv{number}.weight"
            hidden = F.group_norm(hidden, 32, weights[f"{norm}.weight"], weights[f"{norm}.bias"], 1e-6)
            hidden = F.conv2d(F.silu(hidden), weights[convolution], padding=1)
        shortcut = weights.get(f"{name}.nin_shortcut.weight")
        return hidden + (x if shortcut is None else F.conv2d(x, shortcut))

    def pair(name: str) -> tuple[Tensor, Tensor]:
        return weights[f"{name}.weight"], weights[f"{name}.bias"]

    hidden = block(F.conv2d(images, weights["encoder.conv_in.weight"], padding=1), "encoder.down.0.block.0")
    hidden = F.conv2d(hidden, *pair("encoder.down.0.downsample"), stride=2, padding=1)
    hidden = block(block(hidden, "encoder.down.1.block.0"), "encoder.mid_block.0")
    hidden = F.silu(F.group_norm(hidden, 32, *pair("encoder.norm_out"), 1e-6))
    expected = F.conv2d(hidden, *pair("encoder.conv_out"))
    torch.testing.assert_close(tokenizer.encoder(images), expected, atol=1e-4, rtol=1e-4)


def test_pictures_become_tokens_and_come_back(tokenizer: Tokenizer, tmp_path: Path) -> None:
    check_token_folder(tokenizer, tmp_path, size=16)


def test_fine_tuning_the_decoder_keeps_every_token(tokenizer: Tokenizer, tmp_path: Path) -> None:
    check_fine_tuning(tokenizer, tmp_path, size=16)


@pytest.mark.parametrize(
    ("multipliers", "counts"),
    [((1, 1, 2, 2, 4), [49_751_442, 65_376_387, 0]), ((1, 2, 2, 4), [48_422_162, 63_599_491, 0])],
)
def test_published_networks_have_their_number_of_parameters(multipliers: tuple[int, ...], counts: list[int]) -> None:
    """Of f16 and of f8, both with 18 bits: counted of SEED-Voken's own modules."""
    published = shapes(width=128, multipliers=multipliers, blocks=4, dim=18)
    conversion = OpenMAGVIT2().convert(Checkpoint(Path("x.ckpt"), published))
    assert parameters(conversion.config) == counts
    assert conversion.config.quantizer.num_codes == 262_144
