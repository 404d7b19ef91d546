"""Formats with keys, labels or a file an image: stopped at every block, resumed, and checked against the token set."""

from __future__ import annotations

from pathlib import Path

import pytest
from exporting import random_tokens
from making import contents

from imtok.errors import Interrupted
from imtok.export import ExportOptions, export_tokens
from imtok.export.formats import FORMATS
from imtok.export.verification import verify_export

KEYED = ["4m", "emu3", "llamagen", "parquet", "rar-jsonl", "webdataset"]


@pytest.mark.parametrize("name", KEYED)
def test_an_export_stopped_anywhere_resumes_to_equal_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    tokens = random_tokens(tmp_path / "tokens", units=(6, 9, 5), classes=4, crops=2)
    monkeypatch.setattr(FORMATS[name], "default_images", 8)  # pieces end within units
    options = ExportOptions(val_fraction=0.3)
    export_tokens(tokens, tmp_path / "whole", name, options)
    stops = 0
    while not (tmp_path / "out" / "imtok-export.json").exists():
        # Each run gets one block further than the one before.
        answers = iter([False] * (3 + stops))
        try:
            export_tokens(tokens, tmp_path / "out", name, options, should_stop=lambda: next(answers, True))  # noqa: B023
        except Interrupted:
            stops += 1
    assert stops > 3
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("crops", [0, 3])
@pytest.mark.parametrize("name", [name for name in KEYED if FORMATS[name].library])
def test_a_library_reads_a_shuffled_and_split_export(tmp_path: Path, name: str, crops: int) -> None:
    """`test_export_verification.py` does the same for all formats by imtok's own readers."""
    tokens = random_tokens(tmp_path / "tokens", units=(6, 9, 5), classes=4, crops=crops)
    export_tokens(tokens, tmp_path / "out", name, ExportOptions(val_fraction=0.3, shuffle=7))
    result = verify_export(tmp_path / "out", tokens)
    assert (result.problems, result.images) == ([], 20)


@pytest.mark.parametrize("name", KEYED)
def test_a_changed_byte_of_any_file_is_found(tmp_path: Path, name: str) -> None:
    tokens = random_tokens(tmp_path / "tokens", units=(3,), classes=4)
    export_tokens(tokens, tmp_path / "out", name)
    for path in sorted((tmp_path / "out").rglob("*")):
        if path.is_file() and path.name != "imtok-export.json":
            whole = path.read_bytes()
            path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
            assert not verify_export(tmp_path / "out", tokens).ok, path
            path.write_bytes(whole)
    assert verify_export(tmp_path / "out", tokens).ok


def test_ids_around_codes_go_through_formats_that_take_them(tmp_path: Path) -> None:
    tokens = random_tokens(tmp_path / "tokens", codebooks=2, classes=4)
    options = ExportOptions(
        offset=10, boi=1, eoi=2, eol=3, eod=4, label="before", order="concatenated", codebook_offsets=True
    )
    for name in ("parquet", "webdataset"):
        export_tokens(tokens, tmp_path / name, name, options)
        assert verify_export(tmp_path / name, tokens).ok


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("4m", "data_path OUT/train/[tok_rgb@24,crop_settings]/shard-00000.tar; vocab_size 1000, max_tokens 6"),
        ("emu3", "run in OUT with --data_path list/train.json --codebook_size 1000"),
        ("llamagen", "--code-path OUT/flip/ --image-size 24 --vocab-size 1000"),
        ("parquet", 'datasets.load_dataset("OUT"): input_ids holds 6 of 1000 ids'),
        ("rar-jsonl", "dataset.params.pretokenization=OUT/train.jsonl, model.vq_model.codebook_size=1000"),
        ("webdataset", 'WebDataset("OUT/train-00000.tar").decode(): .npy holds 6 of 1000 ids'),
    ],
)
def test_each_format_says_what_its_trainer_is_told(tmp_path: Path, name: str, note: str) -> None:
    tokens = random_tokens(tmp_path / "tokens", classes=4, crops=2)
    report = export_tokens(tokens, tmp_path / "out", name)
    assert FORMATS[name]().trainer_note(report.plan).startswith(note)


def test_notes_name_the_last_of_several_files(tmp_path: Path) -> None:
    tokens = random_tokens(tmp_path / "tokens", (6, 9, 5))
    for name, tars in (("4m", "shard-{00000..00002}.tar;"), ("webdataset", '"OUT/train-{00000..00002}.tar"')):
        assert tars in export_tokens(tokens, tmp_path / name, name, ExportOptions(shard_size=9)).trainer_note
