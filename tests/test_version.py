"""The version stands in one place, and what repeats it agrees."""

from __future__ import annotations

from pathlib import Path

import yaml

from imtok.version import __version__

ROOT = Path(__file__).resolve().parents[1]


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__


def test_the_citation_has_the_required_fields() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["authors"] == [{"name": "The imtok developers"}]
    assert citation["license"] == "MIT"
    assert citation["title"] == "imtok"
    assert citation["message"]
