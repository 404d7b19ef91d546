"""llm.c's files, read as its dataloader and modded-nanogpt read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from exporting import check_equal, export_and_read, random_tokens

from imtok.errors import ConfigError, TokensError
from imtok.export import ExportOptions, export_tokens
from imtok.export.formats import FORMATS


@pytest.mark.parametrize(
    ("size", "magic", "version", "dtype"), [(65536, 20240520, 1, "<u2"), (65537, 20240801, 7, "<u4")]
)
def test_a_file_is_a_header_and_the_ids(tmp_path: Path, size: int, magic: int, version: int, dtype: str) -> None:
    tokens = random_tokens(tmp_path / "tokens", codebook_size=size)
    folder, _, _, images = export_and_read(tokens, "llmc", tmp_path)
    check_equal(tokens, images, keys=False, labels=False)
    data = (folder / "train_000000.bin").read_bytes()
    header = np.frombuffer(data[:1024], "<i4")
    assert header.tolist() == [magic, version, 9 * 6, *[0] * 253]
    ids = np.frombuffer(data[1024:], dtype)
    np.testing.assert_array_equal(ids, np.concatenate([image.ids.reshape(-1) for image in images]))


@pytest.mark.parametrize(("crops", "codebooks"), [(2, 1), (0, 3)])
def test_files_of_a_given_size_hold_every_image(tmp_path: Path, crops: int, codebooks: int) -> None:
    tokens = random_tokens(tmp_path / "tokens", crops=crops, codebooks=codebooks)
    folder, _, _, images = export_and_read(tokens, "llmc", tmp_path, shard_size=4)
    check_equal(tokens, images, keys=False, labels=False)
    assert sorted(path.name for path in folder.glob("*.bin")) == [f"train_{each:06d}.bin" for each in range(3)]


def test_more_ids_than_a_header_counts_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imtok.export.formats.llmc.MOST_IDS", 20)
    tokens = random_tokens(tmp_path / "tokens")
    with pytest.raises(ConfigError, match="54 ids, and one of llmc holds at most 20; use --shard-size 3 or fewer"):
        export_tokens(tokens, tmp_path / "out", "llmc")
    assert not (tmp_path / "out").exists()
    export_tokens(tokens, tmp_path / "out", "llmc", ExportOptions(shard_size=3))


def test_the_note_names_the_id_of_modded_nanogpt(tmp_path: Path) -> None:
    report = export_tokens(random_tokens(tmp_path / "tokens"), tmp_path / "out", "llmc")
    assert "vocab_size has to be 1000 or more; modded-nanogpt looks for id 50256" in report.trainer_note


def test_a_file_cut_short_is_named(tmp_path: Path) -> None:
    tokens = random_tokens(tmp_path / "tokens")
    folder, plan, pieces, _ = export_and_read(tokens, "llmc", tmp_path)
    path = folder / "train_000000.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(TokensError, match=r"train_000000\.bin: 1,130 bytes, expected 1,132"):
        list(FORMATS["llmc"]().read(pieces, plan, folder))
