"""Every reference checkpoint of a published family, imported and compared with the numbers of that family's own code.

    python benchmarks/published_families.py ../shared/goldens/checkpoints

A folder holds weights in the published layout and `io.safetensors`: images, and the latents, tokens and reconstructions
that the family's own code gave for them. The weights are random, so agreement says that layout and arithmetic are
right, and nothing about quality. A row gives the greatest difference of the latents, how many tokens are equal, the
greatest difference of the reconstructions on the scale of [-1, 1], and the seconds of the import and of one pass there
and back. Where a checkpoint has a moving average of its weights, a second row has the average.

Differences come from sums in another order: about 1e-5 of latents of size 1.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import tempfile
import time
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from machine import machine
from safetensors import safe_open
from torch import Tensor

from imtok.interop import import_checkpoint
from imtok.interop.weights import SUFFIXES
from imtok.tokenizer import Tokenizer

GOLDEN = "io.safetensors"
UNIT_RANGE = {"maskgit", "dalle"}  # families whose images are in [0, 1]
LAST_AXIS = {"rqvae"}  # families whose latents have their channels last


@dataclass(frozen=True)
class Row:
    """One checkpoint, imported and compared."""

    name: str
    family: str
    latents: float | None  # greatest difference; None where the reference holds none
    equal: int
    tokens: int
    images: float | None  # greatest difference on the scale of [-1, 1]; None where the reference holds none
    import_seconds: float
    pass_seconds: float


def weights_of(folder: Path, scratch: Path) -> Path:
    """Return the file of weights in a folder; those of a recipe are made in `scratch` first."""
    found = [file for file in folder.iterdir() if file.suffix in SUFFIXES and file.name != GOLDEN]
    return found[0] if len(found) == 1 else made_by_recipe(folder, scratch)


def made_by_recipe(folder: Path, scratch: Path) -> Path:
    """Make DALL-E's two networks by the recipe in the golden's README, which lists names and shapes."""
    with safe_open(folder / GOLDEN, "pt") as file:
        config = json.loads(file.metadata()["config"])
    parts: dict[str, dict[str, Tensor]] = {"encoder": {}, "decoder": {}}
    rows = re.findall(r"^\| `(\w+):([\w.]+)` \| \[([\d, ]+)\]", (folder / "README.md").read_text(), re.MULTILINE)
    for part, name, shape in rows:
        sizes = [int(size) for size in shape.split(",")]
        random = np.random.RandomState((zlib.crc32(name.encode()) + config[f"{part}_seed"]) % 2**32)
        scale = math.sqrt(2 / math.prod(sizes[1:])) if len(sizes) > 1 else 0.1
        parts[part][name] = torch.from_numpy((random.standard_normal(sizes) * scale).astype(np.float32))
    scratch.mkdir(parents=True, exist_ok=True)
    for part, tensors in parts.items():
        torch.save(tensors, scratch / f"{part}.pt")
    return scratch


def compared(folder: Path, scratch: Path) -> Iterator[Row]:
    """Import the checkpoint of a folder, and yield a row for its weights and one for their average if there is one."""
    golden = safetensors.torch.load_file(folder / GOLDEN)
    weights = weights_of(folder, scratch / "weights")
    for lead in [lead for lead in ("out", "ema") if f"{lead}.indices" in golden]:
        begun = time.perf_counter()
        report = import_checkpoint(weights, scratch / lead, ema=lead == "ema")
        imported = time.perf_counter()
        name = folder.name if lead == "out" else f"{folder.name} (average)"
        yield _row(name, report.origin.family, report.tokenizer, golden, lead, imported - begun)


@torch.no_grad()
def _row(
    name: str, family: str, tokenizer: Tokenizer, golden: dict[str, Tensor], lead: str, import_seconds: float
) -> Row:
    images = golden["in.images"] * 2 - 1 if family in UNIT_RANGE else golden["in.images"]
    begun = time.perf_counter()
    codes = tokenizer.encode(images)
    decoded = tokenizer.decoder(tokenizer.quantizer.lookup(codes))
    seconds = time.perf_counter() - begun
    expected = golden.get(f"{lead}.recon")
    if family == "dalle":  # six channels, of which the published reconstruction is made
        decoded, expected = tokenizer.decode(codes), None if expected is None else expected * 2 - 1
    elif family in UNIT_RANGE and expected is not None:
        expected = expected * 2 - 1
    latents = golden.get(f"{lead}.latents")
    if latents is not None and family in LAST_AXIS:
        latents = latents.permute(0, 3, 1, 2)
    tokens = golden[f"{lead}.indices"]
    return Row(
        name=name,
        family=family,
        latents=_greatest(tokenizer.encoder(images), latents),
        equal=int((codes == tokens).sum()),
        tokens=tokens.numel(),
        images=_greatest(decoded, expected),
        import_seconds=import_seconds,
        pass_seconds=seconds,
    )


def _greatest(found: Tensor, expected: Tensor | None) -> float | None:
    return None if expected is None else float((found - expected).abs().max())


def table(root: Path) -> list[Row]:
    """Compare every reference checkpoint below a folder."""
    rows = []
    for folder in sorted(path.parent for path in root.glob(f"*/{GOLDEN}")):
        with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows += compared(folder, Path(scratch))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the folder of reference checkpoints")
    torch.set_num_threads(1)
    rows = table(parser.parse_args().folder)
    print(
        f"{'checkpoint':32} {'family':14} {'latents':>8} {'tokens equal':>13} {'images':>8} {'import':>7} {'pass':>7}"
    )
    for row in rows:
        latents, images = ("-" if value is None else f"{value:.1e}" for value in (row.latents, row.images))
        print(
            f"{row.name:32} {row.family:14} {latents:>8} {row.equal:>6} of {row.tokens:<4} {images:>8} "
            f"{row.import_seconds:6.2f}s {row.pass_seconds:6.3f}s"
        )
    equal = sum(row.equal == row.tokens for row in rows)
    print(f"{equal} of {len(rows)} with every token equal")
    print(
        json.dumps(
            {"benchmark": "published_families", **machine(torch.device("cpu")), "rows": [asdict(row) for row in rows]}
        )
    )


if __name__ == "__main__":
    main()
