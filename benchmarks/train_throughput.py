"""Images per second of training, against the same networks trained by a plain PyTorch script.

All rows take optimisation steps on the same batches of pictures, in turn, so that a drift of the machine meets all
alike:

    peer                 a script as people write it: imtok's Encoder and Decoder in eager fp32, VectorQuantize of
                         vector-quantize-pytorch, squared error, AdamW as it comes, clipping, `loss.item()` each step
    imtok                the step of `imtok train`, precision, compile and channels_last resolved for this machine
    imtok-compiled, -channels-last, -fp32, -bf16
                         the same with compile=true, with channels_last=true, and eager in either precision
    bare, bare-fp32      forward and backward of encoder and decoder alone on fixed tensors, no quantizer, no loss, no
                         optimizer: as resolved, and eager in fp32

On a processor where bf16 is faster, imtok must reach .9 of `bare` in both cases, and 1.7 times the peer with 1024
codes; elsewhere the ratios are only reported. `benchmarks/profile_step.py` tells where a step's time goes. `bare` has
the networks of imtok, with torch's own group norm on contiguous tensors in either precision.

What limits a step is the convolutions, and so `bare`; beyond them imtok pays for the quantizer, the losses, AdamW, the
EMA of the weights and the count of codes. The peer has no EMA and no count. It has a k-means start as imtok has, but no
restart of dead codes, which spares it work. Its cosine codebook cannot learn by gradient, so there it
learns by moving averages; a Euclidean one that learns by gradient has one weight for both losses. The peer runs under
torch's defaults, on a GPU with convolutions in TF32; the others under imtok's, deterministic and without TF32.

The first steps compile and start codebooks. They are not timed with the rest; `first step` is their time, and the first
row of imtok that needs compiled kernels includes the compilation. In them the loss must fall and codes must be in use,
in peer and imtok alike. A ratio is the quotient of medians. Run nothing else meanwhile.

    pip install 'imtok[bench]'
    python benchmarks/train_throughput.py --source ../shared/data/photos

With --source, `imtok train` itself also trains on those images, and its speed includes reading, logging and waiting.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from machine import machine
from torch import Tensor, nn
from vector_quantize_pytorch import VectorQuantize

from imtok.config import TrainConfig, load_train_config, merge, parse_settings, preset
from imtok.cores import usable_cores
from imtok.devices import Precision, autocast, deterministic, resolve_device
from imtok.quantizer_config import VQConfig
from imtok.tokenizer import to_float
from imtok.training import TrainProgress, train
from imtok.training.resolve import resolve
from imtok.training.state import TrainState
from imtok.training.step import train_step

CASES = ["rotation-vq-f8", "cosine-vq-f8"]
EAGER = {"compile": False, "channels_last": False}
IMTOK: dict[str, dict[str, Any]] = {
    "imtok": {},
    "imtok-compiled": {"compile": True},
    "imtok-channels-last": {"channels_last": True},
    "imtok-fp32": {"precision": "fp32", **EAGER},
    "imtok-bf16": {"precision": "bf16", **EAGER},
}
BARE: dict[str, dict[str, Any]] = {"bare": {}, "bare-fp32": {"precision": "fp32", **EAGER}}
ROWS = ["peer", *IMTOK, *BARE]
LEARNING_RATE = 1e-4
FIRST_STEPS = 10  # in which the loss must fall
IN_USE = 0.1  # share of the codes that a batch could use, below which a codebook has collapsed

Statistics = dict[str, Any]


class Peer:
    """A training script with nothing of imtok but its networks."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        quantizer = config.tokenizer.quantizer
        assert isinstance(quantizer, VQConfig)
        self.device, self.clip_norm = device, config.optimizer.clip_norm
        self.encoder, self.decoder = config.tokenizer.network.build(quantizer.dim, quantizer.dim)
        self.quantizer = peer_quantizer(quantizer)
        self.model = nn.ModuleList([self.encoder, self.quantizer, self.decoder]).to(device).train()
        settings = config.optimizer
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), settings.learning_rate, settings.betas, weight_decay=settings.weight_decay
        )

    def step(self, batch: Tensor) -> None:
        images = batch.to(self.device, non_blocking=True).float() / 127.5 - 1
        latents, self.codes, quantizer_loss = self.quantizer(self.encoder(images))
        loss = F.mse_loss(self.decoder(latents), images) + quantizer_loss.sum()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.loss = loss.item()

    def statistics(self) -> Statistics:
        """Return the loss of the last step, and how many codes it used."""
        return {"loss": round(self.loss, 5), "codes": self.codes.unique().numel()}


def peer_quantizer(config: VQConfig) -> VectorQuantize:
    cosine = config.metric == "cosine"
    learnable = config.codebook_update == "gradient" and not cosine
    return VectorQuantize(
        config.dim,
        config.num_codes,
        decay=config.decay,
        eps=config.eps,
        commitment_weight=config.commitment_weight,
        kmeans_init=config.kmeans_start,
        use_cosine_sim=cosine,
        learnable_codebook=learnable,
        ema_update=not learnable,
        rotation_trick=config.estimator == "rotation",
        accept_image_fmap=True,
    )


class Imtok:
    """The step of `imtok train`."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.state = TrainState(config, device)

    def step(self, batch: Tensor) -> None:
        train_step(self.state, batch)

    def statistics(self) -> Statistics:
        """Return the loss since the last call, and how many codes were used."""
        metrics = self.state.metrics
        means = metrics.means()
        assert not means["skipped_steps"], "a loss or gradient was not finite"
        found = {"loss": round(means["loss"], 5), "codes": int((metrics.counts > 0).sum())}
        metrics.clear()
        return found


class Bare:
    """Encoder and decoder alone, arranged as for training."""

    def __init__(self, config: TrainConfig, device: torch.device, batch: Tensor) -> None:
        torch.manual_seed(config.seed)
        self.tokenizer = TrainState(config, device).tokenizer
        self.device = device
        self.precision: Precision = "bf16" if config.precision == "bf16" else "fp32"
        self.images = to_float(batch.to(device))
        self.gradient = self.images / self.images.numel()

    def step(self, batch: Tensor) -> None:  # noqa: ARG002  (nothing is copied to the device)
        with autocast(self.device, self.precision):
            reconstructions = self.tokenizer.decoder(self.tokenizer.encoder(self.images))
        reconstructions.backward(self.gradient.to(reconstructions.dtype))
        self.tokenizer.zero_grad()

    def statistics(self) -> Statistics:
        """Return nothing: nothing is learned."""
        return {}


Row = Peer | Imtok | Bare


def main() -> None:
    args = parse()
    device = resolve_device(args.device)
    torch.set_num_threads(args.threads)
    # Beyond the usual limit the networks of later rows would quietly run eager.
    with tempfile.TemporaryDirectory() as cache, torch._dynamo.config.patch(recompile_limit=64):
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache  # so that a first step is truly one
        results = {case: run(case, args, device) for case in args.case}
    report(results, device, args)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--case", nargs="+", default=CASES, help="presets, of kind vq")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of `imtok train`")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--crop", type=int, default=96)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=10, help="a round")
    parser.add_argument("--source", help="images for `imtok train` itself")
    parser.add_argument("--images", type=int, default=6000, help="training images it sees")
    return parser.parse_args()


def run(case: str, args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Measure one preset."""
    config = configuration(case, args)
    batches = pictures(args.steps, config.batch_size, config.data.crop, device)
    # No warm-up, so that the first steps learn, and slow, so that no codebook is left behind; it costs the same.
    steady = config.optimizer.model_copy(update={"learning_rate": LEARNING_RATE, "warmup": 0.0})
    steps = config.model_copy(update={"optimizer": steady})
    rows = {name: make_row(name, steps, device, batches[0]) for name in ROWS if name in args.rows}
    first = {name: first_steps(row, batches[0], device) for name, row in rows.items()}
    for name, found in first.items():
        check(name, found, config)
    speeds = measure(rows, batches, args.rounds, device)
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    resolved = ("batch_size", "precision", "compile", "channels_last")
    return {
        "images_per_second": {name: round(value, 3) for name, value in medians.items()},
        "spread": {name: [round(min(values), 3), round(max(values), 3)] for name, values in speeds.items()},
        "over_peer": quotients(medians, "peer"),
        "over_bare": quotients(medians, "bare"),
        "first_steps": first,
        "resolved": {name: getattr(config, name) for name in resolved},
        "training": train_on(args.source, config, args.images) if args.source else None,
    }


def configuration(case: str, args: argparse.Namespace) -> TrainConfig:
    """Lay the command line over a preset, and resolve it for this machine."""
    typed = {"batch_size": args.batch_size, "device": args.device, "threads": args.threads, "data": {"crop": args.crop}}
    values = merge(merge(preset(case), typed), parse_settings(args.set))
    config = resolve(load_train_config(values, case))
    if not comparable(config):
        sys.exit(f"{case}: the peer cannot be trained so; take a preset of vq, by ema or gradient, with l2 alone")
    return config


def comparable(config: TrainConfig) -> bool:
    """Tell whether the peer can be trained in this way."""
    quantizer, loss = config.tokenizer.quantizer, config.loss
    if not isinstance(quantizer, VQConfig) or quantizer.metric == "dot" or quantizer.entropy_weight > 0:
        return False
    only_l2 = (loss.l1, loss.l2, loss.perceptual) == (0, 1, 0) and not config.adversarial.enabled
    return only_l2 and quantizer.codebook_update in ("ema", "gradient") and not quantizer.online_clustering


def pictures(steps: int, batch_size: int, size: int, device: torch.device) -> list[Tensor]:
    """Make coloured clouds, (B, 3, S, S) uint8 for each step, in pinned memory for a GPU."""
    generator = torch.Generator().manual_seed(0)
    values = torch.full((steps * batch_size, 3, size, size), 127.5)
    for octave in range(5):  # the finer the weaker, as in photographs
        coarse = torch.randn(len(values), 3, 3 * 2**octave, 3 * 2**octave, generator=generator)
        values += 64 / 2**octave * F.interpolate(coarse, (size, size), mode="bicubic")
    batches = values.clamp(0, 255).to(torch.uint8)
    return list(torch.split(batches.pin_memory() if device.type == "cuda" else batches, batch_size))


def make_row(name: str, config: TrainConfig, device: torch.device, batch: Tensor) -> Row:
    if name == "peer":
        return Peer(config, device)
    if name in BARE:
        return Bare(config.model_copy(update=BARE[name]), device, batch)
    return Imtok(config.model_copy(update=IMTOK[name]), device)


def first_steps(row: Row, batch: Tensor, device: torch.device) -> Statistics:
    """Time the first step; return also the losses of the first and the last on one batch, and the codes in use then."""
    seconds, found = [], []
    for _ in range(FIRST_STEPS):
        seconds.append(timed(row, [batch], device))
        found.append(row.statistics())
    learned = found[-1] | {"loss": [found[0]["loss"], found[-1]["loss"]]} if found[-1] else {}
    return {"seconds": round(seconds[0], 3), **learned}


def check(name: str, found: Statistics, config: TrainConfig) -> None:
    """Check that training is timed: its loss falls, and its codebook has not collapsed."""
    if "loss" not in found:
        return
    assert found["loss"][-1] < found["loss"][0], f"{name} does not learn: {found}"
    tokens = config.batch_size * (config.data.crop // config.tokenizer.network.downsample) ** 2
    usable = min(tokens, config.tokenizer.quantizer.num_codes)
    assert found["codes"] >= IN_USE * usable, f"{name}: of {usable} codes {found['codes']} are in use"


def timed(row: Row, batches: list[Tensor], device: torch.device) -> float:
    """Time a step on each batch, in seconds, under the settings a row has outside of this script."""
    with nullcontext() if isinstance(row, Peer) else deterministic(device):
        synchronize(device)
        started = time.perf_counter()
        for batch in batches:
            row.step(batch)
        synchronize(device)
        return time.perf_counter() - started


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(rows: dict[str, Row], batches: list[Tensor], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Measure images per second of each row, one value a round; one round before that warms up."""
    images = sum(map(len, batches))
    speeds: dict[str, list[float]] = {name: [] for name in rows}
    for number in range(rounds + 1):
        for name, row in rows.items():
            seconds = timed(row, batches, device)
            if number:
                speeds[name].append(images / seconds)
    return speeds


def quotients(medians: dict[str, float], base: str) -> dict[str, float]:
    if base not in medians:
        return {}
    return {name: round(value / medians[base], 4) for name, value in medians.items() if name != base}


def train_on(source: str, config: TrainConfig, images: int) -> dict[str, float]:
    """Run `imtok train` on real images; return the speed that it reports, and the median over the lines of its log."""
    rates: list[float] = []

    def listen(progress: TrainProgress) -> None:
        if progress.metrics is not None:
            rates.append(progress.images_per_second)

    whole = {"images": images, "validate_every": images, "checkpoint_every": images}
    with tempfile.TemporaryDirectory() as scratch:
        found = train([source], Path(scratch) / "run", config.model_copy(update=whole), progress=listen)
    return {
        "images_per_second": round(found.images_per_second, 3),
        "median_of_log": round(statistics.median(rates), 3),
        "data_wait": round(found.data_wait, 5),
    }


def report(results: dict[str, dict[str, Any]], device: torch.device, args: argparse.Namespace) -> None:
    for case, result in results.items():
        print_table(case, result)
    result = {
        "benchmark": "train_throughput",
        "cases": results,
        **machine(device, "vector-quantize-pytorch"),
        "settings": vars(args) | {"source": args.source and Path(args.source).name},
    }
    print(json.dumps(result))


def print_table(case: str, result: dict[str, Any]) -> None:
    print(f"{case}, " + ", ".join(f"{name} {value}" for name, value in result["resolved"].items()))
    print("| row | images/s | spread | over peer | over bare | first step |\n|---|---|---|---|---|---|")
    for name, speed in result["images_per_second"].items():
        low, high = result["spread"][name]
        over = " | ".join(f"{result[base].get(name, '–')}" for base in ("over_peer", "over_bare"))
        seconds = result["first_steps"][name]["seconds"]
        print(f"| {name} | {speed:.1f} | {low:.1f} to {high:.1f} | {over} | {seconds:.2f} s |")
    if training := result["training"]:
        print(
            f"`imtok train`: {training['images_per_second']:.1f} images/s, {training['median_of_log']:.1f} at the "
            f"median of its log, {training['data_wait']:.2%} of the time waiting for images"
        )


if __name__ == "__main__":
    main()
