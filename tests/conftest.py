"""Shared by all tests: where the reference data is, and a clean, plain environment for every test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub_server import Hub, hub_served

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def shared() -> Path:
    """The folder of reference data beside the checkout; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("reference data (../shared) is not here")
    return SHARED


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No launcher variables, no colours, and one terminal width, so that output can be compared."""
    for name in [n for n in os.environ if n.startswith("IMTOK_")] + [
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
    ]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture(autouse=True, scope="session")
def one_core() -> None:
    """Tests compute on single small tensors: threads would only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def hub_server() -> Iterator[Hub]:
    """A stand-in for the Hugging Face Hub that the tests of a module share, each with repositories of its own."""
    with hub_served() as hub:
        yield hub
