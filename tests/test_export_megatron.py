"""Megatron-LM's .bin and .idx, read back by megatron-core and by the layout alone."""

from __future__ import annotations

import logging
import struct
from pathlib import Path

import numpy as np
import pytest
from exporting import check_equal, export_and_read, random_tokens

from imtok.errors import ConfigError, TokensError
from imtok.export import ExportOptions, export_tokens
from imtok.export.formats import FORMATS
from imtok.export.verification import verify_export


@pytest.mark.parametrize(("crops", "codebooks"), [(0, 1), (2, 1), (0, 3)])
def test_documents_are_the_images(tmp_path: Path, crops: int, codebooks: int) -> None:
    tokens = random_tokens(tmp_path / "tokens", crops=crops, codebooks=codebooks)
    *_, images = export_and_read(tokens, "megatron", tmp_path, shard_size=5)
    check_equal(tokens, images, keys=False, labels=False)


def test_the_index_has_the_layout_of_megatron(tmp_path: Path) -> None:
    tokens = random_tokens(tmp_path / "tokens", units=(2,), grid=(2, 3))
    folder, *_ = export_and_read(tokens, "megatron", tmp_path, eod=1000)
    assert (folder / "train.idx").read_bytes() == (
        b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, 2, 3) + struct.pack("<2i2q3q", 7, 7, 0, 14, 0, 1, 2)
    )
    assert np.fromfile(folder / "train.bin", "<u2")[[6, 13]].tolist() == [1000, 1000]


@pytest.mark.parametrize(
    ("size", "dtype", "code"), [(65499, "uint16", 8), (65500, "int32", 4), (65536, "int32", 4), (65537, "int32", 4)]
)
def test_int32_is_taken_from_65500_ids_on(tmp_path: Path, size: int, dtype: str, code: int) -> None:
    tokens = random_tokens(tmp_path / "tokens", units=(2,), codebook_size=size)
    folder, plan, _, images = export_and_read(tokens, "megatron", tmp_path)
    assert plan.dtype == np.dtype(dtype)
    assert (folder / "train.idx").read_bytes()[17] == code
    check_equal(tokens, images, keys=False, labels=False)


def test_uint16_from_65500_ids_on_is_refused(tmp_path: Path) -> None:
    tokens = random_tokens(tmp_path / "tokens", codebook_size=65500)
    with pytest.raises(ConfigError, match=r"65,500 ids.*uint16 holds ids up to 65,498; take --dtype int32"):
        export_tokens(tokens, tmp_path / "out", "megatron", ExportOptions(dtype="uint16"))
    assert not (tmp_path / "out").exists()


def test_ids_that_nothing_in_megatron_holds_name_other_types(tmp_path: Path) -> None:
    tokens = random_tokens(tmp_path / "tokens")
    with pytest.raises(ConfigError, match=r"--dtype uint32: megatron holds uint16, int32, int64"):
        export_tokens(tokens, tmp_path / "out", "megatron", ExportOptions(dtype="uint32"))


@pytest.mark.parametrize(
    ("eod", "note"), [(1000, "--vocab-size 1000, whose end of document is 1000"), (None, "no document of the files")]
)
def test_the_note_names_the_vocabulary_of_the_tokenizer(tmp_path: Path, eod: int | None, note: str) -> None:
    tokens = random_tokens(tmp_path / "tokens")
    report = export_tokens(tokens, tmp_path / "out", "megatron", ExportOptions(eod=eod))
    assert note in report.trainer_note


def test_more_documents_than_megatron_counts_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imtok.export.formats.megatron.MOST_DOCUMENTS", 20)
    tokens = random_tokens(tmp_path / "tokens", crops=3)
    with pytest.raises(ConfigError, match="27 documents, and one of megatron holds at most 20; use --shard-size 6 or"):
        export_tokens(tokens, tmp_path / "out", "megatron")
    assert not (tmp_path / "out").exists()
    export_tokens(tokens, tmp_path / "out", "megatron", ExportOptions(shard_size=6))


def test_a_changed_index_is_named(tmp_path: Path) -> None:
    tokens = random_tokens(tmp_path / "tokens")
    folder, plan, pieces, _ = export_and_read(tokens, "megatron", tmp_path)
    index = bytearray((folder / "train.idx").read_bytes())
    index[-8] += 1
    (folder / "train.idx").write_bytes(index)
    with pytest.raises(TokensError, match=r"train\.idx: bounds of documents"):
        list(FORMATS["megatron"]().read(pieces, plan, folder))


@pytest.mark.slow  # importing megatron-core takes seconds
@pytest.mark.parametrize(("crops", "codebooks", "size"), [(0, 1, 1000), (2, 2, 65500)])
def test_megatron_core_reads_every_image(tmp_path: Path, crops: int, codebooks: int, size: int) -> None:
    pytest.importorskip("megatron.core", exc_type=ImportError)
    tokens = random_tokens(tmp_path / "tokens", crops=crops, codebooks=codebooks, codebook_size=size)
    *_, images = export_and_read(tokens, "megatron", tmp_path, library=True, shard_size=4)
    check_equal(tokens, images, keys=False, labels=False)
    options = ExportOptions(eod=70000, eol=70001, boi=70002, shuffle=1, val_fraction=0.4)
    export_tokens(tokens, tmp_path / "out", "megatron", options)
    result = verify_export(tmp_path / "out", tokens)
    assert result.problems == []
    assert result.reader.startswith("megatron-core ")
    assert logging.root.manager.disable == logging.NOTSET  # as it was before the import of megatron-core
