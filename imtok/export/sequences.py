"""The ids of an image: its codes in the order of a trainer, and the fixed ids that a trainer expects around them.

    [label] [boi] row [eol] row [eol] ... [eoi] [label] [eod]

A row of the latent grid holds the codes of all codebooks side by side (interleaved), or all rows of the first codebook
come before those of the second (concatenated). Every image has equally many ids, so the ids of a set are one array.
"""

# Axes: n images, A crops of an image, h x w latent grid, Q codebooks, T ids of an image, K codes of a codebook.

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from imtok.errors import ConfigError, TokensError
from imtok.export.options import ExportOptions

Ids = npt.NDArray[np.integer[Any]]

_SPECIAL = ("boi", "eoi", "eol", "eod")


@dataclass(frozen=True)
class SequenceLayout:
    """The places and values of an image's ids: `ids` makes them from codes, and `codes` finds the codes in them."""

    grid: tuple[int, int]  # (h, w)
    codebooks: int  # Q
    codebook_size: int  # K
    options: ExportOptions
    classes: int = 0  # labels are in [0, classes)

    @cached_property
    def special_ids(self) -> dict[str, int]:
        """The fixed ids by the names of their options."""
        values: dict[str, int | None] = {name: getattr(self.options, name) for name in _SPECIAL}
        return {name: value for name, value in values.items() if value is not None}

    @cached_property
    def code_end(self) -> int:
        """The first id above those of the codes."""
        books = self.codebooks if self.options.codebook_offsets else 1
        return self.options.offset + books * self.codebook_size

    @cached_property
    def label_offset(self) -> int:
        """The id of class 0."""
        return self.code_end if self.options.label_offset is None else self.options.label_offset

    @property
    def has_label(self) -> bool:
        """The sequence holds a class id."""
        return self.options.label != "none"

    @property
    def num_ids(self) -> int:
        """1 + the largest id that may occur."""
        labels = self.label_offset + self.classes if self.has_label else 0
        return max(self.code_end, labels, 1 + max(self.special_ids.values(), default=-1))

    @cached_property
    def length(self) -> int:
        """T, the ids of an image."""
        after = [self.options.eoi is not None, self.options.label == "after", self.options.eod is not None]
        return int(self._body.stop) + sum(after)

    def check(self) -> None:
        """Raise ConfigError where one id would stand for two things."""
        codes = range(self.options.offset, self.code_end)
        labels = range(self.label_offset, self.label_offset + self.classes) if self.has_label else range(0)
        for name, value in self.special_ids.items():
            for what, taken, option in (("codes", codes, "--offset"), ("classes", labels, "--label-offset")):
                if value in taken:
                    raise ConfigError(
                        f"--{name} {value}: ids of {what} span [{taken.start}, {taken.stop}); choose one outside, or "
                        f"shift them by {option}"
                    )
        if labels and codes and max(labels.start, codes.start) < min(labels.stop, codes.stop):
            raise ConfigError(
                f"--label-offset {labels.start}: ids of classes span [{labels.start}, {labels.stop}), those of codes "
                f"[{codes.start}, {codes.stop}); give --label-offset {codes.stop} or above"
            )

    def ids(self, codes: npt.NDArray[Any], labels: npt.NDArray[np.int64] | None, dtype: np.dtype[Any]) -> Ids:
        """Return the ids of images: codes (n, A, h, w) or (n, A, h, w, Q), labels (n,) -> (n, A, T) of `dtype`.

        Where the ids are the codes as they lie, the result is a view of them.
        """
        images, crops = codes.shape[:2]
        codes = codes.reshape(images, crops, *self.grid, self.codebooks)
        if self._plain and codes.dtype == dtype:
            return codes.reshape(images, crops, self.length)
        ids = np.empty((images, crops, self.length), dtype)
        cells = self._cells(ids)
        if self._added.any():
            np.add(codes, self._added.astype(dtype), out=cells, dtype=dtype, casting="unsafe")
        else:
            np.copyto(cells, codes, casting="unsafe")
        for place, value in self._fixed.items():
            ids[..., place] = value
        if self.options.eol is not None:
            self._rows(ids)[..., -1] = self.options.eol
        if self.has_label:
            assert labels is not None  # a set without labels has been refused
            ids[..., self._label_place] = (labels + self.label_offset)[:, None]
        return ids

    def codes(self, ids: Ids) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64] | None]:
        """Return the codes (n, A, h, w, Q) and labels (n, A) of ids (n, A, T); no labels where they hold none.

        Raises TokensError where the ids are not of this layout.
        """
        if ids.shape[2] != self.length:
            raise TokensError(f"an image has {ids.shape[2]} ids, expected {self.length}")
        found = [(ids[..., place], value) for place, value in self._fixed.items()]
        if self.options.eol is not None:
            found.append((self._rows(ids)[..., -1], self.options.eol))
        for values, expected in found:
            if (values != expected).any():
                raise TokensError(f"an id is {values[values != expected][0]}, expected {expected}")
        codes = self._cells(ids).astype(np.int64) - self._added
        labels = ids[..., self._label_place].astype(np.int64) - self.label_offset if self.has_label else None
        return codes, labels

    @cached_property
    def _added(self) -> npt.NDArray[np.int64]:
        """The offset of the ids of each codebook: (Q,)."""
        step = self.codebook_size if self.options.codebook_offsets else 0
        return self.options.offset + step * np.arange(self.codebooks)

    @cached_property
    def _interleaved(self) -> bool:
        return self.options.order == "interleaved" or self.codebooks == 1

    @cached_property
    def _plain(self) -> bool:
        """The ids are the codes as they lie."""
        height, width = self.grid
        return self._interleaved and not self._added.any() and self.length == height * width * self.codebooks

    @cached_property
    def _body(self) -> slice:
        """The places of codes and ends of rows."""
        height, width = self.grid
        rows = height if self._interleaved else height * self.codebooks
        row = width * self.codebooks if self._interleaved else width
        start = (self.options.label == "before") + (self.options.boi is not None)
        return slice(start, start + rows * (row + (self.options.eol is not None)))

    @cached_property
    def _fixed(self) -> dict[int, int]:
        """The values of the fixed ids by their places, without those at the ends of rows."""
        places = {"boi": self._body.start - 1, "eoi": self._body.stop, "eod": self.length - 1}
        return {places[name]: value for name, value in self.special_ids.items() if name in places}

    @property
    def _label_place(self) -> int:
        return 0 if self.options.label == "before" else self.length - 1 - (self.options.eod is not None)

    def _rows(self, ids: Ids) -> Ids:
        """View the body of ids (n, A, T) as (n, A, rows, ids of a row)."""
        rows = self.grid[0] * (1 if self._interleaved else self.codebooks)
        body = ids[..., self._body]
        return body.reshape(*ids.shape[:2], rows, (self._body.stop - self._body.start) // rows)

    def _cells(self, ids: Ids) -> Ids:
        """View the codes' places of ids (n, A, T) as (n, A, h, w, Q)."""
        rows = self._rows(ids)
        rows = rows if self.options.eol is None else rows[..., :-1]
        images, crops = ids.shape[:2]
        if self._interleaved:
            return rows.reshape(images, crops, *self.grid, self.codebooks)
        return np.moveaxis(rows.reshape(images, crops, self.codebooks, *self.grid), 2, -1)
