"""Print the lowest versions that `pyproject.toml` allows, one `name==version` a line, as constraints for pip."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def lowest() -> list[str]:
    """Return the lower bound of each dependency, those of the extras included; what has no bound is left out."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    every = sum(project["optional-dependencies"].values(), project["dependencies"])
    # pip takes no extras in constraints.
    bounds = (re.fullmatch(r"([\w-]+)(?:\[[\w,-]+\])?>=([\d.]+)", requirement) for requirement in every)
    return [f"{bound[1]}=={bound[2]}" for bound in bounds if bound]


if __name__ == "__main__":
    print(*lowest(), sep="\n")
