"""Images that an evaluation writes unit by unit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from imtok.errors import ConfigError
from imtok.evaluation.outputs import Samples


def images(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def write(samples: Samples, unit: int, restored: Tensor) -> None:
    with samples.unit(unit) as writer:
        for part in restored.split(2):
            writer.add(["name"] * len(part), part, part)


def test_units_written_in_any_order_are_joined_in_theirs(tmp_path: Path) -> None:
    restored = images(9)
    target = tmp_path / "new" / "samples.npz"
    for unit in (2, 0, 1):
        write(Samples(target, 8), unit, restored[3 * unit : 3 * unit + 3])  # as by three processes
    Samples(target, 8).finish([0, 1, 2])
    with np.load(target) as archive:
        np.testing.assert_array_equal(archive["arr_0"], restored.permute(0, 2, 3, 1).numpy())
    assert [path.name for path in target.parent.iterdir()] == ["samples.npz"]


def test_a_unit_that_breaks_off_is_not_there(tmp_path: Path) -> None:
    samples = Samples(tmp_path / "samples.npz", 8)

    def broken_off() -> None:
        with samples.unit(0) as writer:
            writer.add(["a"], images(1), images(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert not samples.has(0)
    write(samples, 0, images(2))
    assert samples.has(0)
    assert not samples.has(1)


def test_an_empty_unit_adds_nothing(tmp_path: Path) -> None:
    samples = Samples(tmp_path / "samples.npz", 8)
    write(samples, 0, images(2))
    with samples.unit(1):
        pass
    samples.finish([0, 1])
    assert np.load(tmp_path / "samples.npz")["arr_0"].shape == (2, 8, 8, 3)


def test_units_of_another_evaluation_are_not_taken(tmp_path: Path) -> None:
    write(Samples(tmp_path / "samples.npz", 8, "one"), 0, images(2))
    assert Samples(tmp_path / "samples.npz", 8, "one").has(0)
    assert not Samples(tmp_path / "samples.npz", 8, "two").has(0)


def test_a_file_that_holds_no_samples_is_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis.npz").write_text("years of work")
    (tmp_path / "folder.npz").mkdir()
    np.savez(tmp_path / "weights.npz", w=np.ones(3))
    for name in ("thesis.npz", "folder.npz", "weights.npz"):
        with pytest.raises(ConfigError, match="exists and holds no samples"):
            Samples(tmp_path / name, 8)
    assert (tmp_path / "thesis.npz").read_text() == "years of work"
    samples = Samples(tmp_path / "samples.npz", 8)
    for _ in range(2):
        write(samples, 0, images(2))
        samples.finish([0])
        samples = Samples(tmp_path / "samples.npz", 8)
