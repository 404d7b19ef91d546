"""How many codes are alive, and how good the images are, from the first steps on: imtok and vector-quantize-pytorch.

The same encoder, decoder, initial weights, images, order and optimizer for both (those of `quantizer_study.py`); only
the quantizer differs. Each row is a run of its own with its whole schedule, for each of the seeds, and the contenders
take turns run by run. Measured on 1000 held-out images, in fp32, after the last step:

    used        codes that occur at least once
    perplexity  2^entropy of the codes
    error       sum over tokens of |z - q|^2 over that of |z|^2
    PSNR        mean over images of 10 log10(255^2 / MSE) on uint8 RGB, as `imtok eval`
    restarted   share of the codes that a step restarts, mean of the last tenth of the run; imtok alone

Contenders: `imtok` as its presets set it; `peer`, vector-quantize-pytorch with a k-means start and the best of its
settings, which `--choose` looks for among decays and thresholds of dead codes; `peer-default`, with its defaults; and
`imtok-off`, imtok without restarts of dead codes. A finished run is one line of the results file and is not made again.

    python benchmarks/codebook_health.py --choose --steps 600 --seeds 0
    python benchmarks/codebook_health.py --peer-decay 0.9 --peer-threshold 1 --results FILE
    python benchmarks/codebook_health.py --variants --steps 235 600 --seeds 0 --results FILE
    python benchmarks/codebook_health.py --table FILE
"""

# Axes: B batch, D latent channels, h x w latent grid, K codes.

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from machine import machine
from quantizer_study import (
    DIM,
    Autoencoder,
    Settings,
    append,
    finished,
    load_images,
    markdown,
    measure,
    plain,
    train,
)
from torch import Tensor
from vector_quantize_pytorch import VectorQuantize

from imtok.quantizers import ProductQuantizer, Quantized, Quantizer, ResidualQuantizer, VectorQuantizer
from imtok.quantizers.codebook import CodebookQuantizer

BATCH = 64
STEPS = (50, 100, 235, 600, 1200, 3000)
HELD_OUT = 1000
LONG = 3000  # steps from which on the peer's defaults and the runs without restarts are left out
ALIVE: dict[str, Any] = {"kmeans_start": True, "revival_threshold": 0.05}  # as imtok's presets have it


class Peer(Quantizer):
    """vector-quantize-pytorch under imtok's contract."""

    def __init__(self, num_codes: int, dim: int = DIM, **options: Any) -> None:
        super().__init__()
        self.dim, self.num_codes, self.loss_weights = dim, num_codes, {"peer": 1.0}
        self.layer = VectorQuantize(dim=dim, codebook_size=num_codes, accept_image_fmap=True, **options)

    def quantize(self, latents: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        quantized, codes, loss = self.layer(latents)
        return quantized, codes, {"peer": loss.sum()}

    def lookup(self, codes: Tensor) -> Tensor:
        return self.layer.get_output_from_indices(codes).movedim(-1, 1)

    def code_tensors(self) -> dict[str, Tensor]:
        return dict(self.layer.state_dict())


Make = Callable[[argparse.Namespace], Quantizer]


def peer(args: argparse.Namespace, decay: float, threshold: float, **options: Any) -> Peer:
    """Build the peer as its users keep codes alive; the threshold counts latents at 4 a code and step."""
    scaled = threshold * args.latents_per_code / 4
    alive = {"kmeans_init": True, "decay": decay, "threshold_ema_dead_code": scaled, "commitment_weight": 0.25}
    return Peer(args.codes, **({"rotation_trick": True} | alive | options))


CONTENDERS: dict[str, Make] = {
    "imtok": lambda args: VectorQuantizer(DIM, args.codes, estimator="rotation", **ALIVE),
    "peer": lambda args: peer(args, args.peer_decay, args.peer_threshold),
    "peer-default": lambda args: Peer(args.codes),
    "imtok-off": lambda args: VectorQuantizer(DIM, args.codes, estimator="rotation", kmeans_start=True),
}
# Other kinds of VQ, each beside the peer in the same form where the peer has it.
VARIANTS: dict[str, Make] = {
    "straight-through": lambda args: VectorQuantizer(DIM, args.codes, **ALIVE),
    "straight-through, peer": lambda args: peer(args, args.peer_decay, args.peer_threshold, rotation_trick=False),
    "gradient": lambda args: VectorQuantizer(DIM, args.codes, codebook_update="gradient", **ALIVE),
    "gradient, rotation": lambda args: VectorQuantizer(
        DIM, args.codes, codebook_update="gradient", estimator="rotation", **ALIVE
    ),
    "cosine": lambda args: VectorQuantizer(DIM, args.codes, metric="cosine", **ALIVE),
    "cosine, peer": lambda args: peer(
        args, args.peer_decay, args.peer_threshold, rotation_trick=False, use_cosine_sim=True
    ),
    "cosine, gradient": lambda args: VectorQuantizer(
        DIM, args.codes, metric="cosine", codebook_update="gradient", **ALIVE
    ),
    "residual, 2 stages": lambda args: ResidualQuantizer([VectorQuantizer(DIM, args.codes, **ALIVE) for _ in "ab"]),
    "residual, shared": lambda args: ResidualQuantizer(VectorQuantizer(DIM, args.codes, **ALIVE), depth=2),
    "product, 2 heads": lambda args: ProductQuantizer([VectorQuantizer(DIM // 2, args.codes, **ALIVE) for _ in "ab"]),
}
CHOICES = [(decay, threshold) for decay in (0.8, 0.9, 0.99) for threshold in (1.0, 2.0)]


class Restarts:
    """Counts the codes that each training step restarts: their age is 0, and no latent chose them."""

    def __init__(self, model: Autoencoder) -> None:
        self.shares: list[float] = []
        for part in model.modules():
            if isinstance(part, CodebookQuantizer) and "age" in dict(part.named_buffers()):
                part.register_forward_hook(self._count)

    def _count(self, book: CodebookQuantizer, inputs: Any, output: Quantized) -> None:
        del inputs
        if book.training:
            new = book.age == 0
            new[output.codes.flatten()] = False
            self.shares.append(float(new.float().mean()))

    def late_share(self) -> float | None:
        last = self.shares[-max(1, len(self.shares) // 10) :]
        return statistics.fmean(last) if last else None


def run(make: Make, args: argparse.Namespace, settings: Settings, data: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """Train and measure one contender."""
    quantizer = make(args)
    torch.manual_seed(settings.seed)  # after it, so that all contenders begin with the same networks
    model = Autoencoder(quantizer, settings).train()
    restarts = Restarts(model)
    started = time.perf_counter()
    train(model, data[0], settings, torch.device("cpu"))
    found = measure(model, data[1][:HELD_OUT], settings.batch_size, torch.device("cpu"))
    return {**found, "restarted": restarts.late_share(), "seconds": round(time.perf_counter() - started, 1)}


def main() -> None:
    args = parse()
    if args.table:
        print(table(finished(args.table)))
        return
    torch.set_num_threads(args.threads)
    data = load_images(args.source)
    args.latents_per_code = args.batch_size * 64 / args.codes
    makes = dict(CONTENDERS if not args.variants else VARIANTS)
    if args.choose:
        makes = {
            f"peer {decay:g} {threshold:g}": lambda args, choice=(decay, threshold): peer(args, *choice)
            for decay, threshold in CHOICES
        }
    makes = {name: make for name, make in makes.items() if not args.only or name in args.only}
    runs = [(steps, seed, name) for steps in args.steps for seed in args.seeds for name in makes]
    for steps, seed, name in runs:
        if steps >= LONG and name in ("peer-default", "imtok-off"):
            continue
        settings = make_settings(args, steps, seed, data)
        key = {"contender": name, "codes": args.codes, "steps": steps, "settings": plain(settings)}
        if name.startswith("peer") or name.endswith("peer"):
            key["peer"] = [args.peer_decay, args.peer_threshold]
        if any(all(line.get(part) == value for part, value in key.items()) for line in finished(args.results)):
            continue
        outcome = run(makes[name], args, settings, data)
        append(args.results, {**key, **outcome, **machine(torch.device("cpu"), "vector-quantize-pytorch")})
        print(f"{name}, {steps} steps, seed {seed}: {brief(outcome)}", file=sys.stderr, flush=True)
    lines = finished(args.results)
    print(table(lines))
    print(json.dumps({"benchmark": "codebook_health", "rows": rows(lines)}))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).resolve().parents[2] / "shared/data/cifar10"
    parser.add_argument("source", nargs="?", type=Path, default=default, help="a folder with train-*.tar and val-*.tar")
    parser.add_argument("--results", type=Path, default=Path("codebook_health.jsonl"), help="a line a finished run")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the table of these results and do no more")
    parser.add_argument("--choose", action="store_true", help="run the peer in each of its settings")
    parser.add_argument("--variants", action="store_true", help="run other kinds of VQ instead")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these contenders or variants alone")
    parser.add_argument("--peer-decay", type=float, default=0.9)
    parser.add_argument("--peer-threshold", type=float, default=1.0, help="at 4 latents a code and step; scaled by N/K")
    parser.add_argument("--codes", type=int, default=1024)
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--batch-size", type=int, default=BATCH)
    parser.add_argument("--channels", nargs="+", type=int, default=[32])
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def make_settings(args: argparse.Namespace, steps: int, seed: int, data: tuple[Tensor, Tensor]) -> Settings:
    return Settings(
        data=args.source.resolve().name,
        train_images=len(data[0]),
        val_images=HELD_OUT,
        images=steps * args.batch_size,
        batch_size=args.batch_size,
        learning_rate=1e-3,
        warmup=0.05,
        clip_norm=1.0,
        fold=2 ** (3 - len(args.channels)),
        channels=tuple(args.channels),
        blocks=1,
        seed=seed,
        precision="fp32",
    )


# --- for people


def brief(line: dict[str, Any]) -> str:
    restarted = "" if line["restarted"] is None else f", {line['restarted']:.3%} restarted a step at the end"
    return (
        f"{line['used']} codes, perplexity {line['perplexity']:.0f}, error {line['relative_error']:.4f}, "
        f"{line['psnr']:.2f} dB{restarted}, {line['seconds']} s"
    )


def rows(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over the seeds, with the spread of PSNR, for each contender, number of codes and length of run."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for line in lines:
        setting = tuple(line["settings"]["channels"]), line["settings"]["batch_size"]
        groups.setdefault((line["codes"], *setting, line["steps"], line["contender"]), []).append(line)
    found = []
    for (codes, channels, batch_size, steps, contender), group in sorted(groups.items()):
        found.append(
            {
                "codes": codes,
                "channels": channels,
                "batch_size": batch_size,
                "steps": steps,
                "contender": contender,
                "seeds": len(group),
                **{name: mean(line[name] for line in group) for name in ("used", "perplexity", "relative_error")},
                "psnr": mean(line["psnr"] for line in group),
                "psnr_spread": max(line["psnr"] for line in group) - min(line["psnr"] for line in group),
                "restarted": mean(line["restarted"] for line in group if line["restarted"] is not None),
            }
        )
    return found


def mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.fmean(found) if found else None


def table(lines: list[dict[str, Any]]) -> str:
    columns = ["K", "latents a step", "steps", "contender", "seeds", "used", "perplexity", "error", "PSNR, dB"]
    columns += ["spread of PSNR", "restarted a step"]
    cells = [
        [
            f"{row['codes']:,}",
            f"{row['batch_size'] * 64:,}",
            f"{row['steps']:,}",
            row["contender"],
            str(row["seeds"]),
            f"{row['used']:,.0f}",
            f"{row['perplexity']:,.0f}",
            f"{row['relative_error']:.4f}",
            f"{row['psnr']:.2f}",
            f"{row['psnr_spread']:.2f}",
            "" if row["restarted"] is None else f"{row['restarted']:.3%}",
        ]
        for row in rows(lines)
    ]
    return markdown(columns, cells)


if __name__ == "__main__":
    main()
