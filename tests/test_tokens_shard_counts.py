"""Images and skips of a shard from its first bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from making import token_folder

from imtok.errors import TokensError
from imtok.packed_strings import PackedStrings
from imtok.tokens import Shard, ShardHeader, shard_counts, shard_to_bytes
from imtok.tokens.folder import shard_path
from imtok.tokens.shard_counts import ShardCounts, read_shard_counts, read_shard_labels

REASONS = ["truncated", "unreadable", "truncated"]


def written(path: Path, reasons: list[str], *, images: int = 5, salvaged: str | None = None) -> Path:
    shard = Shard(
        header=ShardHeader(
            unit=0, inputs=images + len(reasons), fingerprint="f" * 64, codebook_size=300, salvaged=salvaged
        ),
        codes=np.zeros((images, 4, 4), np.uint16),
        keys=PackedStrings.pack(f"{number}.jpg" for number in range(images)),
        index=np.arange(images),
        original_size=np.full((images, 2), 9, np.int32),
        labels=None,
        skip_index=np.arange(images, images + len(reasons)),
        skip_keys=PackedStrings.pack(f"{number}.png" for number in range(len(reasons))),
        skip_reasons=PackedStrings.pack(reasons),
    )
    path.write_bytes(shard_to_bytes(shard))
    return path


def test_images_and_skips_are_counted_by_reason(tmp_path: Path) -> None:
    counts = read_shard_counts(written(tmp_path / "x", REASONS))
    assert counts == ShardCounts(5, {"truncated": 2, "unreadable": 1})
    assert counts.inputs == 8
    assert read_shard_counts(written(tmp_path / "y", [])) == ShardCounts(5, {})
    assert read_shard_counts(written(tmp_path / "z", ["ü"], images=0)) == ShardCounts(0, {"ü": 1})


def test_a_long_header_is_read_to_its_end(tmp_path: Path) -> None:
    path = written(tmp_path / "x", REASONS, salvaged="damage " * 5000)
    assert read_shard_counts(path) == ShardCounts(5, {"truncated": 2, "unreadable": 1})


def test_reasons_far_apart_are_read_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_counts, "_ROOM", 0)
    assert read_shard_counts(written(tmp_path / "x", REASONS)).skips == {"truncated": 2, "unreadable": 1}


def test_a_shard_cut_before_its_reasons_end_is_refused(tmp_path: Path) -> None:
    whole = written(tmp_path / "x", REASONS).read_bytes()
    for size in (0, 4, 8, 100, len(whole) // 2):
        (tmp_path / "cut").write_bytes(whole[:size])
        with pytest.raises(TokensError, match=r"cut: damaged; delete it"):
            read_shard_counts(tmp_path / "cut")
    with pytest.raises(TokensError, match="missing: cannot be read"):
        read_shard_counts(tmp_path / "missing")


def test_labels_are_read_without_the_codes(tmp_path: Path) -> None:
    codes = np.zeros((3, 2, 2), np.int64)
    folder = token_folder(tmp_path / "tokens", [codes], 5, labels=[np.array([2, -1, 0])])
    images, labels = read_shard_labels(folder / shard_path(0))
    assert (images, labels.tolist() if labels is not None else None) == (3, [2, -1, 0])
    bare = token_folder(tmp_path / "bare", [codes], 5)
    assert read_shard_labels(bare / shard_path(0)) == (3, None)
    (bare / shard_path(0)).write_bytes(b"short")
    with pytest.raises(TokensError, match="damaged"):
        read_shard_labels(bare / shard_path(0))
