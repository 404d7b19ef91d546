"""DALL-E's discrete VAE in its published layout: the golden, the same on data made here, and what is refused."""

from __future__ import annotations

import json
import math
import sys
import types
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from imported import check_fine_tuning, check_token_folder
from published import imported
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from imtok.errors import TokenizerError
from imtok.interop import import_checkpoint
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


def of_part(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    """The tensors of one of the two modules, by its own names."""
    return {name.partition(".")[2]: value for name, value in tensors.items() if name.startswith(f"{part}.")}


def write(folder: Path, tensors: dict[str, Tensor]) -> Path:
    """Write both modules as files of safetensors."""
    folder.mkdir()
    for part in ("encoder", "decoder"):
        save_file(of_part(tensors, part), folder / f"{part}.safetensors")
    return folder


def module(tensors: dict[str, Tensor], kind: type[nn.Module]) -> nn.Module:
    """A module with these tensors, modules inside it as in the published pickles."""
    made, inner = kind(), dict[str, dict[str, Tensor]]()
    for name, value in tensors.items():
        first, _, rest = name.partition(".")
        if rest:
            inner.setdefault(first, {})[rest] = value
        else:
            made.register_parameter(first, nn.Parameter(value))
    for name, values in inner.items():
        made.add_module(name, module(values, nn.Sequential))
    return made


@pytest.fixture
def tokenizer(small: dict[str, Tensor], tmp_path: Path) -> Tokenizer:
    return imported(write(tmp_path / "dalle", small), tmp_path / "imported")


def test_codes_and_images_are_those_of_the_published_arithmetic(tokenizer: Tokenizer, small: dict[str, Tensor]) -> None:
    codes = published_logits(small, coloured(), blocks=2).argmax(dim=1)
    assert len(codes.unique()) > 8
    assert torch.equal(tokenizer.encode(coloured() * 2 - 1), codes)
    decoded = (tokenizer.decode(codes) + 1) / 2
    torch.testing.assert_close(decoded, published_images(small, codes, blocks=2), atol=1e-5, rtol=0)


def test_every_published_tensor_is_used(small: dict[str, Tensor], tmp_path: Path) -> None:
    report = import_checkpoint(write(tmp_path / "dalle", small), tmp_path / "imported")
    assert report.left_out == {}


def test_sizes_are_those_of_the_tensors(tokenizer: Tokenizer) -> None:
    config = tokenizer.config
    assert config.network.model_dump() == {"kind": "dvae", "width": 8, "blocks": 2, "projection": False}
    assert (config.quantizer.dim, config.quantizer.num_codes) == (64, 40)
    assert config.decoder_output == "logit_laplace"


def test_one_file_may_hold_both_modules(tokenizer: Tokenizer, small: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"state_dict": small}, tmp_path / "both.pt")
    assert imported(tmp_path / "both.pt", tmp_path / "other").fingerprint == tokenizer.fingerprint


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_of_whole_modules_are_read_as_tensors(
    zipped: bool, tokenizer: Tokenizer, small: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "pickles"
    folder.mkdir()
    for part in ("encoder", "decoder"):
        home = types.ModuleType(f"dall_e.{part}")
        kind = type(part.title(), (nn.Module,), {"__module__": home.__name__})
        setattr(home, kind.__name__, kind)
        with monkeypatch.context() as while_it_is_written:
            for name in ("dall_e", home.__name__):
                while_it_is_written.setitem(sys.modules, name, home)
            torch.save(
                module(of_part(small, part), kind), folder / f"{part}.pkl", _use_new_zipfile_serialization=zipped
            )
    found = imported(folder, tmp_path / "other")
    assert found.fingerprint == tokenizer.fingerprint
    torch.testing.assert_close(found.state_dict(), tokenizer.state_dict(), atol=0, rtol=0)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_one_module_alone_names_what_to_give(part: str, small: dict[str, Tensor], tmp_path: Path) -> None:
    half = {name: value for name, value in small.items() if name.startswith(part)}
    for tensors in (half, of_part(half, part)):
        path = tmp_path / f"{part}.safetensors"
        save_file(tensors, path)
        with pytest.raises(TokenizerError, match=r"holds no (en|de)coder .*give a folder with DALL-E's two modules"):
            import_checkpoint(path, tmp_path / "imported")
        assert not (tmp_path / "imported").exists()


def test_training_the_decoder_changes_no_token(tokenizer: Tokenizer, tmp_path: Path) -> None:
    check_fine_tuning(tokenizer, tmp_path, 16, loss={"logit_laplace": 1.0})


def test_tokens_go_to_a_folder_and_back(tokenizer: Tokenizer, tmp_path: Path) -> None:
    check_token_folder(tokenizer, tmp_path, 32)


def test_the_golden_of_the_published_code_is_met(shared: Path, tmp_path: Path) -> None:
    with safe_open(shared / "goldens/checkpoints/dalle_dvae_recipe/io.safetensors", "pt") as file:
        config = json.loads(file.metadata()["config"])
        golden = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
    shapes = layout(config["n_hid"], config["n_blk_per_group"], config["vocab_size"], config["n_init"])
    tensors = by_recipe(shapes, config["SEED"])
    for part, name in (("encoder", "encoder.blocks.input.w"), ("decoder", "decoder.blocks.output.conv.w")):
        torch.testing.assert_close(tensors[name].double().sum(), golden[f"check.{part}"], rtol=1e-6, atol=0)
    tokenizer = imported(write(tmp_path / "dalle", tensors), tmp_path / "imported")
    latents = tokenizer.encoder(golden["in.images"] * 2 - 1)
    logits = tokenizer.quantizer.projection(latents.movedim(1, -1))  # type: ignore[operator]
    torch.testing.assert_close(logits.mean(dim=(1, 2)), golden["out.logits_mean"], atol=1e-4, rtol=1e-3)
    codes = tokenizer.encode(golden["in.images"] * 2 - 1)
    assert torch.equal(codes, golden["out.indices"])
    raw = tokenizer.decoder(tokenizer.quantizer.lookup(codes))
    torch.testing.assert_close(raw, golden["out.decoder_stats"], atol=5e-4, rtol=2e-3)
    torch.testing.assert_close((tokenizer.decode(codes) + 1) / 2, golden["out.recon"], atol=5e-4, rtol=2e-3)
