"""The demand of class-conditional trainers: a label for every image."""

from __future__ import annotations

from imtok.errors import ConfigError
from imtok.export.format import ExportPlan


def check_all_labelled(name: str, plan: ExportPlan) -> None:
    """Raise ConfigError where an image has no label."""
    if plan.labelled < plan.total:
        raise ConfigError(
            f"{name}: {plan.labelled} of {plan.total} images have a label, and its trainer reads one for each; encode "
            "labelled images, or export to npy, parquet or webdataset"
        )
