"""Runs of numbered files, and the records that name them."""

from __future__ import annotations

from pathlib import Path

import pytest
from exporting import random_tokens

from imtok.export import export_tokens
from imtok.export.file_runs import count_in, names_in, run_of
from imtok.export.formats.emu3 import Emu3
from imtok.export.formats.llamagen import LlamaGen
from imtok.export.verification import verify_export


@pytest.mark.parametrize(
    ("run", "names"),
    [
        ("train.bin", ["train.bin"]),
        (f"a/{run_of(8, 3)}.npy", ["a/8.npy", "a/9.npy", "a/10.npy"]),
        ("{0..1}-{3..4}.pth", ["0-3.pth", "0-4.pth", "1-3.pth", "1-4.pth"]),
    ],
)
def test_a_run_has_the_names_of_a_shell(run: str, names: list[str]) -> None:
    assert list(names_in(run)) == names
    assert count_in(run) == len(names)


def test_a_record_has_an_entry_for_each_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LlamaGen, "default_images", 12)
    monkeypatch.setattr(Emu3, "default_images", 12)
    tokens = random_tokens(tmp_path / "tokens", (6, 9, 5), classes=4, crops=2)
    llamagen = export_tokens(tokens, tmp_path / "llamagen", "llamagen").record
    emu3 = export_tokens(tokens, tmp_path / "emu3", "emu3").record
    folders = ("flip/imagenet24_codes", "flip/imagenet24_labels")
    assert [file.path for file in llamagen.files] == [f"{a}/{{{b}}}.npy" for a in folders for b in ("0..11", "12..19")]
    runs = [f"feature/train/000000/{{{numbers}}}-{{0..1}}.pth" for numbers in ("0..11", "12..19")]
    assert [file.path for file in emu3.files] == [*runs, "list/train.json"]
    assert (llamagen.num_files, emu3.num_files) == (40, 41)
    assert verify_export(tmp_path / "llamagen", tokens).ok
    assert verify_export(tmp_path / "emu3", tokens).ok


def test_swapped_files_of_a_run_are_named_by_image(tmp_path: Path) -> None:
    tokens = random_tokens(tmp_path / "tokens", (6, 9, 5), classes=4)
    export_tokens(tokens, tmp_path / "out", "llamagen")
    codes = tmp_path / "out" / "imagenet24_codes"
    for number in (3, 4):
        (codes / f"{number}.npy").rename(codes / f"{7 - number}.tmp")
    for number in (3, 4):
        (codes / f"{number}.tmp").rename(codes / f"{number}.npy")
    run, third, fourth = verify_export(tmp_path / "out", tokens).problems
    assert run.startswith(f"{codes}/{{0..19}}.npy: 3,520 bytes of hash")
    assert third.startswith("image 3 of train, 0/3: code")
    assert fourth.startswith("image 4 of train, 0/4: code")


def test_a_missing_file_of_a_run_is_named(tmp_path: Path) -> None:
    tokens = random_tokens(tmp_path / "tokens", (6, 9, 5))
    export_tokens(tokens, tmp_path / "out", "emu3")
    missing = tmp_path / "out" / "feature" / "train" / "000000" / "7.pth"
    missing.unlink()
    assert verify_export(tmp_path / "out", tokens).problems == [f"{missing}: missing; export the tokens again"]
