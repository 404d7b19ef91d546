"""Numbers and names as a report writes them."""

from __future__ import annotations

import re

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def number(value: float, digits: int = 0) -> str:
    """Write a number with separators of thousands and a true minus sign: 12,345 or −0.52."""
    return f"{value:,.{digits}f}".replace("-", "−")


def percent(share: float) -> str:
    """Write a share in per cent with one decimal; 0% and 100% are exactly that."""
    if share in (0, 1):
        return f"{share:.0%}"
    if 0 < share < 0.001:
        return "<0.1%"
    if 0.999 < share < 1:
        return ">99.9%"
    return f"{share:.1%}".replace("-", "−")


def counted(count: int, noun: str) -> str:
    """Write 1 image, 2 images."""
    return f"{number(count)} {noun}" if count == 1 else f"{number(count)} {noun}s"


def printable(text: str) -> str:
    """Replace characters that neither XML nor UTF-8 can hold, such as bytes of a file name that is no text."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def shortened(text: str, length: int) -> str:
    """Cut a text to `length` characters by leaving out its middle: the ends of paths and keys say most."""
    text = printable(text)
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"
