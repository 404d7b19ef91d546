"""Refusals that several formats share: files that would count too much, and images without a label."""

from __future__ import annotations

from imtok.errors import ConfigError
from imtok.export.format import ExportPlan, Format


def check_capacity(
    target: Format, plan: ExportPlan, what: str, *, each: int, most: int, other: str, beside: int = 0
) -> None:
    """Raise ConfigError where the largest file of a format would hold more than it can count.

    A file counts `beside` and `each` for every image of what is called `what`, and at most `most`. The message names a
    number of images that fits, and `other`, a format that holds more.
    """
    images = max(plan.images.values(), default=0)
    size = plan.options.shard_size or target.default_images
    found = beside + each * (images if size is None else min(images, size))
    if found > most:
        raise ConfigError(
            f"a file would hold {found:,} {what}, and one of {target.name} holds at most {most:,}; use --shard-size "
            f"{max(1, (most - beside) // each)} or fewer images, or --to {other}"
        )


def check_all_labelled(target: Format, plan: ExportPlan) -> None:
    """Raise ConfigError where an image has no label, which class-conditional trainers read of each."""
    if plan.labelled < plan.total:
        raise ConfigError(
            f"{target.name}: {plan.labelled} of {plan.total} images have a label, and its trainer reads one for each; "
            "encode labelled images, or export to npy, parquet or webdataset"
        )
