"""The simultaneous update against separate forwards: time and memory of the discriminator's part of a training step.

Each row goes through the same batches as a training step does: the generator's gradient at the reconstructions, then
the discriminator's gradients. In units of a forward pass, with a backward to inputs and one to weights of a unit each:

    separate        a forward on reconstructions for each player, and one on images: 3 + 3 + 2 = 8
    two backwards   one forward on reconstructions for both, two backwards through it: 2 + 3 + 2 = 7
    one backward    the generator's gradient is the discriminator's at the reconstructions, rescaled: 2 + 2 + 2 = 6

The convolutions set the time. The loss decides between the last two: hinge with untrained logits has a factor at all of
them (one backward), the original GAN's has none on maps of logits (two). StyleGAN's one logit has a factor with every
loss, so that its two backwards are forced here. Before anything is timed, all gradients are compared with those of the
separate update.

Memory is what the graphs keep for their backward passes at the highest, parameters left out: `step` over the whole part
of the step, `generator` up to the generator's gradient, when the tokenizer's own graph is in memory beside it.

Rounds are interleaved, so that a drift of the machine meets all rows alike; a ratio is the median of the rounds' own
ratios. Run nothing else meanwhile.

    python benchmarks/simultaneous_update.py                    # on a GPU where there is one
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from machine import machine
from torch import Tensor

from imtok.config.training import AdversarialConfig, DiscriminatorConfig
from imtok.cores import usable_cores
from imtok.devices import Precision, deterministic, resolve_device
from imtok.training import simultaneous
from imtok.training.adversarial import Adversary

ROWS = ["separate", "two backwards", "one backward"]
DISCRIMINATORS = {
    "patchgan": DiscriminatorConfig(channels=32, layers=3),
    "maskbit": DiscriminatorConfig(kind="maskbit", channels=32, layers=3),
    "stylegan": DiscriminatorConfig(kind="stylegan", channels=64),
}
ROUNDING = {"fp32": 2e-5, "bf16": 0.05}  # of the greatest gradient of a tensor


@dataclass
class Row:
    """One way of updating both players, on a discriminator of its own."""

    name: str
    adversary: Adversary
    images: Tensor
    reconstructions: Tensor
    seconds: list[float] = field(default_factory=list)

    def turn(self, between: Callable[[], Any] = lambda: None) -> list[Tensor]:
        """Return the gradients at the reconstructions and of the weights; `between` is called between the players."""
        output = self.reconstructions.clone().requires_grad_()
        with self._backwards():
            found = self.adversary.generator_loss(self.images, output, output, output.detach(), output, 1.0, 1.0)
        between()
        self.adversary.accumulate_gradients(self.images, output.detach(), 1.0, found.shared)
        fake = found.shared.fake
        taken = ROWS[0] if fake is None else ROWS[1] if fake.requires_grad else ROWS[2]
        assert taken == self.name, f"{self.name}: {taken} was taken"
        gradients = [found.gradient, *(weight.grad for weight in self.adversary.optimizer.parameters)]
        self.adversary.optimizer.adamw.zero_grad()
        return gradients

    @contextmanager
    def _backwards(self) -> Iterator[None]:
        """Force the way of this row, where the losses have a factor."""
        if self.name == ROWS[1]:
            with patch.object(simultaneous, "proportion", lambda *_, **__: None):
                yield
        else:
            yield


class Kept:
    """Counts the bytes that graphs keep for their backward passes; a storage kept twice counts once."""

    def __init__(self, parameters: list[Tensor]) -> None:
        self.own = {parameter.untyped_storage().data_ptr() for parameter in parameters}
        self.uses: Counter[int] = Counter()
        self.now = self.highest = 0

    @contextmanager
    def counting(self) -> Iterator[None]:
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: Holder(self, tensor), lambda holder: holder.tensor
        ):
            yield

    def add(self, tensor: Tensor, sign: int) -> None:
        storage = tensor.untyped_storage()
        place = storage.data_ptr()
        if place in self.own:
            return
        before = self.uses[place]
        self.uses[place] += sign
        if 0 in (before, self.uses[place]):
            self.now += sign * storage.nbytes()
        self.highest = max(self.highest, self.now)


class Holder:
    """A tensor that a graph keeps, counted until the graph lets go of it."""

    def __init__(self, kept: Kept, tensor: Tensor) -> None:
        # Without its graph, or an output that its own graph keeps would never be let go of.
        self.kept, self.tensor = kept, tensor.detach()
        kept.add(tensor, 1)

    def __del__(self) -> None:
        self.kept.add(self.tensor, -1)


def main() -> None:
    args = parse()
    device = resolve_device(args.device)
    torch.set_num_threads(args.threads)
    with deterministic(device):
        results = {kind: run(kind, args, device) for kind in args.kinds}
    for kind, result in results.items():
        print_table(kind, result)
    print(
        json.dumps(
            {"benchmark": "simultaneous_update", "discriminators": results, **machine(device), "settings": vars(args)}
        )
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=DISCRIMINATORS, default=list(DISCRIMINATORS))
    parser.add_argument("--size", type=int, default=64, help="side of the crops")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--rounds", type=int, default=9)
    return parser.parse_args()


def run(kind: str, args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Measure one discriminator."""
    rows = [make_row(name, kind, args, device) for name in ROWS]
    check(rows, args.precision)
    for _ in range(args.rounds):
        for row in rows:
            row.seconds.append(timed(row, device))
    memory = {row.name: kept_bytes(row) for row in rows}
    first = rows[0].seconds
    return {
        row.name: {
            "milliseconds": round(1000 * statistics.median(row.seconds), 2),
            "over_separate": round(statistics.median(a / b for a, b in zip(row.seconds, first, strict=True)), 3),
            **{f"{part}_megabytes": round(value / 2**20, 2) for part, value in memory[row.name].items()},
        }
        for row in rows
    }


def make_row(name: str, kind: str, args: argparse.Namespace, device: torch.device) -> Row:
    torch.manual_seed(0)
    update = "separate" if name == ROWS[0] else "simultaneous"
    config = AdversarialConfig(
        weight=1, start=0, warmup=0, ramp=0, update=update, discriminator=DISCRIMINATORS[kind], lecam=0
    )
    precision: Precision = args.precision
    adversary = Adversary(config, args.size, device, precision)
    generator = torch.Generator().manual_seed(1)
    images, noise = (torch.randn(args.batch_size, 3, args.size, args.size, generator=generator) for _ in range(2))
    images = images.tanh().to(device)
    return Row(name, adversary, images, images + 0.1 * noise.to(device))


def check(rows: list[Row], precision: str) -> None:
    """Compare all gradients with those of the separate update."""
    expected, *others = [row.turn() for row in rows]
    for row, found in zip(rows[1:], others, strict=True):
        for a, b in zip(expected, found, strict=True):
            error = float((a - b).abs().max())
            assert error <= ROUNDING[precision] * float(a.abs().max()), f"{row.name}: gradients differ by {error}"


def timed(row: Row, device: torch.device) -> float:
    """Time one turn, in seconds."""
    synchronize(device)
    start = time.perf_counter()
    row.turn()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def kept_bytes(row: Row) -> dict[str, int]:
    """Count what graphs keep: at the highest in the turn, until the generator has its gradient, and just after it."""
    kept = Kept(row.adversary.optimizer.parameters)
    found = {}

    def between() -> None:
        found.update(generator=kept.highest, between=kept.now)

    with kept.counting():
        row.turn(between)
    return {"step": kept.highest, **found}


def print_table(kind: str, result: dict[str, dict[str, float]]) -> None:
    print(f"{kind}\n| update | ms | over separate | kept at most, MB | for the generator | after it |")
    print("|---|---|---|---|---|---|")
    for name, row in result.items():
        memory = " | ".join(f"{row[f'{part}_megabytes']:.1f}" for part in ("step", "generator", "between"))
        print(f"| {name} | {row['milliseconds']:.1f} | {row['over_separate']:.2f} | {memory} |")


if __name__ == "__main__":
    main()
