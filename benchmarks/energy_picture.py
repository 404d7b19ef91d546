"""A picture of adversarial training as an energy landscape: a GAN in the plane, with and without a penalty.

The energy of a point is minus its logit. The data are eight clusters on a circle. Two small networks train twice from
the same weights on the same data: with the hinge loss alone, and with a zero-centred penalty on the slopes at data and
at samples. After that the discriminator stands still, and points go down its energy as samples of a generator do:
against the slope, in steps of one length for both. Without a penalty the slopes are so steep that the points leap over
the pits; with it they walk in.

    python benchmarks/energy_picture.py docs/images/energy.png

It takes half a minute on one core. The last line is JSON: median slope, and median distance of the ends of the paths
from the circle. The same machine draws the same picture; on another one the last digits of sums differ, and so may the
picture.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from imtok.losses import discriminator_loss, generator_loss, gradient_penalty
from imtok.report.style import BLUE, HEAT, INK, ORANGE, WIDE, plot_style

CLUSTERS, SPREAD = 8, 0.05  # on the circle of radius 1
SIDE, POINTS = 2.0, 161  # half a side of the picture, and points a side at which the energy is computed
SAMPLES = "#ff8c1a"  # brighter than the orange of lines, to be seen on the map
BATCH, CRITIC_STEPS = 128, 2
RATES = {"discriminator": 1e-3, "generator": 1e-4}
STRIDE, STRIDES = 0.05, 30  # of a path: how far a point goes for a slope of 1, and how often
STARTS = ((8, 1.8), (4, 0.15))  # starts of paths: how many on a circle of which radius


@dataclass(frozen=True)
class Landscape:
    """What a trained pair of networks looks like."""

    energy: Tensor  # (POINTS, POINTS), rows from low to high y
    slopes: Tensor  # (POINTS, POINTS)
    samples: Tensor  # (N, 2)
    paths: Tensor  # (STRIDES + 1, M, 2)

    def statistics(self) -> dict[str, float]:
        """Return the median slope, and the median distance of the ends of the paths from the circle."""
        distances = (self.paths[-1].norm(dim=1) - 1).abs()
        return {
            "median_slope": round(float(self.slopes.median()), 3),
            "median_distance": round(float(distances.nan_to_num(math.inf).median()), 3),
        }


def main() -> None:
    args = parse()
    torch.set_num_threads(1)
    landscapes = {f"{weight:g}": landscape(*train(weight, args.steps)) for weight in (0.0, args.penalty)}
    save(picture(list(landscapes.values()), args.penalty), args.output)
    statistics = {weight: each.statistics() for weight, each in landscapes.items()}
    settings = {"steps": args.steps, "penalty": args.penalty, "output": args.output.name}
    print(
        json.dumps({"benchmark": "energy_picture", "by_penalty": statistics, **machine_facts(), "settings": settings})
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path, help="the PNG")
    parser.add_argument("--steps", type=int, default=500, help="of the generator")
    parser.add_argument("--penalty", type=float, default=0.05, help="weight of the second training's penalty")
    return parser.parse_args()


def machine_facts() -> dict[str, Any]:
    return machine(torch.device("cpu"))


def data(count: int, generator: torch.Generator) -> Tensor:
    """Draw points of the clusters, (count, 2)."""
    angles = torch.randint(CLUSTERS, (count,), generator=generator) * (2 * math.pi / CLUSTERS)
    return circle(angles) + SPREAD * torch.randn(count, 2, generator=generator)


def circle(angles: Tensor) -> Tensor:
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def network(outputs: int, width: int = 64) -> nn.Module:
    layers = [nn.Linear(2, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def train(penalty: float, steps: int) -> tuple[nn.Module, nn.Module]:
    """Train a discriminator and a generator in the plane; the penalty has this weight."""
    torch.manual_seed(0)
    draws = torch.Generator().manual_seed(1)
    discriminator, generator = network(1), network(2)
    critic = torch.optim.Adam(discriminator.parameters(), RATES["discriminator"], (0.5, 0.9))
    maker = torch.optim.Adam(generator.parameters(), RATES["generator"], (0.5, 0.9))
    for _ in range(steps):
        for _ in range(CRITIC_STEPS):
            points = [data(BATCH, draws), generator(torch.randn(BATCH, 2, generator=draws)).detach()]
            leaves = [each.requires_grad_() for each in points]
            real, fake = (discriminator(leaf) for leaf in leaves)
            loss = discriminator_loss("hinge", real, fake)
            if penalty > 0:
                slopes = [gradient_penalty(logits, leaf) for logits, leaf in zip((real, fake), leaves, strict=True)]
                loss = loss + penalty * sum(slopes)
            step(critic, loss)
        step(maker, generator_loss("hinge", discriminator(generator(torch.randn(BATCH, 2, generator=draws)))))
    return discriminator, generator


def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def landscape(discriminator: nn.Module, generator: nn.Module) -> Landscape:
    line = torch.linspace(-SIDE, SIDE, POINTS)
    y, x = torch.meshgrid(line, line, indexing="ij")
    energy, slopes = energies(discriminator, torch.stack([x.flatten(), y.flatten()], dim=1))
    with torch.no_grad():
        samples = generator(torch.randn(200, 2, generator=torch.Generator().manual_seed(2)))
    starts = [radius * circle(torch.arange(count) * (2 * math.pi / count) + 0.2) for count, radius in STARTS]
    paths = [torch.cat(starts)]
    for _ in range(STRIDES):
        paths.append(paths[-1] - STRIDE * energies(discriminator, paths[-1])[1])
    shape = (POINTS, POINTS)
    return Landscape(energy.view(shape), slopes.norm(dim=1).view(shape), samples, torch.stack(paths))


def energies(discriminator: nn.Module, points: Tensor) -> tuple[Tensor, Tensor]:
    """Return the energy at points (N, 2), and its gradient there: (N,), (N, 2)."""
    leaf = points.detach().clone().requires_grad_()
    energy = -discriminator(leaf).squeeze(1)
    return energy.detach(), torch.autograd.grad(energy.sum(), leaf)[0]


def picture(landscapes: list[Landscape], penalty: float) -> Figure:
    titles = ("without a penalty", f"zero-centred penalty of weight {penalty:g}")
    with plot_style():
        figure = Figure(figsize=(WIDE / 72, 8.3), layout="constrained")
        grid = figure.add_gridspec(2, 2, height_ratios=(2.3, 1))
        for column, (each, title) in enumerate(zip(landscapes, titles, strict=True)):
            axes = figure.add_subplot(grid[0, column])
            draw_map(axes, each, f"{title}: median slope {each.slopes.median():.2g}")
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=3, facecolor="#a9b8c4", frameon=True)
        draw_profiles(figure.add_subplot(grid[1, :]), landscapes, titles)
        return figure


def save(figure: Figure, path: Path) -> None:
    """Write a PNG of few colours, which is a third of the size."""
    with plot_style():
        figure.set_facecolor("white")
        figure.canvas = FigureCanvasAgg(figure)
        figure.canvas.draw()
        image = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])
    image.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def draw_map(axes: Axes, each: Landscape, title: str) -> None:
    """Draw energy, data, samples and paths from above."""
    axes.imshow(
        each.energy.numpy(), cmap=HEAT, extent=(-SIDE, SIDE, -SIDE, SIDE), origin="lower", interpolation="bilinear"
    )
    line = torch.linspace(-SIDE, SIDE, POINTS).numpy()
    axes.contour(line, line, each.energy.numpy(), levels=12, colors="white", linewidths=0.5, alpha=0.5)
    axes.plot(*each.samples.T.numpy(), "o", color=SAMPLES, markersize=3, label="samples of the generator")
    axes.plot(*data(160, torch.Generator().manual_seed(3)).T.numpy(), "o", color="white", markersize=3, label="data")
    for number, path in enumerate(each.paths.unbind(dim=1)):
        label = "ways down, from the dot" if number == 0 else None
        axes.plot(*path.T.numpy(), "-o", color=INK, linewidth=0.8, markersize=4, markevery=[0], label=label)
    axes.set(xlim=(-SIDE, SIDE), ylim=(-SIDE, SIDE), xticks=[], yticks=[], title=title, aspect="equal")
    axes.grid(visible=False)


def draw_profiles(axes: Axes, landscapes: list[Landscape], titles: tuple[str, ...]) -> None:
    """Draw the energies along the horizontal line through the middle, which passes two clusters."""
    line = torch.linspace(-SIDE, SIDE, POINTS).numpy()
    for each, title, colour in zip(landscapes, titles, (ORANGE, BLUE), strict=True):
        axes.plot(line, each.energy[POINTS // 2].numpy(), color=colour, label=title)
    for place in (-1, 1):
        axes.axvline(place, color=INK, linewidth=1, linestyle=":")
    axes.set(title="energy along the horizontal line through the middle; dotted: two of the clusters")
    axes.set(xlim=(-SIDE, SIDE), xticks=range(-2, 3))
    axes.legend(frameon=False, fontsize=12, loc="upper right")


if __name__ == "__main__":
    main()
