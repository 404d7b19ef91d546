"""Counts with their nouns: 1 image, 2 images."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str | None = None, *, form: str = "") -> str:
    """Return a count and its noun, in the plural where the count is not 1; `form` formats the number, as `,` does."""
    return f"{number:{form}} {noun if number == 1 else plural or noun + 's'}"
