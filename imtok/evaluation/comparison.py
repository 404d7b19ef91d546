"""The images of an evaluation that come back worst, in the middle and best, by PSNR, as a folder for a person.

    index.html                          the images beside each other, with their names and PSNR
    index.json                          the same facts for a program
    originals/worst-01.png              what was encoded, after resizing and cropping
    reconstructions/worst-01.png
    differences/worst-01.png            grey where both are equal, brighter where the reconstruction is; amplified

The middle images are near the median of PSNR: only some images are kept while the others pass.
"""

# Axes: B batch, N images, S side of the square.

from __future__ import annotations

import html
import io
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from imtok.data.images import to_picture
from imtok.errors import ConfigError, disk_errors
from imtok.evaluation.outputs import Output, UnitOutput
from imtok.evaluation.pixels import psnr
from imtok.files import write_atomically

AMPLIFICATION = 4  # of differences, in the pictures
_SHOWN = 8  # images of each group
_KEPT = 12  # times as many are in memory: some of those that pass may turn out to be in the middle
_GROUPS = ("worst", "middle", "best")
_KINDS = ("originals", "reconstructions", "differences")
_SMALLEST = 128  # pixels of a picture on the page


@dataclass(frozen=True)
class Pair:
    """An image and its reconstruction."""

    name: str
    psnr: float  # dB, infinite where both are equal
    original: Tensor  # (3, S, S) uint8
    restored: Tensor  # (3, S, S) uint8


class Comparison(Output):
    """The worst, middle and best images of an evaluation, as a folder."""

    suffix = ".npz"

    def __init__(self, target: Path, title: str, *, identity: str = "", shown: int = _SHOWN) -> None:
        """Take the folder to write, a line that says what is compared, and the number of images of each group.

        Raises ConfigError where the folder holds files that are no comparison.
        """
        super().__init__(target, identity)
        self._title, self._shown = title, shown
        if target.exists() and not target.is_dir():
            raise ConfigError(f"{target}: a file, expected a folder for images; give another name")
        if target.is_dir() and any(target.iterdir()) and not (target / "index.json").is_file():
            raise ConfigError(f"{target}: holds files and is no comparison of images; give an empty or a new folder")

    @contextmanager
    def unit(self, unit: int) -> Iterator[UnitOutput]:
        """Open a unit, of which the images that may be shown are kept in memory."""
        candidates = _Candidates(self._shown)
        yield candidates
        with self._writer(unit) as file:
            file.write(candidates.to_bytes())

    def _join(self, files: Sequence[Path]) -> None:
        candidates = _Candidates(self._shown)
        for path in files:
            candidates.extend(_pairs_of(path.read_bytes()))
        with disk_errors(self.target):
            for kind in _KINDS:
                shutil.rmtree(self.target / kind, ignore_errors=True)
                (self.target / kind).mkdir(parents=True)
        rows = []
        for group, pairs in candidates.groups().items():
            for place, pair in enumerate(pairs, start=1):
                rows.append(self._write(group, f"{group}-{place:02d}.png", pair))
        facts = {"title": self._title, "amplification": AMPLIFICATION, "images": rows}
        write_atomically(self.target / "index.html", _page(self._title, rows, candidates.size).encode())
        write_atomically(self.target / "index.json", (json.dumps(facts, indent=2) + "\n").encode())

    def _write(self, group: str, file: str, pair: Pair) -> dict[str, object]:
        """Write the three pictures of a pair; return what the index says of it."""
        pictures = (pair.original, pair.restored, difference(pair.restored, pair.original))
        paths = {kind: f"{kind}/{file}" for kind in _KINDS}
        for path, pixels in zip(paths.values(), pictures, strict=True):
            data = io.BytesIO()
            to_picture(pixels).save(data, "PNG")
            write_atomically(self.target / path, data.getvalue(), durable=False)
        return {"group": group, "name": pair.name, "psnr": pair.psnr if np.isfinite(pair.psnr) else None, **paths}


def difference(restored: Tensor, original: Tensor) -> Tensor:
    """Return 128 + 4 (restored - original), cut off at 0 and 255: two (3, S, S) uint8 -> (3, S, S) uint8."""
    values = 128 + AMPLIFICATION * (restored.to(torch.int16) - original.to(torch.int16))
    return values.clamp(0, 255).to(torch.uint8)


class _Candidates:
    """Images that may be among the worst, middle or best of all."""

    def __init__(self, shown: int) -> None:
        self._shown, self._pairs = shown, list[Pair]()

    def add(self, names: Sequence[str], originals: Tensor, restored: Tensor) -> None:
        """Add images in their order, and drop those that no group needs."""
        values = psnr(restored, originals).tolist()
        self.extend([Pair(*facts) for facts in zip(names, values, originals, restored, strict=True)])

    def extend(self, pairs: Sequence[Pair]) -> None:
        """Add pairs, in the order of PSNR and then of names, and drop some between the middle and the ends."""
        self._pairs = sorted([*self._pairs, *pairs], key=lambda pair: (pair.psnr, pair.name))
        if (surplus := len(self._pairs) - _KEPT * self._shown) > 0:
            ends = [self._shown + surplus // 2, len(self._pairs) - self._shown - (surplus - surplus // 2)]
            worst, best = self._pairs[: self._shown], self._pairs[-self._shown :]
            self._pairs = [*worst, *self._pairs[slice(*ends)], *best]

    @property
    def size(self) -> int:
        """Side of the square, pixels; 0 without images."""
        return self._pairs[0].original.shape[-1] if self._pairs else 0

    def groups(self) -> dict[str, list[Pair]]:
        """Return up to `shown` pairs of each group, worst, middle and best first; no pair is in two groups."""
        pairs, shown = self._pairs, min(self._shown, -(-len(self._pairs) // 3))
        best = pairs[max(shown, len(pairs) - shown) :]
        between = pairs[shown : len(pairs) - len(best)]
        start = (len(between) - min(shown, len(between))) // 2
        return dict(zip(_GROUPS, (pairs[:shown], between[start : start + shown], best[::-1]), strict=True))

    def to_bytes(self) -> bytes:
        """Return the pairs of all groups as the bytes of an npz."""
        pairs = [pair for group in self.groups().values() for pair in group]
        data = io.BytesIO()
        np.savez_compressed(
            data,
            names=np.array([pair.name for pair in pairs], dtype=np.str_),
            psnr=np.array([pair.psnr for pair in pairs]),
            originals=np.array([pair.original.numpy() for pair in pairs]),
            restored=np.array([pair.restored.numpy() for pair in pairs]),
        )
        return data.getvalue()


def _pairs_of(data: bytes) -> list[Pair]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        names, values = arrays["names"].tolist(), arrays["psnr"].tolist()
        originals, restored = (torch.from_numpy(arrays[name]) for name in ("originals", "restored"))
    return [Pair(*facts) for facts in zip(names, values, originals, restored, strict=True)]


def _page(title: str, rows: Sequence[dict[str, object]], size: int) -> str:
    """Return the page of a comparison."""
    body = []
    for group in _GROUPS:
        members = [row for row in rows if row["group"] == group]
        if members:
            body += [f"<h2>{group}</h2>", '<div class="rows">', *(_row(row, size) for row in members), "</div>"]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_CSS}</style></head><body>\n<h1>{html.escape(title)}</h1>\n"
        f"<p>Original, reconstruction, and {AMPLIFICATION} times their difference: grey is no difference.</p>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _row(row: dict[str, object], size: int) -> str:
    width = max(size, _SMALLEST)
    pictures = "".join(
        f'<img src="{row[kind]}" width="{width}" height="{width}" alt="{kind}" loading="lazy">' for kind in _KINDS
    )
    value = "exact" if row["psnr"] is None else f"{row['psnr']:.2f} dB"
    return f"<figure>{pictures}<figcaption>{value} &middot; {html.escape(str(row['name']))}</figcaption></figure>"


_CSS = (
    ":root{color-scheme:light dark}body{font:15px/1.4 system-ui,sans-serif;margin:1.5rem}"
    ".rows{display:flex;flex-wrap:wrap;gap:1rem 1.5rem}figure{margin:0}"
    "img{max-width:32vw;height:auto;image-rendering:pixelated;margin-right:2px}figcaption{opacity:.8}"
)
