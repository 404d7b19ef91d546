"""Training on several ranks against one process with the same joint batch, for every kind of quantizer and game.

Each kind trains for some steps of a small tokenizer on noise, in parts whose rows do not divide evenly over the ranks,
in one process and on the ranks of a gloo process group. Printed is the greatest difference of a metric at any step,
relative to the greatest size of that metric, and of a tensor at the end (weights, codebooks, moving averages),
relative to the greatest number in that tensor. The state of the random numbers is among these.

Sums in another order differ by the rounding of their summands: 6e-8 in float32, 1e-16 in float64. Adam divides a
gradient by its own size. So an entry that is all but 0 carries its rounding into the weights at the size of the
learning rate. Where a gradient is 0 in exact arithmetic, nothing else moves a weight (the last biases of a critic of
differences, GAN-QP without LeCAM). Float64 shows that rounding is all there is.

    python benchmarks/rank_equality.py
    python benchmarks/rank_equality.py --ranks 3 --steps 5 --only vq
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from machine import machine
from torch import Tensor

from imtok.config import TrainConfig, load_train_config, merge, parse_settings
from imtok.tokenizer import to_float
from imtok.training import step as step_module
from imtok.training.state import TrainState
from imtok.training.step import train_step

SIZE = 16
PART, PARTS = 5, 2  # rows of a joint part, parts of a joint batch

COMMON = [
    *(f"size={SIZE}", f"data.crop={SIZE}", "network.fold=2", "network.channels=[4,8]", "network.blocks=1"),
    *(f"batch_size={PART * PARTS}", f"accumulate={PARTS}", "images=200", "threads=1", "precision=fp32"),
    *("compile=false", "channels_last=false", "device=cpu", "optimizer.warmup=0", "quantizer={kind: fsq}"),
]
_VQ = "quantizer={kind: vq, dim: 4, num_codes: 24, "
_GAN = [
    *("adversarial.weight=0.1", "adversarial.start=0", "adversarial.warmup=0", "adversarial.ramp=0"),
    *("adversarial.lecam=0.1", "adversarial.lecam_decay=0.5", "adversarial.discriminator={channels: 4, layers: 1}"),
]
_WGAN = "adversarial.penalty={weight: 10, center: 1, at: interpolates}"

CASES: dict[str, list[str]] = {
    "fsq": ["quantizer={kind: fsq, levels: [5, 5, 3]}"],
    "lfq": ["quantizer={kind: lfq, dim: 6, temperature: 1}"],
    "lfq, entropy of all codes": ["quantizer={kind: lfq, dim: 6, temperature: 1, entropy_group: 6}"],
    "bsq": ["quantizer={kind: bsq, dim: 6, entropy_group: 3}"],
    "gumbel": ["quantizer={kind: gumbel, dim: 4, num_codes: 24, code_dim: 6}"],
    "gumbel, mixtures": ["quantizer={kind: gumbel, dim: 4, num_codes: 24, straight_through: false}"],
    "vq, ema": [_VQ + "kmeans_start: false, revival_threshold: 0}"],
    "vq, ema, k-means, restarts": [_VQ + "decay: 0.5, revival_threshold: 0.5}"],
    "vq, cosine, ema, rotation, k-means, restarts": [
        _VQ + "metric: cosine, estimator: rotation, decay: 0.5, revival_threshold: 0.5}"
    ],
    "vq, gradient, k-means, restarts": [_VQ + "codebook_update: gradient, revival_threshold: 0.5}"],
    "vq, cosine, gradient, entropy": [
        _VQ + "metric: cosine, codebook_update: gradient, entropy_weight: 0.1, entropy_temperature: 0.1}"
    ],
    "vq, projection, rotation": [_VQ + "codebook_update: projection, projection_bias: true, estimator: rotation}"],
    "vq, frozen": [_VQ + "codebook_update: frozen}"],
    # Without a k-means start: the mean of two latents is as near to one as to the other, and rounding would choose.
    "vq, online clustering": [_VQ + "online_clustering: true, kmeans_start: false}"],
    "vq, index propagation, entropy": [_VQ + "estimator: index_propagation, entropy_weight: 0.05}"],
    "residual vq, quantizer dropout": [
        "quantizer={kind: residual, depth: 3, quantizer_dropout: 0.5, part: {kind: vq, dim: 4, num_codes: 24}}"
    ],
    "residual vq, one codebook": [
        "quantizer={kind: residual, depth: 2, shared: true, part: {kind: vq, dim: 4, num_codes: 24}}"
    ],
    "residual fsq": ["quantizer={kind: residual, depth: 2, part: {kind: fsq, levels: [5, 3]}}"],
    "product of vq": [
        "quantizer={kind: product, heads: 2, part: {kind: vq, dim: 3, num_codes: 24, codebook_update: gradient}}"
    ],
    "product of lfq, shared": ["quantizer={kind: product, heads: 2, shared: true, part: {kind: lfq, dim: 4}}"],
    "product of residual bsq": [
        "quantizer={kind: product, heads: 2, part: {kind: residual, depth: 2, part: {kind: bsq, dim: 4}}}"
    ],
    "product of gumbel": ["quantizer={kind: product, heads: 2, part: {kind: gumbel, dim: 3, num_codes: 24}}"],
    "logit laplace": ["loss.logit_laplace=1"],
    "hinge, LeCAM, R1": [*_GAN, "adversarial.r1=1", "adversarial.r1_every=2"],
    "hinge, adaptive weight": [*_GAN, "adversarial.adaptive=true"],
    "hinge, simultaneous": [*_GAN, "adversarial.update=simultaneous", "adversarial.adaptive=true"],
    "saturating, simultaneous": [*_GAN, "adversarial.update=simultaneous", "adversarial.loss=saturating"],
    "non-saturating, ActNorm": [*_GAN, "adversarial.loss=non_saturating", "adversarial.discriminator.norm=act"],
    "least squares, spectral norm": [
        *_GAN,
        *("adversarial.loss=least_squares", "adversarial.discriminator.spectral_norm=true"),
    ],
    "wasserstein, penalty at interpolates": [*_GAN, "adversarial.loss=wasserstein", _WGAN],
    "wasserstein, three critic steps": [*_GAN, "adversarial.loss=wasserstein", _WGAN, "adversarial.critic_steps=3"],
    "wasserstein, simultaneous": [
        *_GAN,
        *("adversarial.loss=wasserstein", "adversarial.update=simultaneous", "adversarial.lecam=0", _WGAN),
    ],
    "gan-qp, own pairs": [*_GAN, "adversarial.loss=gan_qp"],
    "gan-qp, independent pairs": [*_GAN, "adversarial.loss=gan_qp", "adversarial.gan_qp.pairing=independent"],
    "gan-qp, independent pairs, simultaneous": [
        *_GAN,
        *("adversarial.loss=gan_qp", "adversarial.gan_qp={pairing: independent, distance: l2}"),
        *("adversarial.update=simultaneous", "adversarial.lecam=0"),
    ],
    "stylegan, penalty at both": [
        *_GAN,
        *("adversarial.discriminator={kind: stylegan, channels: 8}", "adversarial.penalty={weight: 1, at: both}"),
    ],
    "maskbit, vq": [
        *_GAN,
        *("adversarial.discriminator={kind: maskbit, channels: 4, layers: 1}", "adversarial.adaptive=true"),
        _VQ + "decay: 0.5, revival_threshold: 0.5}",
    ],
    "vq, wasserstein, adaptive, critic steps": [
        *(*_GAN, "adversarial.adaptive=true", "adversarial.loss=wasserstein", _WGAN, "adversarial.critic_steps=2"),
        _VQ + "decay: 0.5, revival_threshold: 0.5}",
    ],
}

Trained = tuple[list[dict[str, float]], dict[str, Tensor]]  # the metrics of each step, all tensors at the end


def config_of(kind: str) -> TrainConfig:
    settings: dict[str, Any] = {}
    for setting in [*COMMON, *CASES[kind]]:
        settings = merge(settings, parse_settings([setting]))
    return load_train_config(settings)


def joint_batch(number: int) -> Tensor:
    """Draw the joint batch of a step, (B, 3, S, S) uint8."""
    generator = torch.Generator().manual_seed(number)
    coarse = torch.rand(PART * PARTS, 3, 4, 4, generator=generator)
    return (torch.nn.functional.interpolate(coarse, SIZE, mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)


def trained(kind: str, steps: int, *, rank: int = 0, ranks: int = 1, double: bool = False) -> Trained:
    """Train on this rank's rows."""
    torch.manual_seed(0)
    state = TrainState(config_of(kind), torch.device("cpu"), rank=rank, ranks=ranks)
    if double:
        make_double(state)
    metrics = []
    with in_double() if double else nullcontext():
        for number in range(steps):
            train_step(state, joint_batch(number)[state.joint.numbers])
            state.metrics.gather()
            metrics.append(state.metrics.means() | {"codes": float(state.metrics.counts.sum())})
            state.metrics.clear()
    tensors = {f"average.{name}": value for name, value in state.ema.model.state_dict().items()}
    tensors |= {f"tokenizer.{name}": value for name, value in state.tokenizer.state_dict().items()}
    tensors["random"] = torch.get_rng_state()
    if state.adversary:
        tensors |= {f"discriminator.{n}": value for n, value in state.adversary.discriminator.state_dict().items()}
        tensors |= {f"lecam.{name}": value for name, value in state.adversary.lecam.state_dict().items()}
    return metrics, tensors


def train_on_rank(rank: int, ranks: int, folder: Path, kinds: list[str], steps: int, double: bool) -> None:
    """Train all kinds on one rank, in a process of its own, and write the results of each."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=ranks)
    try:
        results = {kind: trained(kind, steps, rank=rank, ranks=ranks, double=double) for kind in kinds}
        torch.save(results, folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def train_on_ranks(kinds: list[str], steps: int, ranks: int = 2, *, double: bool = False) -> list[dict[str, Trained]]:
    """Return the results of each rank by kind; one start of the processes serves all kinds."""
    with tempfile.TemporaryDirectory() as name:
        torch.multiprocessing.spawn(train_on_rank, (ranks, Path(name), kinds, steps, double), nprocs=ranks)
        return [torch.load(Path(name) / f"{rank}.pt") for rank in range(ranks)]


def greatest_differences(one: Trained, other: Trained) -> tuple[float, float]:
    """Return the greatest relative difference of the metrics, and of the tensors; infinite where names differ."""
    (steps, tensors), (other_steps, other_tensors) = one, other
    if [list(step) for step in steps] != [list(step) for step in other_steps] or list(tensors) != list(other_tensors):
        return float("inf"), float("inf")
    metrics = 0.0
    for name in {name for step in steps for name in step}:
        pairs = [(a[name], b[name]) for a, b in zip(steps, other_steps, strict=True) if name in a]
        size = max(1e-3, max(abs(a) for a, _ in pairs))
        metrics = max(metrics, *(abs(a - b) / size for a, b in pairs))
    relative = [
        float((value.double() - other_tensors[name].double()).abs().max() / value.double().abs().max().clamp(min=1e-3))
        for name, value in tensors.items()
        if value.numel()
    ]
    return metrics, max(relative)


def main() -> None:
    args = parse()
    torch.set_num_threads(1)
    kinds = [kind for kind in CASES if args.only in kind]
    precisions = {"float32": False, "float64": True}
    ranks = {name: train_on_ranks(kinds, args.steps, args.ranks, double=double) for name, double in precisions.items()}
    rows: dict[str, dict[str, tuple[float, float]]] = {}
    print("| kind | float32: metrics | weights | float64: metrics | weights |\n|---|---|---|---|---|")
    for kind in kinds:
        rows[kind] = {
            name: greatest_differences(trained(kind, args.steps, double=double), ranks[name][0][kind])
            for name, double in precisions.items()
        }
        print(f"| {kind} |", " | ".join(f"{each:.0e}" for pair in rows[kind].values() for each in pair), "|")
        for first, *others in ranks.values():
            for other in others:
                assert greatest_differences(first[kind], other[kind])[1] == 0, f"{kind}: the ranks have parted"
    print(json.dumps({**machine(torch.device("cpu")), "settings": vars(args), "differences": rows}))


@contextmanager
def in_double() -> Iterator[None]:
    """Compute in float64 where training asks for float32."""
    with (
        patch.object(step_module, "to_float", lambda images: to_float(images).double()),
        # The optimizer's flag is a bool before, and has to stay float32.
        patch.object(
            Tensor, "float", lambda tensor: tensor.to(torch.float64 if tensor.is_floating_point() else torch.float32)
        ),
    ):
        yield


def make_double(state: TrainState) -> None:
    """Go on in float64, as far as the parts of a state allow it."""
    modules: list[torch.nn.Module] = [state.tokenizer, state.ema.model]
    if state.adversary:
        modules += [state.adversary.discriminator, state.adversary.lecam]
    for module in modules:
        module.double()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--only", default="", help="kinds with this in their name")
    return parser.parse_args()


if __name__ == "__main__":
    main()
