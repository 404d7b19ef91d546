"""What each quantizer keeps of small pictures, and how much of its codebook it uses, as the codebook grows.

The same encoder and decoder (32 px to 8 x 8 tokens), images, order, seed, optimizer and number of steps for every
quantizer and every size K; only the quantizer and its number of latent channels differ. Measured on all held-out
images, in fp32, after the last step, without an average of the weights:

    used        codes that occur at least once; of K, and as perplexity (2^entropy). Where two codebooks share the bits
                a code is the pair of theirs, so that K is the same; the use of each alone is in the JSON
    PSNR        mean over images of 10 log10(255^2 / MSE) on uint8 RGB, as `imtok eval`
    error       mean over tokens of |z - q|^2, and its sum over that of |z|^2; z as the quantizer compares it with
                its codes: on the unit sphere for cosine and BSQ, bounded for FSQ. Gumbel compares nothing: no error

Nothing but training limits the figures: they tell quantizers apart at this budget, not what each reaches in the end.
A finished run is one line of the results file and is not made again, so a stopped study goes on by the same command.

    python benchmarks/quantizer_study.py ../shared/data/cifar10
    python benchmarks/quantizer_study.py --table benchmarks/results/quantizer_study_<machine>.jsonl
"""

# Axes: B batch, D latent channels, h x w latent grid, N = B*h*w tokens, K codes, Q codebooks.

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine
from torch import Tensor, nn

from imtok.data.collection import ImageCollection
from imtok.data.images import decode_image, fit_image
from imtok.devices import Precision, autocast, resolve_device
from imtok.errors import ImtokError
from imtok.evaluation import psnr
from imtok.networks.conv_config import ConvConfig
from imtok.quantizers import (
    BSQ,
    FSQ,
    LFQ,
    GumbelQuantizer,
    ProductQuantizer,
    Quantizer,
    ResidualQuantizer,
    VectorQuantizer,
    forget_moved_codes,
)
from imtok.quantizers.base import to_rows
from imtok.tokenizer import to_float, to_uint8
from imtok.training.schedule import learning_rate
from imtok.usage import CodebookUsage

SIZE = 32  # pixels a side
DIM = 32  # channels of what is compared as vectors, as in the preset rotation-vq-f4
ALIVE: dict[str, Any] = {"kmeans_start": True, "revival_threshold": 0.05}  # as imtok's presets have it
LEVELS = {  # Mentzer et al., table 1, for even exponents; for odd ones the products nearest to 2^n
    8: [8, 6, 5],
    9: [8, 8, 8],
    10: [8, 5, 5, 5],
    11: [8, 8, 6, 5],
    12: [7, 5, 5, 5, 5],
    13: [8, 8, 5, 5, 5],
    14: [8, 8, 8, 6, 5],
}


# --- the quantizers


@dataclass(frozen=True)
class Kind:
    """One row of the study."""

    title: str
    make: Callable[[int], Quantizer]  # from log2 K


def vector(title: str, dim: int = DIM, **options: Any) -> Kind:
    return Kind(title, lambda bits: VectorQuantizer(dim, 2**bits, **options))


def halves(bits: int) -> tuple[int, int]:
    """Codes of two codebooks that have 2^bits pairs; the same in both, so `bits` must be even."""
    if bits % 2:
        raise ValueError(f"2^{bits} codes are no square: two codebooks of equal size cannot share them")
    return 2 ** (bits // 2), 2 ** (bits // 2)


KINDS = {
    "vq-ema": vector("VQ, EMA"),
    "vq-gradient": vector("VQ, gradient", codebook_update="gradient"),
    "vq-ema-alive": vector("VQ, EMA, k-means, restart", **ALIVE),
    "rotation": vector("rotation, EMA", estimator="rotation"),
    "rotation-alive": vector("rotation, EMA, k-means, restart", estimator="rotation", **ALIVE),
    # LlamaGen: 8 channels, both sides on the sphere, its entropy loss at weight 0.
    "cosine": vector("cosine, 8 channels, gradient", dim=8, metric="cosine", codebook_update="gradient"),
    "simvq": vector("SimVQ", codebook_update="projection"),
    # The published weights; 32 channels where IBQ has 256, which costs up to eight times as much.
    "ibq": vector(
        "IBQ",
        metric="dot",
        estimator="index_propagation",
        codebook_update="gradient",
        commitment_weight=1.0,
        codebook_weight=0.25,
        entropy_weight=0.05,
    ),
    "fsq": Kind("FSQ", lambda bits: FSQ(LEVELS[bits])),
    # As in the preset lfq-f8: at the usual .25 and .1 the losses outweigh a mean squared error near .01.
    "lfq": Kind("LFQ", lambda bits: LFQ(bits, commitment_weight=0.01, entropy_weight=0.01)),
    "bsq": Kind("BSQ", lambda bits: BSQ(bits)),
    "gumbel": Kind("Gumbel", lambda bits: GumbelQuantizer(DIM, 2**bits)),
    "residual": Kind(
        "residual VQ, 2 stages",
        lambda bits: ResidualQuantizer([VectorQuantizer(DIM, codes, **ALIVE) for codes in halves(bits)]),
    ),
    "product": Kind(
        "product VQ, 2 heads",
        lambda bits: ProductQuantizer([VectorQuantizer(DIM // 2, codes, **ALIVE) for codes in halves(bits)]),
    ),
}
# Their softmax over all codes carries gradient, so a step costs N x K: they come last.
DEAR = ("ibq", "gumbel")


def total_codes(quantizer: Quantizer) -> int:
    """K: the number of different tokens."""
    return int(quantizer.num_codes**quantizer.num_codebooks)


def as_compared(quantizer: Quantizer, latents: Tensor) -> Tensor | None:
    """Latents (B, D, h, w) as they stand beside the codes, (N, D); None where they are not compared."""
    compared = quantizer.comparable_latents(latents)
    return None if compared is None else to_rows(compared)


# --- one run


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all quantizers of a study have in common; together with the kind and K it names a run."""

    data: str
    train_images: int
    val_images: int
    images: int  # length of a run, in training images seen
    batch_size: int
    learning_rate: float
    warmup: float
    clip_norm: float
    fold: int  # the patch size, under the name that results were written with
    channels: tuple[int, ...]
    blocks: int
    seed: int
    precision: Precision


class Autoencoder(nn.Module):
    def __init__(self, quantizer: Quantizer, settings: Settings) -> None:
        super().__init__()
        network = ConvConfig(patch_size=settings.fold, channels=settings.channels, blocks=settings.blocks)
        self.encoder, self.decoder = network.build(quantizer.dim, quantizer.code_dim)
        self.quantizer = quantizer


def train(model: Autoencoder, images: Tensor, settings: Settings, device: torch.device) -> None:
    """AdamW, linear warm-up, cosine to zero, mean squared error plus the quantizer's own loss."""
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    for seen, batch in batches(images, settings):
        middle = seen + settings.batch_size // 2
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(middle, settings.images, settings.learning_rate, settings.warmup)
        model.quantizer.anneal(seen / settings.images)
        pixels = to_float(batch.to(device))
        with autocast(device, settings.precision):
            quantized = model.quantizer(model.encoder(pixels))
            restored = model.decoder(quantized.latents)
        loss = nn.functional.mse_loss(restored.float(), pixels) + quantized.loss
        loss.backward()
        forget_moved_codes(model, optimizer)
        norm = nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        if not torch.isfinite(norm + loss.detach()):
            raise ValueError(f"training image {seen}: the loss or its gradient is not finite")
        optimizer.step()
        optimizer.zero_grad()


def batches(images: Tensor, settings: Settings) -> Iterator[tuple[int, Tensor]]:
    """(images seen before, (B, 3, S, S) uint8): each epoch in an order of its own, half of the images mirrored."""
    random = torch.Generator().manual_seed(settings.seed)
    order = torch.empty(0, dtype=torch.int64)
    for seen in range(0, settings.images, settings.batch_size):
        while len(order) < settings.batch_size:
            order = torch.cat([order, torch.randperm(len(images), generator=random)])
        batch, order = images[order[: settings.batch_size]], order[settings.batch_size :]
        mirrored = torch.rand(len(batch), 1, 1, 1, generator=random) < 0.5
        yield seen, torch.where(mirrored, batch.flip(3), batch)


@torch.no_grad()
def measure(model: Autoencoder, images: Tensor, batch_size: int, device: torch.device) -> dict[str, Any]:
    """The figures of a trained model on all of `images` (N, 3, S, S) uint8; what has none is None."""
    model.eval()
    quantizer = model.quantizer
    psnrs, codes, error, power, tokens = [], [], 0.0, 0.0, 0
    for batch in torch.split(images, batch_size):
        with autocast(device, "fp32"):
            latents = model.encoder(to_float(batch.to(device)))
            quantized = quantizer(latents)
            restored = to_uint8(model.decoder(quantized.latents)).cpu()
        psnrs.append(psnr(restored, batch))
        codes.append(quantized.codes.cpu().reshape(-1, quantizer.num_codebooks))
        points = as_compared(quantizer, latents)
        tokens += codes[-1].shape[0]
        if points is not None:
            error += float((points - to_rows(quantized.latents)).double().square().sum())
            power += float(points.double().square().sum())
    compared = power > 0
    return {
        "psnr": float(torch.cat(psnrs).mean()),
        **usage(torch.cat(codes), quantizer),
        "error": error / tokens if compared else None,
        "relative_error": error / power if compared else None,
    }


def usage(codes: Tensor, quantizer: Quantizer) -> dict[str, Any]:
    """How codes (N, Q) use the codebook: of pairs where Q is 2, and of each codebook alone."""
    joint = torch.zeros(len(codes), dtype=torch.int64)
    for book in codes.unbind(1):
        joint = joint * quantizer.num_codes + book
    whole = counted(joint, total_codes(quantizer))
    return {
        "codes": whole.codebook_size,
        "bits": whole.max_bits,
        "tokens": whole.tokens,
        "used": whole.used,
        "usage": whole.usage,
        "perplexity": whole.perplexity,
        "usage_of_each": [counted(book, quantizer.num_codes).usage for book in codes.unbind(1)],
    }


def counted(codes: Tensor, num_codes: int) -> CodebookUsage:
    return CodebookUsage(np.bincount(codes.numpy(), minlength=num_codes), 0)


def run(kind: str, bits: int, settings: Settings, data: tuple[Tensor, Tensor], device: torch.device) -> dict[str, Any]:
    """Train and measure one quantizer; figures, or why there are none."""
    torch.manual_seed(settings.seed)
    model = Autoencoder(KINDS[kind].make(bits), settings).to(device).train()
    started = time.perf_counter()
    try:
        train(model, data[0], settings, device)
        outcome = measure(model, data[1], settings.batch_size, device)
    except ValueError as error:  # the quantizer's word on latents that are not finite: a result too
        outcome = {"failed": str(error)}
    seconds = time.perf_counter() - started
    return {"quantizer": repr(model.quantizer), **outcome, "seconds": round(seconds, 1)}


# --- the study


def main() -> None:
    args = parse()
    if args.table:
        print(table(finished(args.table)))
        return
    torch.set_num_threads(args.threads)
    device = resolve_device(args.device)
    data = load_images(args.source)
    settings = make_settings(args, data)
    study(args, settings, data, device)
    lines = [line for line in finished(args.results) if line["settings"] == plain(settings)]
    print(table(lines))
    figures = {f"{line['kind']}/{line['log2_codes']}": brief(line) for line in lines}
    print(json.dumps({"benchmark": "quantizer_study", "figures": figures, **circumstances(args, settings, device)}))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).resolve().parents[2] / "shared/data/cifar10"
    parser.add_argument("source", nargs="?", type=Path, default=default, help="a folder with train-*.tar and val-*.tar")
    parser.add_argument("--results", type=Path, default=Path("quantizer_study.jsonl"), help="a line a finished run")
    parser.add_argument(
        "--table", type=Path, metavar="FILE", help="print the table of these results and do nothing else"
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND")
    parser.add_argument(
        "--log2-codes", nargs="+", type=int, choices=LEVELS, default=[10, 14, 8, 12], help="in this order"
    )
    parser.add_argument("--images", type=int, default=65_536, help="length of a run, in training images seen")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--channels", nargs="+", type=int, default=[64])
    parser.add_argument("--blocks", type=int, default=1, help="residual blocks a stage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    # On one CPU thread fp32 takes two thirds of the time of bf16 in nets as small as these.
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def load_images(source: Path) -> tuple[Tensor, Tensor]:
    """All images for training and all held out, each (N, 3, S, S) uint8."""
    parts = []
    for name in ("train", "val"):
        try:
            images = ImageCollection.open(sorted(source.glob(f"{name}-*.tar")) or [source / f"{name}-*.tar"])
            parts.append(torch.stack([fit_image(decode_image(data), SIZE).pixels for _, data in images]))
        except ImtokError as error:
            sys.exit(f"{error}")
    return parts[0], parts[1]


def make_settings(args: argparse.Namespace, data: tuple[Tensor, Tensor]) -> Settings:
    stages = len(args.channels)
    if stages > 3:
        sys.exit(f"--channels: {stages} stages halve the grid {stages - 1} times; at most 3 leave 4 px a token")
    return Settings(
        data=args.source.resolve().name,
        train_images=len(data[0]),
        val_images=len(data[1]),
        images=args.images,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        warmup=0.05,
        clip_norm=1.0,
        fold=2 ** (3 - stages),
        channels=tuple(args.channels),
        blocks=args.blocks,
        seed=args.seed,
        precision=args.precision,
    )


def study(args: argparse.Namespace, settings: Settings, data: tuple[Tensor, Tensor], device: torch.device) -> None:
    """All runs that are not in the results yet: size by size, those with a softmax over all codes at the end."""
    done = {
        (line["kind"], line["log2_codes"]) for line in finished(args.results) if line["settings"] == plain(settings)
    }
    cheap = [(kind, bits) for bits in args.log2_codes for kind in args.kinds if kind not in DEAR]
    dear = [(kind, bits) for bits in sorted(args.log2_codes) for kind in args.kinds if kind in DEAR]
    wanted = [(kind, bits) for kind, bits in cheap + dear if not (kind in ("residual", "product") and bits % 2)]
    for number, (kind, bits) in enumerate(wanted, 1):
        if (kind, bits) in done:
            continue
        outcome = run(kind, bits, settings, data, device)
        line = {"kind": kind, "log2_codes": bits, **outcome, **circumstances(args, settings, device)}
        append(args.results, line)
        print(
            f"{number}/{len(wanted)}  {kind} 2^{bits}: {brief(line)}, {line['seconds']} s", file=sys.stderr, flush=True
        )


def append(path: Path, line: dict[str, Any]) -> None:
    """One more line, also after a file whose last line was cut short."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = not path.exists() or path.read_bytes()[-1:] in (b"", b"\n")
    with path.open("a") as file:
        file.write(("" if whole else "\n") + json.dumps(line) + "\n")


def finished(path: Path) -> list[dict[str, Any]]:
    """The lines of a results file; one that was cut short is left out, and its run will be made again."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def plain(settings: Settings) -> dict[str, Any]:
    """Settings as they come back from JSON."""
    return dict(json.loads(json.dumps(vars(settings))))


def circumstances(args: argparse.Namespace, settings: Settings, device: torch.device) -> dict[str, Any]:
    return {"settings": plain(settings), "threads": args.threads, **machine(device)}


# --- for people


def brief(line: dict[str, Any]) -> dict[str, Any]:
    if "failed" in line:
        return {"failed": line["failed"]}
    names = ("psnr", "used", "usage", "perplexity", "error", "relative_error")
    return {name: line[name] if line[name] is None else float(f"{line[name]:.5g}") for name in names}


def table(lines: list[dict[str, Any]]) -> str:
    """Markdown: a table for each figure, quantizers by sizes; ends the program on runs of different settings."""
    if not lines:
        return "no run is finished yet"
    settings = lines[0]["settings"]
    if any(line["settings"] != settings for line in lines):
        sys.exit("the runs in this file differ in settings, so one table cannot compare them; give a file of one study")
    found = {(line["kind"], line["log2_codes"]): line for line in lines}
    sizes = sorted({bits for _, bits in found})
    columns = ["quantizer"] + [f"2^{bits}" for bits in sizes]
    parts = [protocol(lines)]
    for title, cell in FIGURES.items():
        rows = [
            [KINDS[kind].title] + [cell(found[kind, bits]) if (kind, bits) in found else "" for bits in sizes]
            for kind in KINDS
            if any((kind, bits) in found for bits in sizes)
        ]
        parts.append(f"{title}\n\n{markdown(columns, rows)}")
    return "\n\n".join(parts)


def protocol(lines: list[dict[str, Any]]) -> str:
    settings = lines[0]["settings"]
    steps = math.ceil(settings["images"] / settings["batch_size"])
    devices = sorted({line["device"] for line in lines})
    return (
        f"{settings['data']}: {settings['train_images']:,} images for training, {settings['val_images']:,} held out; "
        f"{steps:,} steps of {settings['batch_size']} images, channels {settings['channels']}, "
        f"{settings['blocks']} blocks a stage, learning rate {settings['learning_rate']:g}, "
        f"{settings['precision']}, seed {settings['seed']}; {', '.join(devices)}."
    )


def shown(name: str, form: str) -> Callable[[dict[str, Any]], str]:
    def cell(line: dict[str, Any]) -> str:
        if "failed" in line:
            return "failed"
        return "–" if line[name] is None else form.format(line[name])

    return cell


FIGURES: dict[str, Callable[[dict[str, Any]], str]] = {
    "Codes there are (K)": shown("codes", "{:,}"),
    "Codes used, of K": shown("usage", "{:.1%}"),
    "Perplexity": shown("perplexity", "{:,.0f}"),
    "PSNR, dB": shown("psnr", "{:.2f}"),
    "Quantization error, mean of |z - q|^2": shown("error", "{:.3g}"),
    "Quantization error, relative to |z|^2": shown("relative_error", "{:.3f}"),
    "Bits a token": shown("bits", "{:.2f}"),
    "Seconds a run": shown("seconds", "{:.0f}"),
}


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] + ["---:"] * (len(columns) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
