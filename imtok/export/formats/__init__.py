"""The formats that token sets are exported to, one module each."""

from __future__ import annotations

from imtok.export.format import Format

FORMATS: dict[str, type[Format]] = {}
"""Classes of formats by the names that `imtok export --to` takes."""
