"""Class numbers and names as they stand beside images: in `.cls`, in `.json`, and in StyleGAN's `dataset.json`.

A label is a number of 0 to 2^63 - 1 or a name. `3.0` is the number 3; a byte order mark, blanks and line breaks around
a text count for nothing. Negative and broken numbers, lists, vectors and empty texts are no labels.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Mapping
from typing import Any

Label = int | str  # a class number, or the name of a class

# Fields of the .json beside an image that may hold its label, numbers first. Captions are none.
FIELDS = ("cls", "class_id", "label_id", "category_id", "label", "class", "class_name", "label_name", "category")

_LONGEST_NAME = 200  # letters; a longer text is a caption
_NUMBERS = 2**63


def read_cls(data: bytes | None) -> Label | None:
    """Read the content of a `.cls` file; None where it is no label."""
    return as_label(_decoded(data)) if data is not None else None


def read_fields(data: bytes | None) -> dict[str, Label]:
    """Read the `.json` beside an image: its labels by the name of their field, in the order of `FIELDS`."""
    content = _parsed(data)
    if not isinstance(content, Mapping):
        return {}
    labels = {field: as_label(content.get(field)) for field in FIELDS}
    return {field: label for field, label in labels.items() if label is not None}


def read_dataset_json(data: bytes) -> dict[str, Label] | None:
    """Read StyleGAN's `dataset.json`: labels by file name; None where it has no list of labels.

    Raises ValueError where labels are vectors or other values that are no class.
    """
    content = _parsed(data)
    listed = content.get("labels") if isinstance(content, Mapping) else None
    if not listed:
        return None
    pairs = listed.items() if isinstance(listed, Mapping) else listed
    labels: dict[str, Label] = {}
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not isinstance(pair[0], str):
            raise ValueError("its labels are no pairs of a file name and a class number")
        name, value = pair
        if isinstance(value, list | Mapping):
            raise ValueError(f"its labels are vectors, expected class numbers (first: {name})")
        label = as_label(value)
        if label is not None:
            labels[name.replace("\\", "/").removeprefix("./")] = label
    return labels


def as_label(value: Any) -> Label | None:
    """Return the class number or name that a value of JSON or a text stands for, None where it is no label."""
    if isinstance(value, str):
        return _text_as_label(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float):
        if not value.is_integer():  # also of an infinite number and NaN
            return None
        value = int(value)
    return value if 0 <= value < _NUMBERS else None


def _text_as_label(text: str) -> Label | None:
    for number in (int, float):
        try:
            return as_label(number(text))
        except ValueError:
            continue
    fits = text and len(text) <= _LONGEST_NAME and text.isprintable()
    return text if fits else None


def _decoded(data: bytes) -> str:
    """Decode text as UTF-8, or as UTF-16 where it begins with the mark of that; empty where it is neither."""
    marks = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    try:
        return data.decode("utf-16" if data.startswith(marks) else "utf-8-sig")
    except UnicodeDecodeError:
        return ""


def _parsed(data: bytes | None) -> Any:
    try:
        return json.loads(_decoded(data)) if data is not None else None
    except (ValueError, RecursionError):
        return None
