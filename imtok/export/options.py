"""Options of an export: what becomes of an image's codes, and how the images are split, ordered and cut."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from imtok.records import Record

Order = Literal["interleaved", "concatenated"]
LabelPlace = Literal["before", "after", "none"]
IdType = Literal["uint8", "uint16", "uint32", "int16", "int32", "int64"]


class ExportOptions(Record):
    """Options of an export; those that a format does not take are refused by its `check`."""

    offset: int = Field(0, ge=0)  # added to every code
    boi: int | None = Field(None, ge=0)  # id before the codes of an image
    eoi: int | None = Field(None, ge=0)  # id after them
    eol: int | None = Field(None, ge=0)  # id after each row of codes
    eod: int | None = Field(None, ge=0)  # id after each image, end of document
    order: Order = "interleaved"  # of several codebooks: their codes side by side, or one codebook after the other
    codebook_offsets: bool = False  # codebook q has ids from offset + q K on
    label: LabelPlace = "none"  # a class id before or after the image's ids
    label_offset: int | None = Field(None, ge=0)  # id of class 0; None: the first id above those of the codes
    val_fraction: float = Field(0.0, ge=0, lt=1)  # of the images, chosen by a hash of their keys
    shuffle: int | None = None  # seed of the order; None keeps that of the inputs
    shard_size: int | None = Field(None, ge=1)  # images in a file, where a format has several
    dtype: IdType | None = None  # None: the narrowest type of the format that holds every id

    @property
    def given(self) -> dict[str, object]:
        """The options that are not at their defaults, by field name."""
        return {name: value for name, value in self if value != type(self).model_fields[name].default}
