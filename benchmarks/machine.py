"""What every result file says of where it was made."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from imtok.cores import usable_cores
from imtok.version import __version__


def machine(device: torch.device, *packages: str) -> dict[str, Any]:
    """Device, cores, commit, and the versions of imtok, torch, Python and `packages`."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "cores": usable_cores(),
        "versions": {
            "imtok": __version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
            **{package: metadata.version(package) for package in packages},
        },
        "commit": commit(),
    }


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {torch.backends.cpu.get_cpu_capability()}"


def commit() -> str | None:
    folder = Path(__file__).resolve().parent
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=folder, capture_output=True, text=True)
    return found.stdout.strip() or None
