"""The benchmark of the loader: it runs from end to end on every source, and its ratios are those of its speeds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import pytest
import torch
from scripts import call_script, import_script
from torch import Tensor

TINY = [
    "--size", "32", "--batch-size", "2", "--batches", "2", "--rounds", "1", "--images", "14", "--threads", "1",
]  # fmt: skip


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = import_script("loader_throughput", monkeypatch)
    monkeypatch.setattr(module, "MADE", (40, 46))
    return module


# Newer Pythons warn of forks beside threads; torch's DataLoader forks.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_every_source_is_timed_alone_and_with_steps(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "SMALL", [*script.SMALL, "network.channels=[8]"])
    call_script(script, monkeypatch, *TINY, "--workers", "2")
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    rows = {(record["source"], record["kind"]) for record in records}
    listed = {("folder", "processes"), ("tar", "processes")}
    assert rows == {(source, "threads") for source in ("folder", "tar", "streamed", "http")} | listed
    for record in records:
        bound = 1 / (1 / record["loader"] + 1 / record["step"])
        assert record["joint"] == pytest.approx(record["both"] / bound, rel=1e-2)
        assert record["sleep_ms"] == pytest.approx(1.3 * 2000 / record["loader"], rel=1e-2)
        assert 0 <= record["shared_wait"] < 1
        assert 0 <= record["alone_wait"] < 1
        assert record["settings"]["workers"] == [2]


def test_a_loader_of_other_pixels_is_not_timed(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["loader_throughput.py", *TINY, "--sources", "tar"])
    args = script.parse()
    config = script.configuration(args)
    device = torch.device("cpu")

    def wrong() -> Iterator[Tensor]:
        for batch in script.loader_of(row, places, config, device)():
            yield batch.flip(3)

    with ExitStack() as stack:
        row, places = ("tar", "threads", 2), script.laid_out(tmp_path, args, stack)
        script.check(row, script.loader_of(row, places, config, device), places, config, device)
        with pytest.raises(AssertionError, match="other pixels"):
            script.check(row, wrong, places, config, device)
