"""The labels of a token folder counted: how many images have one, and how many images each class has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from imtok.counted import counted
from imtok.tokens.dataset import TokenDataset
from imtok.tokens.folder import TokensInfo
from imtok.tokens.shard import NO_LABEL, Shard

_SOURCES = {"folders": "class folders", "json": ".json files", "none": "none"}
_SHOWN = 5  # classes named in a line


def count_labels(tokens: TokenDataset) -> LabelCounts:
    """Count the labels of all images of a token folder."""
    counts = LabelCounts(tokens.info)
    for shard in tokens.shards():
        counts.add(shard, tokens.container_name)
    return counts


@dataclass
class LabelCounts:
    """Counts over some shards of one folder."""

    info: TokensInfo
    images: int = 0
    classes: Counter[tuple[int, str]] = field(default_factory=Counter)  # images by number and name
    places: set[str] = field(default_factory=set)  # where labels stand that are in no class folder

    def add(self, shard: Shard, container_name: Callable[[int], str | None]) -> None:
        """Count the labels of a shard; `container_name` returns the container that a unit is, None for no container."""
        self.images += len(shard)
        if shard.labels is None:
            return
        if self.info.labels not in _SOURCES:
            column = (container_name(shard.header.unit) or "").endswith(".parquet")
            self.places.add("a column of the Parquet files" if column else ".cls files")
        names = self.info.names_of_labels(shard.header.unit)
        numbers, counts = np.unique(shard.labels[shard.labels != NO_LABEL], return_counts=True)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            name = names[number] if 0 <= number < len(names) else str(number)
            self.classes[number, name] += count

    @property
    def by_name(self) -> dict[str, int]:
        """Images of each class by its name, in the order of the numbers."""
        return {name: count for (_, name), count in sorted(self.classes.items())}

    def describe(self) -> str:
        """Say in a line where the labels came from, how many images have one, and the first classes."""
        if not self.classes:
            return "none"
        source = self.info.labels or ("folders" if self.info.all_class_names else "cls")
        names = list(self.by_name)
        rest = ", ..." if len(names) > _SHOWN else ""
        count = counted(len(names), "class", "classes", form=",")
        images = counted(self.images, "image", form=",")
        shown = f"{count} ({', '.join(names[:_SHOWN])}{rest})"
        place = _SOURCES.get(source) or " and ".join(sorted(self.places))
        return f"{place}, {self.classes.total():,} of {images}, {shown}"
