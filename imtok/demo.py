"""The demo job: train, encode, decode and report on the colour pictures in scikit-image's wheel."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from imtok.analysis import CodebookUsage, codebook_usage
from imtok.config import load_train_config, merge, preset
from imtok.data.images import decode_image, fit_image
from imtok.decoding import decode
from imtok.encoding import encode
from imtok.errors import ConfigError
from imtok.evaluation import Quality, evaluate
from imtok.files import write_atomically
from imtok.tokens import open_tokens
from imtok.training import TrainProgress, train
from imtok.training.preview import pair_grid, png_bytes

_SEEN = (
    "astronaut.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
_UNSEEN = ("chelsea.png", "coffee.png")
TRAINED_ON = len(_SEEN)
NOT_SEEN = "not trained on"  # as the comparison marks these


@dataclass(frozen=True)
class DemoReport:
    """The measurements of the demo."""

    seen: Quality
    unseen: Quality
    usage: CodebookUsage  # of all photographs' tokens
    tokens_per_image: int
    seconds: float


def run_demo(
    output: Path,
    *,
    images: int | None = None,
    progress: Callable[[TrainProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> DemoReport:
    """Fill `output` with run/, tokens/, images/ and comparison.png, going on where an earlier call stopped.

    Two photographs are held out of training. Raises ConfigError where scikit-image is not installed.
    """
    started = time.perf_counter()
    seen, unseen = _photographs(_SEEN), _photographs(_UNSEEN)
    values = preset("demo") if images is None else merge(preset("demo"), {"images": images})
    config = load_train_config(values)
    run, tokens = output / "run", output / "tokens"
    train(seen, run, config, val=unseen, progress=progress, should_stop=should_stop)
    report = encode([*seen, *unseen], tokens, run, should_stop=should_stop)
    # The folder is the demo's own; one of an earlier imtok has no record of its decode.
    decode(tokens, output / "images", overwrite=True, should_stop=should_stop)
    _compare(output, seen, unseen, config.tokenizer.size)
    return DemoReport(
        seen=evaluate(run, seen),
        unseen=evaluate(run, unseen),
        usage=codebook_usage(open_tokens(tokens)),
        tokens_per_image=report.grid[0] * report.grid[1],
        seconds=time.perf_counter() - started,
    )


def _photographs(names: tuple[str, ...]) -> list[Path]:
    try:
        from skimage.data import data_dir
    except ImportError as error:
        raise ConfigError("the demo's photographs come with scikit-image; pip install 'imtok[demo]'") from error
    paths = [Path(data_dir) / name for name in names]
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise ConfigError(f"scikit-image here has no {', '.join(missing)}; pip install --upgrade 'imtok[demo]'")
    return paths


def _compare(output: Path, seen: list[Path], unseen: list[Path], size: int) -> None:
    """Write comparison.png: each photograph above its reconstruction by `decode`, those not trained on marked."""
    photographs = [*seen, *unseen]
    restored = [output / "images" / f"{path.name}.png" for path in photographs]
    originals, reconstructions = (
        torch.stack([fit_image(decode_image(path.read_bytes()), size).pixels for path in paths])
        for paths in (photographs, restored)
    )
    labels = [""] * len(seen) + [NOT_SEEN] * len(unseen)
    write_atomically(output / "comparison.png", png_bytes(pair_grid(originals, reconstructions, labels)))
