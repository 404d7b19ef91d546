"""Reports of `encode` to its caller, during the job and after it."""

# Axes: A crops of an image, h x w latent grid.

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EncodeProgress:
    """Progress of a job; counts are of this call."""

    done: int  # inputs, skipped ones included
    total: int | None  # inputs to do in this call; None while tars not yet opened hide their number
    skipped: int
    units_done: int
    units_total: int
    images_per_second: float


@dataclass(frozen=True)
class Skips:
    """Inputs skipped for one reason."""

    count: int
    examples: tuple[str, ...]  # the first few keys


@dataclass(frozen=True)
class FailedUnit:
    """A unit that could not be encoded."""

    unit: int
    name: str  # its tar, or its first and last image
    reason: str


@dataclass(frozen=True, kw_only=True)
class EncodeReport:
    """The result of a call of `encode`.

    Of a complete folder `images`, `skipped` and `skips` count all of it, otherwise this process's share.
    """

    images: int
    skipped: int
    skips: dict[str, Skips]  # by reason, the most frequent first
    failed: tuple[FailedUnit, ...]
    empty: tuple[str, ...]  # tars without images
    salvaged: tuple[str, ...]  # damaged tars taken as far as they could be read
    salvaged_images: tuple[str, ...]  # keys of truncated pictures that this call took as far as they could be read
    renamed: int  # keys that got a suffix since they occurred before in their tar
    units_total: int  # of the whole folder
    units_added: int  # by this call, as inputs have come since the folder was begun
    units_done: int  # committed by this call
    units_before: int  # of this process's share, committed before
    labels: str | None  # where they came from, how many images have one, and the first classes; None without any
    notes: tuple[str, ...]  # what a person has to know about the sources, such as archives inside archives
    label_notes: tuple[str, ...]  # what a person has to know about labels
    complete: bool  # every unit is committed and the manifest is written
    was_complete: bool  # the folder was complete before this call, which changed nothing
    dataset_id: str | None  # SHA-256 of the manifest, of a complete folder
    mean_cut: float | None  # share of a picture's area that the crop left out, over this call's images
    encoded: int  # images of this call
    enlarged: int  # pictures smaller than the square, of this call's
    mean_enlargement: float | None  # mean factor of their sides; None where there is none
    size: int  # side of the square, pixels
    seconds: float
    images_per_second: float  # of this call
    grid: tuple[int, int]  # h, w
    num_codebooks: int  # codes at each position of the grid
    codebook_size: int
    bits_per_image: float  # of one crop
    num_crops: int  # A, 1 without augmentation
    ignored: int  # files with other suffixes in the folders given
    ignored_tars: int  # tars beside images in the folders given
