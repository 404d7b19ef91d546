"""The plan of an export, made before anything is written, and every refusal that the token set or the options earn."""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from imtok.counted import counted
from imtok.errors import ConfigError, ImtokError, TokensError
from imtok.export.format import ExportPlan, Format, Piece, Split
from imtok.export.formats import FORMATS
from imtok.export.options import ExportOptions
from imtok.export.selection import Selection
from imtok.export.sequences import SequenceLayout
from imtok.tokens import TokenDataset


def find_format(name: str) -> Format:
    """Return the format of a name; raises ConfigError for an unknown one, ImtokError where its packages are missing."""
    if name not in FORMATS:
        raise ConfigError(f"--to {name}: no such format for tokens; known are {', '.join(FORMATS)}")
    found = FORMATS[name]()
    for package in found.packages:
        try:
            version(package)
        except PackageNotFoundError as error:
            raise ImtokError(f"--to {name} needs {package}; pip install 'imtok[{found.extra}]'") from error
    return found


def refuse_options(target: Format, options: ExportOptions) -> None:
    """Raise ConfigError for an option that means nothing in the format, or nothing without another."""
    for name in options.given:
        if name in target.refused:
            others = [other for other, found in FORMATS.items() if name not in found.refused]
            raise ConfigError(
                f"--{name.replace('_', '-')}: means nothing in {target.name}; leave it out, or export to "
                f"{', '.join(others)}"
            )
    if options.label_offset is not None and options.label == "none":
        raise ConfigError("--label-offset: the sequence has no class id; give --label before or --label after too")


def make_layout(tokens: TokenDataset, options: ExportOptions, selection: Selection) -> SequenceLayout:
    """Return the layout of the sequences; raises ConfigError and TokensError where the set has no such sequences."""
    facts = selection.labels
    if options.label != "none" and facts.unlabelled_key is not None:
        labelled = f"{len(tokens) - facts.labelled:,} of {len(tokens):,} images have no label"
        raise TokensError(
            f"{tokens.store}: --label {options.label} needs a label for every image, and {labelled}, the first is "
            f"{facts.unlabelled_key}; export without --label, or encode with --labels"
        )
    for name in sorted({"order", "codebook_offsets"} & options.given.keys()):
        if tokens.num_codebooks == 1:
            raise ConfigError(
                f"--{name.replace('_', '-')}: the token set has 1 codebook, and the option is for several; leave it out"
            )
    classes = max(facts.largest + 1, len(tokens.class_names))
    layout = SequenceLayout(tokens.grid, tokens.num_codebooks, tokens.codebook_size, options, classes)
    layout.check()
    return layout


def make_plan(tokens: TokenDataset, target: Format, options: ExportOptions, selection: Selection) -> ExportPlan:
    """Return the facts of an export; raises ConfigError where the format cannot hold the tokens."""
    if not len(tokens):
        raise TokensError(f"{tokens.store}: holds no images, so there is nothing to export; encode some")
    layout = make_layout(tokens, options, selection)
    if "train" not in selection.images:
        raise ConfigError(
            f"--val-fraction {options.val_fraction} holds out all {counted(len(tokens), 'image', form=',')}; give a "
            "smaller one"
        )
    plan = ExportPlan(
        info=tokens.info,
        options=options,
        dtype=_dtype(target, options, layout.num_ids),
        ids_per_image=layout.length,
        num_ids=layout.num_ids,
        crops=tokens.num_crops,
        images=selection.images,
        labelled=selection.labels.labelled,
        class_names=tokens.class_names,
    )
    target.check(plan)
    return plan


def cut_pieces(plan: ExportPlan, target: Format) -> list[Piece]:
    """Cut the images of each split into pieces of `--shard-size` images, or as many as the format takes by default."""
    size = plan.options.shard_size or target.default_images
    return [piece for split, images in plan.images.items() for piece in _cut(split, images, size)]


def _cut(split: Split, images: int, size: int | None) -> Iterator[Piece]:
    size = size or images
    pieces = math.ceil(images / size)
    for number in range(pieces):
        first = number * size
        yield Piece(split, number, pieces, first, min(size, images - first))


def _dtype(target: Format, options: ExportOptions, num_ids: int) -> np.dtype[np.generic]:
    """Return the type of the ids: that of --dtype, or the narrowest of the format that holds them all."""
    if options.dtype is not None and options.dtype not in target.dtypes:
        others = [name for name, found in FORMATS.items() if options.dtype in found.dtypes]
        raise ConfigError(
            f"--dtype {options.dtype}: {target.name} holds {', '.join(target.dtypes)}; take one of these, or export to "
            f"{' or '.join(others)}"
        )
    holding = [name for name in target.dtypes if num_ids <= target.most_ids(name)]
    chosen: str = options.dtype or (holding or target.dtypes[-1:])[0]
    if chosen not in holding:
        raise ConfigError(
            f"{num_ids:,} ids, the largest {num_ids - 1:,}: {target.name} with {chosen} holds ids up to "
            f"{target.most_ids(chosen) - 1:,}; {_wider(target, holding, num_ids)}"
        )
    return np.dtype(chosen).newbyteorder("<")


def _wider(target: Format, holding: list[str], num_ids: int) -> str:
    """Say which type or which format holds so many ids."""
    if holding:
        return f"take --dtype {holding[0]}"
    named: dict[str, list[str]] = {}  # formats by the narrowest type of theirs that holds the ids
    for name, found in sorted(FORMATS.items()):
        types = [dtype for dtype in found.dtypes if num_ids <= found.most_ids(dtype)]
        if types and name != target.name:
            named.setdefault(types[0], []).append(name)
    if not named:
        return "no format holds so many"
    choices = [f"{', '.join(names)} ({dtype})" for dtype, names in named.items()]
    return f"export to {', or '.join(choices)}"
