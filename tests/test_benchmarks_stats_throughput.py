"""`benchmarks/stats_throughput.py` runs from end to end on a small set, and checks what it times."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scripts import call_script, import_script


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return import_script("stats_throughput", monkeypatch)


def test_it_times_reading_bincount_counts_and_analysis(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = ["--tokens", "1000000", "--codebook-size", "300", "--rounds", "2", "--scratch", str(tmp_path)]
    call_script(script, monkeypatch, *options)
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert record["tokens"] == 2 * 2048 * 256
    assert set(record["seconds"]) == {"read", "bincount", "counts", "analyze"}
    assert all(len(each) == 2 and min(each) > 0 for each in record["seconds"].values())


def test_it_reads_the_codes_of_the_shards(script: ModuleType, tmp_path: Path) -> None:
    tokens = script.written(tmp_path, 600_000, 300)
    expected = np.zeros(300, np.int64)
    for shard in tokens.shards():
        expected += np.bincount(shard.codes.reshape(-1), minlength=300)
    assert np.array_equal(script.make_steps(tokens)["bincount"](), expected)
