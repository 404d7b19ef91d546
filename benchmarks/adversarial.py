"""The adversarial losses, penalties and critics in short runs on small pictures, beside the same run without any.

Networks, images, order, seed, optimizer, number of images and the share of the adversarial gradient are the same in
all rows: an adaptive weight brings each generator's gradient to the same length at the last decoder layer. Measured on
all images held out, after the last step, without an average of the weights:

    PSNR, SSIM  as `imtok eval`
    detail      mean absolute difference of neighbouring pixels, over that of the images: 1 is as sharp as they are
    accuracy    of the discriminator on training images, mean of the last tenth of its steps; P(D(x) > D(x')) where its
                loss has no border
    s a step    median over the steps in which both sides learn, those of the discriminator alone left out
    stable      no step was skipped, and the PSNR at the end is at most 1 dB below the best of the run

A run of some hundred steps tells whether a method works and is stable, not what it reaches in the end. A finished row
is a line of the results file and is not made again. `--timing` measures seconds a step alone, rows in turn, so that a
drift of the machine meets all alike.

    python benchmarks/adversarial.py ../shared/data/cifar10 --curves curves/
    python benchmarks/adversarial.py ../shared/data/cifar10 --timing
    python benchmarks/adversarial.py --table benchmarks/results/adversarial_family_<machine>.jsonl --curves curves/
"""

# Axes: B batch, S side.

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from machine import machine
from quantizer_study import append, finished, markdown
from torch import Tensor

from imtok.config import TrainConfig, load_train_config, merge, parse_settings
from imtok.data.collection import ImageCollection
from imtok.data.images import decode_image, fit_image
from imtok.devices import autocast, deterministic, resolve_device
from imtok.errors import ImtokError
from imtok.evaluation import psnr, ssim
from imtok.tokenizer import to_float, to_uint8
from imtok.training.resolve import resolve
from imtok.training.state import TrainState
from imtok.training.step import train_step

BASE = [
    "tokenizer.size=32",
    "tokenizer.network={patch_size: 2, channels: [16, 32]}",
    "tokenizer.quantizer={kind: fsq, levels: [8, 5, 5, 5]}",
    "data.crop=32",
    "loss={l1: 1, l2: 0}",
    "optimizer={learning_rate: 0.001, betas: [0.5, 0.99]}",
    "ema_decay=0",
    "adversarial.start=0.25",
    "adversarial.warmup=0.1",
    "adversarial.adaptive=true",
    "adversarial.discriminator={kind: patchgan, channels: 16, layers: 2}",
    "adversarial.learning_rate=0.0005",
]
GP = "adversarial.penalty={weight: 10, center: 1, at: interpolates}"
SPECTRAL = "adversarial.discriminator={kind: patchgan, channels: 16, layers: 2, spectral_norm: true, norm: none}"


def zero_centred(at: str) -> list[str]:
    return [f"adversarial.penalty={{weight: 10, center: 0, at: {at}}}"]


def gan_qp(pairing: str, distance: str) -> list[str]:
    return ["adversarial.loss=gan_qp", f"adversarial.gan_qp={{pairing: {pairing}, distance: {distance}}}"]


ROWS: dict[str, tuple[str, list[str]]] = {
    "none": ("no discriminator", ["adversarial.weight=0"]),
    "hinge": ("hinge", []),
    "non-saturating": ("non-saturating", ["adversarial.loss=non_saturating"]),
    "saturating": ("saturating", ["adversarial.loss=saturating"]),
    "least-squares": ("least squares", ["adversarial.loss=least_squares"]),
    "wasserstein-gp": ("Wasserstein, gradient penalty", ["adversarial.loss=wasserstein", GP]),
    "wasserstein-gp-3": (
        "Wasserstein, gradient penalty, 3 critic steps",
        ["adversarial.loss=wasserstein", GP, "adversarial.critic_steps=3"],
    ),
    "wasserstein-spectral": ("Wasserstein, spectral norm", ["adversarial.loss=wasserstein", SPECTRAL]),
    "gan-qp-own-l1": ("GAN-QP, own pairs, L1", gan_qp("own", "l1")),
    "gan-qp-own-l2": ("GAN-QP, own pairs, L2", gan_qp("own", "l2")),
    "gan-qp-independent-l1": ("GAN-QP, independent pairs, L1", gan_qp("independent", "l1")),
    "gan-qp-independent-l2": ("GAN-QP, independent pairs, L2", gan_qp("independent", "l2")),
    "zero-images": ("hinge, slopes at images", zero_centred("images")),
    "zero-reconstructions": ("hinge, slopes at reconstructions", zero_centred("reconstructions")),
    "zero-both": ("hinge, slopes at both", zero_centred("both")),
    "zero-interpolates": ("hinge, slopes at interpolates", zero_centred("interpolates")),
}
CURVES = {  # panels of a row's picture, by the metrics they show
    "losses": ("loss/l1", "adversarial/generator", "adversarial/discriminator"),
    "logits": ("adversarial/logits_real", "adversarial/logits_fake"),
    "accuracy": ("adversarial/accuracy",),
    "PSNR": ("psnr",),
    "detail": ("detail",),
}

Numbers = dict[str, float]


# --- one run


def load_images(source: Path, name: str, count: int) -> Tensor:
    """Return `count` images, evenly taken from the tars of a name: (N, 3, S, S) uint8."""
    try:
        images = ImageCollection.open(sorted(source.glob(f"{name}-*.tar")) or [source / f"{name}-*.tar"])
        return torch.stack([fit_image(decode_image(data), 32).pixels for _, data in images.subsample(count)])
    except ImtokError as error:
        sys.exit(str(error))


def config_of(row: str, args: argparse.Namespace) -> TrainConfig:
    length = [f"images={args.steps * args.batch_size}", f"batch_size={args.batch_size}", f"seed={args.seed}"]
    common = [f"threads={args.threads}", "precision=fp32", f"device={args.device}", f"adversarial.weight={args.weight}"]
    settings = [*BASE, *common, *length, *ROWS[row][1]]
    layers = [parse_settings([setting]) for setting in settings]
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = merge(merged, layer)
    return resolve(load_train_config(merged))


def batches(images: Tensor, config: TrainConfig) -> Iterator[Tensor]:
    """Yield (B, 3, S, S) uint8 without an end, each epoch in an order of its own, half of the images mirrored."""
    random = torch.Generator().manual_seed(config.seed)
    order = torch.empty(0, dtype=torch.int64)
    while True:
        while len(order) < config.batch_size:
            order = torch.cat([order, torch.randperm(len(images), generator=random)])
        batch, order = images[order[: config.batch_size]], order[config.batch_size :]
        yield torch.where(torch.rand(len(batch), 1, 1, 1, generator=random) < 0.5, batch.flip(3), batch)


def run(config: TrainConfig, images: Tensor, held_out: Tensor) -> dict[str, Any]:
    """Train and measure one row; return its figures and its curves."""
    torch.manual_seed(config.seed)
    device = resolve_device(config.device)
    curves: dict[str, list[tuple[int, float]]] = {}
    step_seconds: list[float] = []
    with deterministic(device):
        state = TrainState(config, device)
        source, every = batches(images, config), max(1, config.images // config.batch_size // 20)
        for number in range(1, config.images // config.batch_size + 1):
            batch, steps, active = next(source), state.steps, _active(state)
            started = time.perf_counter()
            train_step(state, batch)
            if active and state.steps > steps:
                step_seconds.append(time.perf_counter() - started)
            if number % every == 0:
                for name, value in state.metrics.means().items():
                    curves.setdefault(name, []).append((number, value))
                state.metrics.clear()
                for name, value in measure(state, held_out[:128]).items():
                    curves.setdefault(name, []).append((number, value))
        final = measure(state, held_out)
    accuracy = [value for _, value in curves.get("adversarial/accuracy", [])]
    skipped = int(state.skipped.all)
    best = max(value for _, value in curves["psnr"])
    numbers = [value for curve in curves.values() for _, value in curve]
    return {
        **final,
        "accuracy": statistics.mean(accuracy[-max(1, len(accuracy) // 10) :]) if accuracy else None,
        "seconds_a_step": statistics.median(step_seconds),
        "skipped_steps": skipped,
        "stable": skipped == 0 and curves["psnr"][-1][1] > best - 1 and all(map(math.isfinite, numbers)),
        "curves": {name: curves[name] for names in CURVES.values() for name in names if name in curves},
    }


def _active(state: TrainState) -> bool:
    """Tell whether the next step has both sides learn; every step of a row without a discriminator counts."""
    return state.adversary is None or state.adversary.weight(state.progress) > 0


@torch.no_grad()
def measure(state: TrainState, images: Tensor) -> Numbers:
    """Return the metrics of reconstructions of images (N, 3, S, S) uint8."""
    state.tokenizer.eval()
    found: dict[str, list[Tensor]] = {"psnr": [], "ssim": [], "detail": []}
    for batch in images.split(256):
        with autocast(state.device, "fp32"):
            output, _ = state.tokenizer(to_float(batch.to(state.device)))
        restored = to_uint8(output).cpu()
        found["psnr"].append(psnr(restored, batch))
        found["ssim"].append(ssim(restored, batch))
        found["detail"].append(torch.stack([_detail(restored), _detail(batch)]))
    state.tokenizer.train()
    reconstructed, original = torch.stack(found.pop("detail")).sum(dim=0).tolist()
    return {name: float(torch.cat(values).mean()) for name, values in found.items()} | {
        "detail": reconstructed / original
    }


def _detail(images: Tensor) -> Tensor:
    pixels = images.float()
    return pixels.diff(dim=2).abs().sum() + pixels.diff(dim=3).abs().sum()


# --- seconds a step


def timing(rows: Sequence[str], images: Tensor, args: argparse.Namespace) -> dict[str, float]:
    """Return the median seconds of a step in which both sides learn, by row; the rows take steps in turn."""
    states, seconds = {}, {row: [] for row in rows}  # type: dict[str, TrainState], dict[str, list[float]]
    for row in rows:
        config = config_of(row, args)
        adversarial = config.adversarial.model_copy(update={"start": 0.0, "warmup": 0.0, "ramp": 0.0})
        torch.manual_seed(config.seed)
        states[row] = TrainState(config.model_copy(update={"adversarial": adversarial}), resolve_device(config.device))
    source = batches(images, next(iter(states.values())).config)
    for turn in range(args.rounds + 3):
        batch = next(source)
        for row, state in states.items():
            while state.adversary and state.adversary.steps_alone(state.progress):
                train_step(state, batch)
            started = time.perf_counter()
            train_step(state, batch)
            if state.device.type == "cuda":
                torch.cuda.synchronize()
            if turn >= 3:  # the first ones warm up
                seconds[row].append(time.perf_counter() - started)
    return {row: statistics.median(each) for row, each in seconds.items()}


# --- the study


def main() -> None:
    args = parse()
    if args.table:
        lines = finished(args.table)
        print(table(lines))
        draw(lines, args.curves)
        return
    torch.set_num_threads(args.threads)
    images, held_out = (
        load_images(args.source, name, count) for name, count in (("train", args.images), ("val", args.held_out))
    )
    if args.timing:
        found = timing(args.rows, images, args)
        base = found.get("hinge")
        columns = ["", "seconds a step", "over hinge"]
        cells = [[ROWS[row][0], f"{each:.4f}", f"{each / base:.2f}" if base else ""] for row, each in found.items()]
        print(markdown(columns, cells))
        print(json.dumps({"benchmark": "adversarial", "seconds_a_step": found, **circumstances(args)}))
        return
    done = {line["row"] for line in finished(args.results) if line["settings"] == settings(args)}
    for row in args.rows:
        if row not in done:
            line = {"row": row, **run(config_of(row, args), images, held_out), **circumstances(args)}
            append(args.results, line)
            print(f"{row}: {brief(line)}", file=sys.stderr, flush=True)
    lines = [line for line in finished(args.results) if line["settings"] == settings(args)]
    print(table(lines))
    draw(lines, args.curves)
    print(json.dumps({"benchmark": "adversarial", "figures": {each["row"]: brief(each) for each in lines}}))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).resolve().parents[2] / "shared/data/cifar10"
    parser.add_argument("source", nargs="?", type=Path, default=default, help="a folder with train-*.tar and val-*.tar")
    parser.add_argument("--results", type=Path, default=Path("adversarial.jsonl"), help="a line a finished row")
    parser.add_argument(
        "--table", type=Path, metavar="FILE", help="print the table of these results and do nothing else"
    )
    parser.add_argument("--curves", type=Path, metavar="DIR", help="draw the curves of each row into this folder")
    parser.add_argument("--timing", action="store_true", help="measure seconds a step alone, rows in turn")
    parser.add_argument("--rounds", type=int, default=20, help="of --timing")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--steps", type=int, default=300, help="batches of training images in a run")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--images", type=int, default=2000, help="for training")
    parser.add_argument("--held-out", type=int, default=500, help="images measured at the end")
    parser.add_argument("--weight", type=float, default=0.8, help="of the generator's loss, beside its adaptive weight")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def settings(args: argparse.Namespace) -> dict[str, Any]:
    names = ("steps", "batch_size", "images", "held_out", "weight", "seed", "threads")
    return {"data": args.source.resolve().name, "base": BASE, **{name: getattr(args, name) for name in names}}


def circumstances(args: argparse.Namespace) -> dict[str, Any]:
    return {"settings": settings(args), **machine(resolve_device(args.device))}


# --- for people


def brief(line: dict[str, Any]) -> dict[str, Any]:
    names = ("psnr", "ssim", "detail", "accuracy", "seconds_a_step")
    return {name: line[name] and float(f"{line[name]:.4g}") for name in names} | {"stable": line["stable"]}


def table(lines: list[dict[str, Any]]) -> str:
    """Markdown, in the order of `ROWS`."""
    if not lines:
        return "no row is finished yet"
    found = {line["row"]: line for line in lines}
    columns = ["", "PSNR, dB", "SSIM", "detail", "accuracy", "s a step", "stable"]
    rows = []
    for row in (row for row in ROWS if row in found):
        line = found[row]
        accuracy = "" if line["accuracy"] is None else f"{line['accuracy']:.2f}"
        figures = [f"{line['psnr']:.2f}", f"{line['ssim']:.3f}", f"{line['detail']:.3f}", accuracy]
        rows.append([ROWS[row][0], *figures, f"{line['seconds_a_step']:.3f}", "yes" if line["stable"] else "no"])
    common = lines[0]["settings"]
    protocol = (
        f"{common['data']}: {common['steps']} batches of {common['batch_size']} from {common['images']:,} images, "
        f"{common['held_out']:,} held out, "
        f"weight {common['weight']:g}, seed {common['seed']}; {lines[0]['device']}."
    )
    return f"{protocol}\n\n{markdown(columns, rows)}"


def draw(lines: list[dict[str, Any]], folder: Path | None) -> None:
    """Draw a picture of each row's curves, and one of all rows together."""
    if folder is None:
        return
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    for line in lines:
        figure, panels = plt.subplots(1, len(CURVES), figsize=(3.4 * len(CURVES), 2.8), layout="constrained")
        for panel, (title, names) in zip(panels, CURVES.items(), strict=True):
            for name in names:
                if name in line["curves"]:
                    panel.plot(*zip(*line["curves"][name], strict=True), label=name.rpartition("/")[2])
            panel.set_title(title)
            if len(panel.lines) > 1:
                panel.legend(fontsize="small")
        figure.suptitle(ROWS[line["row"]][0])
        figure.savefig(folder / f"{line['row']}.png", dpi=80)
        plt.close(figure)
    figure, panels = plt.subplots(1, 3, figsize=(16, 5.5), layout="constrained")
    for panel, name in zip(panels, ("psnr", "detail", "adversarial/accuracy"), strict=True):
        for number, line in enumerate(lines):
            if name in line["curves"]:
                style, colour = ("-", "--", ":")[number // 10 % 3], f"C{number % 10}"
                panel.plot(*zip(*line["curves"][name], strict=True), style, color=colour, label=ROWS[line["row"]][0])
        panel.set_title(name.rpartition("/")[2])
    panels[0].legend(fontsize="x-small")
    figure.savefig(folder / "all.png", dpi=80)
    plt.close(figure)


if __name__ == "__main__":
    main()
