"""Counts with their nouns."""

from __future__ import annotations

from imtok.counted import counted


def test_one_is_singular_and_all_else_plural() -> None:
    assert [counted(number, "image") for number in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert counted(2, "image is", "images are") == "2 images are"
    assert counted(1234, "tar", form=",") == "1,234 tars"
