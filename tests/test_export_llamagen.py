"""LlamaGen's files, read back as its loader reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from export_pieces import Exporting
from exporting import check_equal, export_and_read, random_tokens

from imtok.errors import ConfigError, DiskError, TokensError
from imtok.export import small_files
from imtok.export.formats.llamagen import LlamaGen
from imtok.export.small_files import write_small_files

EXPORT = Exporting(LlamaGen(), "int64")


def sample(code_path: Path, number: int, draw: int) -> tuple[np.ndarray, np.ndarray]:
    """Read an image as LlamaGen's CustomDataset and training loop do: ids of one sequence, and the class."""
    codes = code_path / "imagenet16_codes"
    ids = np.load(codes / f"{number}.npy")
    if "flip" in str(codes.relative_to(code_path.parent)):
        ids = ids[:, draw % ids.shape[1]]
    batch = np.stack([ids])
    return batch.reshape(len(batch), -1)[0], np.load(code_path / "imagenet16_labels" / f"{number}.npy").reshape(-1)


def test_images_are_read_back_by_their_numbers(tmp_path: Path) -> None:
    EXPORT.write(tmp_path)
    EXPORT.check(EXPORT.read(tmp_path), keys=False)


def test_the_loader_finds_each_image_and_label(tmp_path: Path) -> None:
    EXPORT.write(tmp_path / "out")
    block = EXPORT.block(0, 8)
    assert block.labels is not None
    for number in range(8):
        ids, label = sample(tmp_path / "out", number, draw=0)
        np.testing.assert_array_equal(ids, block.ids[number, 0])
        np.testing.assert_array_equal(label, block.labels[number : number + 1])


@pytest.mark.parametrize(("crops", "name"), [(2, "flip"), (10, "flip_ten_crop")])
def test_crops_are_drawn_because_the_path_says_flip(tmp_path: Path, crops: int, name: str) -> None:
    export = EXPORT.but(crops=crops)
    export.write(tmp_path)
    export.check(export.read(tmp_path), keys=False)
    ids, _ = sample(tmp_path / name, 3, draw=1)
    np.testing.assert_array_equal(ids, export.block(0, 8).ids[3, 1])


def test_crops_outside_such_a_path_would_be_one_sequence(tmp_path: Path) -> None:
    EXPORT.but(crops=2).write(tmp_path)
    (tmp_path / "flip").rename(tmp_path / "codes")
    assert len(sample(tmp_path / "codes", 0, draw=0)[0]) == 2 * 6


def test_held_out_images_are_no_training_images(tmp_path: Path) -> None:
    export = EXPORT.but(split="val")
    paths = export.write(tmp_path)
    export.check(export.read(tmp_path), keys=False)
    assert all(path.startswith("val/") for path in paths)


def test_an_image_without_a_label_is_refused() -> None:
    with pytest.raises(ConfigError, match="0 of 8 images have a label"):
        LlamaGen().check(EXPORT.but(labelled=False).plan)
    LlamaGen().check(EXPORT.plan)


def test_more_images_than_the_loader_names_are_refused() -> None:
    LlamaGen().check(EXPORT.but(images=1_281_167).plan)
    with pytest.raises(ConfigError, match=r"1281168 images in train.*0 to 1281166.*parquet"):
        LlamaGen().check(EXPORT.but(images=1_281_168).plan)


def test_fewer_images_than_the_loader_names_are_told() -> None:
    assert "set range(1281167) in dataset/imagenet.py to 8" in LlamaGen().trainer_note(EXPORT.plan)
    assert "range" not in LlamaGen().trainer_note(EXPORT.but(images=1_281_167).plan)


def test_the_last_file_of_a_piece_comes_after_all_others(tmp_path: Path) -> None:
    def files() -> object:
        yield "a/0", b"0"
        yield "a/1", b"1"
        assert not (tmp_path / "a/1").exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_small_files(tmp_path, files())  # type: ignore[arg-type]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["0"]
    write_small_files(tmp_path, [("a/0", b"0"), ("a/1", b"1")])
    assert (tmp_path / "a/1").read_bytes() == b"1"


def test_a_refusing_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:1])
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskError, match="No space left"):
        write_small_files(tmp_path, [("a/0", b"00"), ("a/1", b"1")])
    assert not list((tmp_path / "a").iterdir())


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY\x01\x00", None])
def test_a_missing_or_damaged_file_is_named(tmp_path: Path, damage: bytes | None) -> None:
    EXPORT.write(tmp_path)
    path = tmp_path / "imagenet16_codes/3.npy"
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    with pytest.raises(TokensError, match=r"3\.npy"):
        EXPORT.read(tmp_path)


@pytest.mark.parametrize("crops", [0, 2])
def test_a_token_set_goes_through_the_files_unharmed(tmp_path: Path, crops: int) -> None:
    tokens = random_tokens(tmp_path / "tokens", classes=5, crops=crops)
    check_equal(tokens, export_and_read(tokens, "llamagen", tmp_path)[3], keys=False)


def test_files_are_synced_each_where_the_system_syncs_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(small_files, "_sync_file_system", lambda _: False)
    monkeypatch.setattr(small_files, "sync_file", lambda file: synced.append(Path(file.name).name))
    write_small_files(tmp_path, [("a/0", b"0"), ("a/1", b"1"), ("b/2", b"2")])
    assert synced == ["0", "1"]  # the last is synced by its own writer
