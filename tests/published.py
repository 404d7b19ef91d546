"""Checkpoints in published layouts: the reference ones, held against a tokenizer, and small ones made in a test."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import yaml
from recipe import golden
from safetensors.torch import save_file
from torch import Tensor

from imtok.config import TokenizerConfig
from imtok.interop import import_checkpoint
from imtok.interop.skeleton import skeleton
from imtok.tokenizer import Tokenizer, load

# By golden: the family, and how its projects write weights and configuration.
LAYOUTS: dict[str, tuple[str, str, str]] = {
    "taming": ("taming", "last.ckpt", "taming.models.vqgan.VQModel"),
    "taming_gumbel": ("taming-gumbel", "last.ckpt", "taming.models.vqgan.GumbelVQ"),
    "latent_diffusion": ("taming", "model.ckpt", "ldm.models.autoencoder.VQModel"),
    "llamagen": ("llamagen", "vq_ds2_c2i.pt", ""),
    "ibq": ("ibq", "imagenet256.ckpt", "src.IBQ.models.ibqgan.IBQ"),
    "rqvae": ("rqvae", "model.pt", ""),
    "diffusers": ("diffusers", "diffusion_pytorch_model.safetensors", "VQModel"),
    "chameleon": ("chameleon", "model.safetensors", "chameleon_vqgan"),
    "janus": ("janus", "model.safetensors", "janus_vqgan"),
}


def drawn(shapes: dict[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """Return random values of these shapes, of a size at which networks neither vanish nor explode."""
    generator = torch.Generator().manual_seed(seed)
    values = {}
    for name, like in shapes.items():
        noise = torch.randn(like.shape, generator=generator)
        values[name] = noise * max(1, like[0].numel()) ** -0.5 if like.ndim > 1 else 1 + 0.1 * noise
    return values


def written(name: str, folder: Path, weights: dict[str, Tensor] | None = None, **settings: Any) -> Path:
    """Write a golden's checkpoint as its project does, with its configuration beside it, and return the weights."""
    family, file, target = LAYOUTS[name]
    peer = golden(name)
    weights, config = peer.weights if weights is None else weights, {**peer.config, **settings}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file
    if path.suffix == ".safetensors":
        save_file(weights, path)
        key = "_class_name" if family == "diffusers" else "model_type"
        (folder / "config.json").write_text(json.dumps({key: target, **config}))
    elif family == "llamagen":
        torch.save({"model": weights}, path)
    elif family == "rqvae":
        torch.save({"state_dict": weights}, path)
        (folder / "config.yaml").write_text(yaml.safe_dump({"arch": {"type": "rq-vae", **config}}))
    else:
        torch.save({"epoch": 1, "state_dict": weights}, path)
        names = ("class_path", "init_args") if family == "ibq" else ("target", "params")
        (folder / "config.yaml").write_text(yaml.safe_dump({"model": dict(zip(names, (target, config), strict=True))}))
    return path


def imported(path: Path, output: Path, **options: Any) -> Tokenizer:
    """Import a checkpoint and load the folder that was written."""
    report = import_checkpoint(path, output, **options)
    tokenizer = load(output)
    assert tokenizer.fingerprint == report.tokenizer.fingerprint
    return tokenizer


@torch.no_grad()
def check_golden(tokenizer: Tokenizer, folder: Path, *, lead: str = "out", unit_range: bool = False) -> None:
    """Latents, tokens, their look-up and their reconstruction are those that the family's own code gave."""
    golden = safetensors.torch.load_file(folder / "io.safetensors")
    images, recon = golden["in.images"], golden[f"{lead}.recon"]
    if unit_range:
        images, recon = images * 2 - 1, recon * 2 - 1
    torch.testing.assert_close(tokenizer.encoder(images), golden[f"{lead}.latents"], atol=1e-4, rtol=1e-3)
    codes = tokenizer.encode(images)
    assert torch.equal(codes, golden[f"{lead}.indices"])
    latents = tokenizer.quantizer.lookup(codes)
    if f"{lead}.z_q" in golden:
        torch.testing.assert_close(latents, golden[f"{lead}.z_q"], atol=1e-6, rtol=0)
    torch.testing.assert_close(tokenizer.decoder(latents), recon, atol=1e-3, rtol=2e-3)


def parameters(config: TokenizerConfig, parts: Iterable[str] = ("encoder", "decoder", "quantizer")) -> list[int]:
    """Count the values of each part of a tokenizer, without building it."""
    shapes = skeleton(config)
    return [sum(value.numel() for name, value in shapes.items() if name.startswith(f"{part}.")) for part in parts]


def maskgit_shapes(
    width: int = 32, multipliers: tuple[int, ...] = (1, 2), blocks: int = 1, dim: int = 8, codes: int = 64
) -> dict[str, Tensor]:
    """Names and shapes of a MaskGIT-VQGAN as it is published, stated without our network."""
    found: dict[str, tuple[int, ...]] = {"quantize.embedding.weight": (codes, dim)}

    def block(name: str, before: int, after: int) -> int:
        for part, size in (("norm1", before), ("norm2", after)):
            found[f"{name}.{part}.weight"] = found[f"{name}.{part}.bias"] = (size,)
        found[f"{name}.conv1.weight"], found[f"{name}.conv2.weight"] = (after, before, 3, 3), (after, after, 3, 3)
        if before != after:
            found[f"{name}.nin_shortcut.weight"] = (after, after, 1, 1)
        return after

    def convolution(name: str, before: int, after: int, kernel: int) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = (after, before, kernel, kernel), (after,)

    found["encoder.conv_in.weight"] = (width, 3, 3, 3)
    channels, widths = width, [width * multiplier for multiplier in multipliers]
    for stage, out in enumerate(widths):
        for number in range(blocks):
            channels = block(f"encoder.down.{stage}.block.{number}", channels, out)
    convolution("decoder.conv_in", dim, channels, 3)
    for part in ("encoder", "decoder"):
        for number in range(blocks):
            block(f"{part}.mid.{number}", channels, channels)
    for stage in reversed(range(len(widths))):
        for number in range(blocks):
            channels = block(f"decoder.up.{stage}.block.{number}", channels, widths[stage])
        if stage:
            convolution(f"decoder.up.{stage}.upsample_conv", channels, channels, 3)
    for part, before, after, kernel in (("encoder", widths[-1], dim, 1), ("decoder", widths[0], 3, 3)):
        found[f"{part}.norm_out.weight"] = found[f"{part}.norm_out.bias"] = (before,)
        convolution(f"{part}.conv_out", before, after, kernel)
    return {name: torch.empty(size, device="meta") for name, size in found.items()}
