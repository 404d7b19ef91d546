"""The export of token sets: refused before anything is written, resumed by pieces, finished once."""

from __future__ import annotations

import errno
import hashlib
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from exporting import check_equal, expected_ids, export_and_read, random_tokens
from making import contents, token_folder

from imtok.errors import ConfigError, DiskError, ImtokError, Interrupted, TokensError
from imtok.export import ExportOptions, export_tokens
from imtok.export import record as records
from imtok.export.formats import FORMATS
from imtok.export.formats.npy import Npy
from imtok.export.record import read_record
from imtok.tokens import open_tokens, read_manifest


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return random_tokens(tmp_path / "tokens", units=(6, 9, 5), grid=(2, 3), classes=4)


def stopping_after(calls: int) -> Iterator[bool]:
    yield from [False] * calls
    while True:
        yield True


def test_the_record_names_what_made_the_export(tokens: Path, tmp_path: Path) -> None:
    report = export_tokens(tokens, tmp_path / "out", "npy", ExportOptions(boi=2000, shard_size=8))
    record = read_record(tmp_path / "out")
    manifest = read_manifest(tokens)
    assert manifest is not None
    assert record.dataset_id == manifest.dataset_id
    assert (record.complete, record.to, record.options.boi) == (True, "npy", 2000)
    assert (record.num_ids, record.code_ids, record.ids_per_image) == (2001, (0, 1000), 7)
    assert record.tokens.fingerprint == "f" * 64
    assert record.pieces == {"train": 3}
    for file in record.files:
        data = (tmp_path / "out" / file.path).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file.bytes, file.sha256)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"imtok-export.json", *(file.path for file in record.files)}
    assert (report.images, report.existed) == (20, False)


def test_the_same_command_again_does_nothing(tokens: Path, tmp_path: Path) -> None:
    export_tokens(tokens, tmp_path / "out", "npy")
    before = contents(tmp_path / "out")
    again = export_tokens(tokens, tmp_path / "out", "npy")
    assert again.existed
    assert contents(tmp_path / "out") == before


def test_another_version_leaves_a_finished_export_and_resumes_none(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = stopping_after(5)
    with pytest.raises(Interrupted):
        export_tokens(tokens, tmp_path / "begun", "npy", ExportOptions(), should_stop=lambda: next(answers))
    export_tokens(tokens, tmp_path / "out", "npy")
    monkeypatch.setattr("imtok.export.record.__version__", "99")
    assert export_tokens(tokens, tmp_path / "out", "npy").existed
    with pytest.raises(TokensError, match=r"an unfinished export with imtok .*, this one has 99"):
        export_tokens(tokens, tmp_path / "begun", "npy")


def test_another_command_is_refused_with_both_sides(tokens: Path, tmp_path: Path) -> None:
    export_tokens(tokens, tmp_path / "out", "npy", ExportOptions(offset=3))
    with pytest.raises(TokensError, match="an export with --offset 3, this one has 4"):
        export_tokens(tokens, tmp_path / "out", "npy", ExportOptions(offset=4))


def test_another_token_set_is_refused(tokens: Path, tmp_path: Path) -> None:
    export_tokens(tokens, tmp_path / "out", "npy")
    other = random_tokens(tmp_path / "other", units=(6, 9, 5), grid=(2, 3), classes=4, seed=1)
    with pytest.raises(TokensError, match="token set"):
        export_tokens(other, tmp_path / "out", "npy")


def test_a_folder_with_other_files_is_refused(tokens: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(TokensError, match="holds no export"):
        export_tokens(tokens, tmp_path / "out", "npy")
    assert contents(tmp_path / "out") == {"mine.txt": b"mine"}


@pytest.mark.parametrize(("pieces", "left"), [(0, 20), (1, 14), (2, 8), (3, 5)])
def test_a_stopped_export_resumes_to_the_same_bytes(tokens: Path, tmp_path: Path, pieces: int, left: int) -> None:
    options = ExportOptions(shard_size=6, shuffle=5, val_fraction=0.3)
    export_tokens(tokens, tmp_path / "whole", "npy", options)
    answers = stopping_after(3 + pieces)  # after the scan of three units
    with pytest.raises(Interrupted, match="run the same command again"):
        export_tokens(tokens, tmp_path / "out", "npy", options, should_stop=lambda: next(answers))
    assert not (tmp_path / "out" / "imtok-export.json").exists()
    report = export_tokens(tokens, tmp_path / "out", "npy", options)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert report.images == left  # pieces that were whole are kept


def test_a_piece_that_was_changed_is_written_again(tokens: Path, tmp_path: Path) -> None:
    answers = stopping_after(5)
    with pytest.raises(Interrupted):
        export_tokens(tokens, tmp_path / "out", "npy", ExportOptions(shard_size=6), should_stop=lambda: next(answers))
    (tmp_path / "out" / "train-00000-of-00004.npy").unlink()
    export_tokens(tokens, tmp_path / "out", "npy", ExportOptions(shard_size=6))
    export_tokens(tokens, tmp_path / "whole", "npy", ExportOptions(shard_size=6))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_full_disk_leaves_nothing_half(tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Npy.write

    def filling(self: Npy, piece, blocks, plan, folder):  # type: ignore[no-untyped-def]
        if piece.number == 1:
            blocks = full(blocks, folder)
        return write(self, piece, blocks, plan, folder)

    def full(blocks, folder):  # type: ignore[no-untyped-def]
        yield next(blocks)
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    monkeypatch.setattr(Npy, "write", filling)
    with pytest.raises(DiskError):
        export_tokens(tokens, tmp_path / "out", "npy", ExportOptions(shard_size=6))
    assert not list((tmp_path / "out").glob("**/.tmp-*"))
    assert not list((tmp_path / "out").glob("train-00001*"))
    monkeypatch.undo()
    export_tokens(tokens, tmp_path / "out", "npy", ExportOptions(shard_size=6))
    assert read_record(tmp_path / "out").images == {"train": 20}


def test_of_two_exports_at_once_one_is_refused(tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, answers = Npy.write, []

    def meeting(self: Npy, piece, blocks, plan, folder):  # type: ignore[no-untyped-def]
        for offset in (0, 3):
            with pytest.raises(TokensError) as error:
                export_tokens(tokens, tmp_path / "out", "npy", ExportOptions(offset=offset))
            answers.append(str(error.value).removeprefix(f"{tmp_path / 'out'}: "))
        return write(self, piece, blocks, plan, folder)

    monkeypatch.setattr(Npy, "write", meeting)
    assert not export_tokens(tokens, tmp_path / "out", "npy").existed
    assert answers == [
        "another process exports into it; wait for it, or choose another -o",
        "an unfinished export with --offset 0, this one has 3; choose another -o",
    ]


def test_an_export_that_began_a_moment_before_is_seen(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = records.find_export

    def late(folder: Path, record: records.ExportRecord) -> records.ExportRecord | None:
        monkeypatch.setattr(records, "find_export", look)
        with pytest.raises(Interrupted):
            export_tokens(tokens, folder, "npy", ExportOptions(offset=3), should_stop=stopping_after(4).__next__)
        return None  # as the folder was at the first look

    monkeypatch.setattr(records, "find_export", late)
    with pytest.raises(TokensError, match="an unfinished export with --offset 3, this one has 0"):
        export_tokens(tokens, tmp_path / "out", "npy")
    export_tokens(tokens, tmp_path / "out", "npy", ExportOptions(offset=3))


def test_an_incomplete_set_is_refused_without_partial(tokens: Path, tmp_path: Path) -> None:
    (tokens / "shards" / "000" / "00000001.safetensors").unlink()
    with pytest.raises(TokensError, match="--partial"):
        export_tokens(tokens, tmp_path / "out", "npy")
    assert not (tmp_path / "out").exists()
    report = export_tokens(tokens, tmp_path / "out", "npy", partial=True)
    assert report.record.images == {"train": 11}
    assert not report.record.complete


def test_labels_that_some_images_lack_are_refused(tmp_path: Path) -> None:
    codes = np.zeros((3, 2, 2), np.int64)
    tokens = token_folder(tmp_path / "tokens", [codes, codes], 5, labels=[np.array([0, 1, 2]), np.array([1, -1, -1])])
    with pytest.raises(TokensError, match=r"2 of 6 images have no label, the first is 1/1"):
        export_tokens(tokens, tmp_path / "out", "npy", ExportOptions(label="before"))
    assert not (tmp_path / "out").exists()
    *_, images = export_and_read(tokens, "npy", tmp_path)
    assert [image.label for image in images] == [0, 1, 2, 1, None, None]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "uint8"}, "1,000 ids, the largest 999: npy with uint8 holds ids up to 255; take --dtype uint16"),
        ({"label_offset": 5}, "give --label before or --label after"),
        ({"offset": 2**63}, f"npy with int64 holds ids up to {2**63 - 1:,}; no format holds so many"),
        ({"order": "concatenated"}, "--order: the token set has 1 codebook, and the option is for several"),
        ({"codebook_offsets": True}, "--codebook-offsets: the token set has 1 codebook"),
        ({"val_fraction": 0.9999}, "--val-fraction 0.9999 holds out all 20 images; give a smaller one"),
        ({"boi": 7}, r"--boi 7: ids of codes span \[0, 1000\)"),
    ],
)
def test_options_that_do_not_fit_are_refused_first(
    tokens: Path, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        export_tokens(tokens, tmp_path / "out", "npy", ExportOptions.model_validate(options))
    assert not (tmp_path / "out").exists()


def test_a_type_that_a_format_lacks_names_those_with_it(tokens: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--dtype uint8: 4m holds int16; .* export to npy or olmo or webdataset$"):
        export_tokens(tokens, tmp_path / "out", "4m", ExportOptions(dtype="uint8"))


def test_an_unknown_format_is_refused(tokens: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--to nothing: no such format for tokens; known are"):
        export_tokens(tokens, tmp_path / "out", "nothing")


def test_an_empty_set_is_refused(tmp_path: Path) -> None:
    tokens = token_folder(tmp_path / "tokens", [np.zeros((0, 2, 2), np.int64)], 5)
    with pytest.raises(TokensError, match="holds no images"):
        export_tokens(tokens, tmp_path / "out", "npy")


def test_a_missing_package_is_named_with_its_extra(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Npy, "packages", ("nowhere-to-be-found",))
    with pytest.raises(ImtokError, match=r"--to npy needs nowhere-to-be-found; pip install 'imtok\[exports\]'"):
        export_tokens(tokens, tmp_path / "out", "npy")


def test_options_that_a_format_refuses_are_named(tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Npy, "refused", frozenset({"shard_size"}))
    with pytest.raises(ConfigError, match="--shard-size: means nothing in npy; leave it out, or export to"):
        export_tokens(tokens, tmp_path / "out", "npy", ExportOptions(shard_size=3))


def test_shuffled_images_keep_their_keys_and_labels(tokens: Path, tmp_path: Path) -> None:
    *_, images = export_and_read(tokens, "npy", tmp_path, shuffle=1, shard_size=7)
    dataset = open_tokens(tokens)
    numbers = {dataset.key(number): number for number in range(len(dataset))}
    assert [numbers[image.key] for image in images if image.key is not None] != list(range(20))
    assert {image.key for image in images} == set(numbers)
    for image in images:
        number = numbers[image.key or ""]
        assert image.label == dataset.label(number)
        np.testing.assert_array_equal(image.ids, expected_ids(dataset, number))


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_resumes_to_the_same_bytes(tokens: Path, tmp_path: Path, name: str) -> None:
    wished = {"val_fraction": 0.3, "shard_size": 6}
    options = {option: value for option, value in wished.items() if option not in FORMATS[name].refused}
    chosen = ExportOptions.model_validate(options)
    export_tokens(tokens, tmp_path / "whole", name, chosen)
    answers = stopping_after(3 + 4)  # after the scan and the blocks of four units
    with pytest.raises(Interrupted):
        export_tokens(tokens, tmp_path / "out", name, chosen, should_stop=lambda: next(answers))
    export_tokens(tokens, tmp_path / "out", name, chosen)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert read_record(tmp_path / "out").to == name


def test_progress_ends_at_all_images(tokens: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    export_tokens(tokens, tmp_path / "out", "npy", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (20, 20)


def test_images_of_several_crops_are_exported_with_all(tmp_path: Path) -> None:
    tokens = random_tokens(tmp_path / "tokens", crops=3, codebooks=2)
    *_, images = export_and_read(tokens, "npy", tmp_path)
    check_equal(tokens, images)
    assert images[0].ids.shape == (3, 12)


@pytest.mark.parametrize("options", [{"eod": 2000}, {"shuffle": 1, "val_fraction": 0.1}])
def test_memory_does_not_grow_with_the_number_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object]
) -> None:
    monkeypatch.setattr("imtok.export.blocks._BLOCK_BYTES", 1 << 16)
    peaks = []
    for number, units in enumerate((2, 2, 20)):  # the first call imports what the others use
        tokens = random_tokens(tmp_path / f"tokens{number}", units=(500,) * units, grid=(8, 8))
        tracemalloc.start()
        export_tokens(tokens, tmp_path / f"out{number}", "nanogpt", ExportOptions.model_validate(options))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < peaks[1] + 400_000  # 18 open shards more, and 9,000 images more, whose ids are 1.2 MB
