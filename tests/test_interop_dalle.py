"""DALL-E's discrete VAE in its published layout: the golden, the same on data made here, and what is refused."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from imported import check_fine_tuning, check_token_folder, tokenizer_of
from safetensors import safe_open
from torch import Tensor

from imtok.errors import TokenizerError
from imtok.interop.checkpoint import Checkpoint
from imtok.interop.families.dalle import DALLE
from imtok.tokenizer import Tokenizer


def layout(width: int, blocks: int, num_codes: int, code_dim: int) -> dict[str, tuple[int, ...]]:
    """The published names and shapes of both modules."""
    shapes: dict[str, tuple[int, ...]] = {"encoder.blocks.input.w": (width, 3, 7, 7)}
    kernels = {"encoder": (3, 3, 3, 1), "decoder": (1, 3, 3, 3)}
    widths = [width * multiplier for multiplier in (1, 2, 4, 8)]
    for part, stages, channels in (("encoder", widths, width), ("decoder", widths[::-1], code_dim)):
        for stage, out in enumerate(stages, start=1):
            for block in range(1, blocks + 1):
                name = f"{part}.blocks.group_{stage}.block_{block}"
                sizes = [channels, out // 4, out // 4, out // 4, out]
                if channels != out:
                    shapes[f"{name}.id_path.w"] = (out, channels, 1, 1)
                for number, kernel in enumerate(kernels[part]):
                    shapes[f"{name}.res_path.conv_{number + 1}.w"] = (sizes[number + 1], sizes[number], kernel, kernel)
                channels = out
    shapes["encoder.blocks.output.conv.w"] = (num_codes, widths[-1], 1, 1)
    shapes["decoder.blocks.input.w"] = (code_dim, num_codes, 1, 1)
    shapes["decoder.blocks.output.conv.w"] = (6, width, 1, 1)
    return shapes | {name[:-1] + "b": shape[:1] for name, shape in shapes.items()}


def by_recipe(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """Tensors by the golden's recipe: numbers of a generator seeded by the name within its module."""
    tensors = {}
    for name, shape in shapes.items():
        part, _, inner = name.partition(".")
        own = (zlib.crc32(inner.encode()) + seed + (part == "decoder")) % 2**32
        scale = math.sqrt(2 / math.prod(shape[1:])) if len(shape) > 1 else 0.1
        values = np.random.RandomState(own).standard_normal(shape) * scale
        tensors[name] = torch.from_numpy(values.astype(np.float32))
    return tensors


def convolved(tensors: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    weight = tensors[f"{name}.w"]
    return F.conv2d(x, weight, tensors[f"{name}.b"], padding=weight.shape[2] // 2)


def through_groups(tensors: dict[str, Tensor], part: str, x: Tensor, blocks: int) -> Tensor:
    """The four groups of a published module, as its own code computes them."""
    for stage in range(1, 5):
        for block in range(1, blocks + 1):
            name = f"{part}.blocks.group_{stage}.block_{block}"
            hidden = x
            for number in range(1, 5):
                hidden = convolved(tensors, f"{name}.res_path.conv_{number}", hidden.relu())
            x = convolved(tensors, f"{name}.id_path", x) if f"{name}.id_path.w" in tensors else x
            x = x + hidden / (4 * blocks) ** 2
        if stage < 4:
            x = F.max_pool2d(x, 2) if part == "encoder" else x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return x.relu()


def published_logits(tensors: dict[str, Tensor], images: Tensor, blocks: int) -> Tensor:
    """Images in [0, 1] to logits; the largest is the code."""
    x = convolved(tensors, "encoder.blocks.input", images * 0.8 + 0.1)
    return convolved(tensors, "encoder.blocks.output.conv", through_groups(tensors, "encoder", x, blocks))


def published_images(tensors: dict[str, Tensor], codes: Tensor, blocks: int) -> Tensor:
    """Codes to images in [0, 1]."""
    one_hot = F.one_hot(codes, tensors["decoder.blocks.input.w"].shape[1]).movedim(-1, 1).float()
    x = through_groups(tensors, "decoder", convolved(tensors, "decoder.blocks.input", one_hot), blocks)
    locations = convolved(tensors, "decoder.blocks.output.conv", x)[:, :3]
    return ((locations.sigmoid() - 0.1) / 0.8).clamp(0, 1)


def coloured() -> Tensor:
    """Images (2, 3, 32, 32) in [0, 1] with a colour for each code."""
    colours = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).round()
    return colours.repeat_interleave(8, 2).repeat_interleave(8, 3)


@pytest.fixture(scope="module")
def small() -> dict[str, Tensor]:
    tensors = by_recipe(layout(width=8, blocks=2, num_codes=40, code_dim=6), seed=1)
    logits = published_logits(tensors, coloured(), blocks=2)
    tensors["encoder.blocks.output.conv.b"] -= logits.mean(dim=(0, 2, 3))  # so that no code takes all
    return tensors


def imported(tensors: dict[str, Tensor]) -> Tokenizer:
    checkpoint = Checkpoint(Path("dalle"), tensors)
    assert DALLE().recognises(checkpoint)
    return tokenizer_of(DALLE().convert(checkpoint), tensors)


def test_codes_and_images_are_those_of_the_published_arithmetic(small: dict[str, Tensor]) -> None:
    tokenizer = imported(small)
    codes = published_logits(small, coloured(), blocks=2).argmax(dim=1)
    assert len(codes.unique()) > 8
    assert torch.equal(tokenizer.encode(coloured() * 2 - 1), codes)
    decoded = (tokenizer.decode(codes) + 1) / 2
    torch.testing.assert_close(decoded, published_images(small, codes, blocks=2), atol=1e-5, rtol=0)


def test_every_published_tensor_but_four_has_a_place(small: dict[str, Tensor]) -> None:
    conversion = DALLE().convert(Checkpoint(Path("dalle"), small))
    rest = set(small) - set(conversion.published.values())
    assert rest == {
        f"{part}.{kind}" for part in ("encoder.blocks.output.conv", "decoder.blocks.input") for kind in "wb"
    }
    assert conversion.skipped == ()


def test_sizes_are_those_of_the_tensors(small: dict[str, Tensor]) -> None:
    config = DALLE().convert(Checkpoint(Path("dalle"), small)).config
    assert config.network.model_dump() == {"kind": "dvae", "width": 8, "blocks": 2, "projection": False}
    assert (config.quantizer.dim, config.quantizer.num_codes) == (64, 40)
    assert config.decoder_output == "logit_laplace"


@pytest.mark.parametrize("missing", ["encoder", "decoder"])
def test_one_module_alone_names_the_other(small: dict[str, Tensor], missing: str) -> None:
    half = {name: value for name, value in small.items() if not name.startswith(missing)}
    checkpoint = Checkpoint(Path("folder"), half)
    assert DALLE().recognises(checkpoint)
    with pytest.raises(TokenizerError, match=f"folder: holds no {missing} .*give a folder with DALL-E's two modules"):
        DALLE().convert(checkpoint)


def test_training_the_decoder_changes_no_token(small: dict[str, Tensor], tmp_path: Path) -> None:
    check_fine_tuning(imported(small), tmp_path, 16, loss={"logit_laplace": 1.0})


def test_tokens_go_to_a_folder_and_back(small: dict[str, Tensor], tmp_path: Path) -> None:
    check_token_folder(imported(small), tmp_path, 32)


def test_the_golden_of_the_published_code_is_met(shared: Path) -> None:
    with safe_open(shared / "goldens/checkpoints/dalle_dvae_recipe/io.safetensors", "pt") as file:
        config = json.loads(file.metadata()["config"])
        golden = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
    shapes = layout(config["n_hid"], config["n_blk_per_group"], config["vocab_size"], config["n_init"])
    tensors = by_recipe(shapes, config["SEED"])
    for part, name in (("encoder", "encoder.blocks.input.w"), ("decoder", "decoder.blocks.output.conv.w")):
        torch.testing.assert_close(tensors[name].double().sum(), golden[f"check.{part}"], rtol=1e-6, atol=0)
    tokenizer = imported(tensors)
    latents = tokenizer.encoder(golden["in.images"] * 2 - 1)
    logits = tokenizer.quantizer.projection(latents.movedim(1, -1))  # type: ignore[operator]
    torch.testing.assert_close(logits.mean(dim=(1, 2)), golden["out.logits_mean"], atol=1e-4, rtol=1e-3)
    codes = tokenizer.encode(golden["in.images"] * 2 - 1)
    assert torch.equal(codes, golden["out.indices"])
    raw = tokenizer.decoder(tokenizer.quantizer.lookup(codes))
    torch.testing.assert_close(raw, golden["out.decoder_stats"], atol=5e-4, rtol=2e-3)
    torch.testing.assert_close((tokenizer.decode(codes) + 1) / 2, golden["out.recon"], atol=5e-4, rtol=2e-3)
