"""Reconstructions as an npz in guided-diffusion's layout."""

from __future__ import annotations

import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from imtok.evaluation.samples import write_samples


def images(count: int, size: int = 8) -> Tensor:
    return torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_the_array_is_what_numpy_reads_and_would_write(tmp_path: Path) -> None:
    samples = images(7)
    write_samples(tmp_path / "samples.npz", samples.split(3), images=7, size=8)
    expected = samples.permute(0, 2, 3, 1).numpy()
    with np.load(tmp_path / "samples.npz") as archive:
        assert list(archive) == ["arr_0"]
        assert archive["arr_0"].dtype == np.uint8
        np.testing.assert_array_equal(archive["arr_0"], expected)
    np.savez(tmp_path / "numpy.npz", arr_0=np.ascontiguousarray(expected))
    members = [zipfile.ZipFile(tmp_path / name).read("arr_0.npy") for name in ("samples.npz", "numpy.npz")]
    assert members[0] == members[1]


def test_the_header_can_be_read_from_the_stream_alone(tmp_path: Path) -> None:
    write_samples(tmp_path / "samples.npz", images(5).split(2), images=5, size=8)
    with zipfile.ZipFile(tmp_path / "samples.npz") as archive, archive.open("arr_0.npy") as member:
        assert np.lib.format.read_magic(member) == (1, 0)  # guided-diffusion reads batch by batch from here on
        assert np.lib.format.read_array_header_1_0(member) == ((5, 8, 8, 3), False, np.dtype(np.uint8))
        assert len(member.read()) == 5 * 8 * 8 * 3


def test_equal_images_give_equal_bytes(tmp_path: Path) -> None:
    for name, parts in (("one", 1), ("other", 4)):
        write_samples(tmp_path / name, images(6).split(parts), images=6, size=8)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


@pytest.mark.parametrize(
    ("count", "size", "message"),
    [(5, 8, "6 images, expected 5"), (7, 8, "6 images, expected 7"), (6, 16, r"shape \(3, 8, 8\), expected \(3, 16")],
)
def test_other_images_than_announced_leave_no_file(tmp_path: Path, count: int, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_samples(tmp_path / "samples.npz", images(6).split(2), images=count, size=size)
    assert not list(tmp_path.iterdir())


def test_one_batch_at_a_time_is_in_memory(tmp_path: Path) -> None:
    def batches() -> Iterator[Tensor]:
        for number in range(40):
            yield torch.from_numpy(np.full((4, 3, 64, 64), number, dtype=np.uint8))

    tracemalloc.start()
    write_samples(tmp_path / "samples.npz", batches(), images=160, size=64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "samples.npz").stat().st_size > 160 * 64 * 64 * 3
    assert peak < 600_000  # of 2 million bytes in all
