"""Decoding: images out of a token folder, under names that cannot collide or leave the output."""

from __future__ import annotations

import hashlib
import resource
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import encoded, fill, picture, pictures_tar, tiny_tokenizer
from PIL import Image

import imtok
from imtok.decoding import DecodeProgress, decode
from imtok.decoding.names import image_name, tar_folders
from imtok.decoding.record import RECORD
from imtok.encoding import encode
from imtok.errors import ConfigError, DiskError, Interrupted, TokenizerError, TokensError
from imtok.tokenizer import to_uint8
from imtok.tokens import PackedStrings, open_tokens, read_shard, shard_to_bytes
from imtok.tokens.folder import MANIFEST, shard_path

KEYS = ["a/x.jpg", "a/x.png", "a.b.c.png", "ü 名前.png", "x.png", "z.png"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> Path:
    """Six images in three units."""
    source = fill(tmp_path_factory.mktemp("in"), KEYS)
    folder = tmp_path_factory.mktemp("out") / "tokens"
    encode([source], folder, tokenizer, unit_size=2)
    return folder


def files(folder: Path) -> list[str]:
    """The names of all files but the decode's own record."""
    return sorted(contents(folder))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the decode's own record."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != RECORD)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_every_image_comes_back_under_its_key(tokens: Path, tokenizer: Path, tmp_path: Path) -> None:
    report = decode(tokens, tmp_path / "back")
    assert files(tmp_path / "back") == sorted(f"{key}.png" for key in KEYS)
    assert (report.images, report.skipped, report.size) == (6, 0, 32)
    model = imtok.load(tokenizer)
    for key, codes in open_tokens(tokens):
        expected = to_uint8(model.decode(codes[None]))[0].permute(1, 2, 0).numpy()
        found = pixels(tmp_path / "back" / f"{key}.png").astype(int)
        assert np.abs(found - expected).max() <= 1  # another batch size may round a last bit otherwise


def test_workers_and_limit_do_not_change_the_bytes(tokens: Path, tmp_path: Path) -> None:
    decode(tokens, tmp_path / "one", workers=1)
    decode(tokens, tmp_path / "two", workers=5)
    report = decode(tokens, tmp_path / "three", limit=3)
    whole = contents(tmp_path / "one")
    assert contents(tmp_path / "two") == whole
    assert report.images == 3
    assert contents(tmp_path / "three").items() <= whole.items()
    assert len(contents(tmp_path / "three")) == 3


@pytest.mark.parametrize(("file_format", "name"), [("jpg", "JPEG"), ("webp", "WEBP"), ("png", "PNG")])
def test_formats_are_what_they_are_called(tokens: Path, tmp_path: Path, file_format: Any, name: str) -> None:
    decode(tokens, tmp_path, format=file_format, limit=1)
    with Image.open(tmp_path / f"a.b.c.png.{file_format}") as image:
        assert image.format == name
        assert image.size == (32, 32)


def test_an_unknown_format_is_refused(tokens: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--format gif: expected one of png, jpg, webp"):
        decode(tokens, tmp_path, format="gif")  # type: ignore[arg-type]


def test_what_padding_added_is_cut_off_again(tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    sizes = {"wide.png": (80, 40), "tall.png": (10, 80), "square.png": (7, 7)}
    for name, size in sizes.items():
        (tmp_path / "in" / name).write_bytes(encoded(picture(0, *size)))
    encode([tmp_path / "in"], tmp_path / "t", tokenizer, fit="pad")
    decode(tmp_path / "t", tmp_path / "back")
    found = {name: pixels(tmp_path / "back" / f"{name}.png").shape for name in sizes}
    assert found == {"wide.png": (16, 32, 3), "tall.png": (32, 4, 3), "square.png": (32, 32, 3)}


def test_images_of_tars_lie_below_a_folder_of_their_name(tokenizer: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        pictures_tar(tmp_path / f"{name}.tar", ["x.jpg", "deep/x.jpg"])
    fill(tmp_path / "two", ["x.jpg"])
    encode([tmp_path / "one.tar", tmp_path / "two.tar", tmp_path / "two"], tmp_path / "t", tokenizer)
    decode(tmp_path / "t", tmp_path / "back")
    names = ["one/deep/x.jpg.png", "one/x.jpg.png", "two/deep/x.jpg.png", "two/x.jpg.png", "x.jpg.png"]
    assert files(tmp_path / "back") == names


def test_a_tar_called_like_a_folder_of_images_goes_elsewhere(tokenizer: Path, tmp_path: Path) -> None:
    fill(tmp_path / "in", ["same/x.png"])
    pictures_tar(tmp_path / "same.tar", ["x.png"])
    encode([tmp_path / "in", tmp_path / "same.tar"], tmp_path / "t", tokenizer)
    decode(tmp_path / "t", tmp_path / "back")
    assert files(tmp_path / "back") == ["same/x.png.png", "same~/x.png.png"]


def test_a_tar_is_written_with_the_same_bytes_each_time(tokens: Path, tmp_path: Path) -> None:
    decode(tokens, tmp_path / "one.tar")
    decode(tokens, tmp_path / "two.tar", workers=1)
    decode(tokens, tmp_path / "folder")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as tar:
        members = {member.name: tar.extractfile(member) for member in tar}
        found = {name: file.read() for name, file in members.items() if file}
    assert found == contents(tmp_path / "folder")


def test_a_tar_that_could_not_be_finished_does_not_appear(tokens: Path, tmp_path: Path) -> None:
    steps: list[DecodeProgress] = []
    with pytest.raises(Interrupted, match=r"stopped after [1-5] of 6 images"):
        decode(
            tokens,
            tmp_path / "x.tar",
            batch_size=1,
            workers=1,
            progress=steps.append,
            should_stop=lambda: bool(steps),
        )
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_and_leaves_no_half_files(tokens: Path, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        for output in ("folder", "x.tar"):
            with pytest.raises(DiskError):
                decode(tokens, tmp_path / output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(tmp_path) == []


def test_progress_counts_images(tokens: Path, tmp_path: Path) -> None:
    steps: list[DecodeProgress] = []
    decode(tokens, tmp_path, batch_size=2, progress=steps.append)
    assert [(step.done, step.total) for step in steps] == [(2, 6), (4, 6), (6, 6)]


# Which tokenizer, which tokens


def test_another_tokenizer_is_refused_and_both_sides_named(tokens: Path, tokenizer: Path, tmp_path: Path) -> None:
    other = tiny_tokenizer(tmp_path / "other", seed=1)
    ours, theirs = imtok.load(tokenizer).fingerprint[:12], imtok.load(other).fingerprint[:12]
    with pytest.raises(TokenizerError, match=f"made by tokenizer {ours}, .*/other is {theirs}"):
        decode(tokens, tmp_path / "back", tokenizer_path=other)
    assert not (tmp_path / "back").exists()


def test_a_tokenizer_with_a_tuned_decoder_may_decode(tokens: Path, tokenizer: Path, tmp_path: Path) -> None:
    tuned = imtok.load(tokenizer)
    tuned.decoder.conv_out.bias.data += 0.5
    tuned.save(tmp_path / "tuned")
    decode(tokens, tmp_path / "own")
    decode(tokens, tmp_path / "other", tokenizer_path=tmp_path / "tuned")
    own, other = pixels(tmp_path / "own/x.png.png"), pixels(tmp_path / "other/x.png.png")
    assert other.astype(int).mean() > own.astype(int).mean() + 20


def test_a_missing_unit_is_refused_unless_a_part_will_do(tokenizer: Path, tmp_path: Path) -> None:
    source = fill(tmp_path / "in", KEYS)
    encode([source], tmp_path / "t", tokenizer, unit_size=2, shard=(0, 2))
    with pytest.raises(TokensError, match="1 of 3 units are missing"):
        decode(tmp_path / "t", tmp_path / "back")
    assert decode(tmp_path / "t", tmp_path / "back", partial=True).images == 4


def test_codes_the_codebook_does_not_have_are_refused(tokenizer: Path, tmp_path: Path) -> None:
    encode([fill(tmp_path / "in", ["x.png"])], tmp_path / "t", tokenizer)
    path = tmp_path / "t" / shard_path(0)
    shard = read_shard(path)
    path.write_bytes(shard_to_bytes(replace(shard, codes=np.full((1, 4, 4), 200, np.uint8))))
    with pytest.raises(TokensError, match=r"00000000\.safetensors: codes span \[0, 200\], expected \[0, 125\)"):
        decode(tmp_path / "t", tmp_path / "back")


def test_an_output_of_the_wrong_kind_is_refused(tokens: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.tar").mkdir()
    with pytest.raises(TokensError, match="file: a file, expected a folder"):
        decode(tokens, tmp_path / "file")
    with pytest.raises(TokensError, match=r"folder\.tar: a folder, expected a tar"):
        decode(tokens, tmp_path / "folder.tar")


# Where the images go


def test_a_folder_with_other_files_is_refused(tokens: Path, tmp_path: Path) -> None:
    originals = fill(tmp_path / "originals", ["mine.jpg"])
    with pytest.raises(TokensError, match=r"holds other files \(mine\.jpg\).*--overwrite"):
        decode(tokens, originals)
    assert files(originals) == ["mine.jpg"]
    before = contents(originals)
    assert decode(tokens, originals, overwrite=True).images == 6
    assert contents(originals).items() > before.items()


@pytest.mark.parametrize("overwrite", [False, True])
def test_folders_of_imtok_are_always_refused(tokens: Path, tokenizer: Path, tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("")
    for folder, kind in ((tokens, "a token folder"), (tmp_path / "run", "a run"), (tokenizer, "a tokenizer folder")):
        before = contents(folder)
        with pytest.raises(TokensError, match=f"{kind}, images would end up in it; choose another -o"):
            decode(tokens, folder, overwrite=overwrite)
        assert contents(folder) == before
        assert not (folder / RECORD).exists()


def stopped(tokens: Path, output: Path) -> None:
    """Stop a decode after its first batch of two images."""
    steps: list[DecodeProgress] = []
    with pytest.raises(Interrupted):
        decode(
            tokens,
            output,
            batch_size=2,
            workers=1,
            progress=steps.append,
            should_stop=lambda: bool(steps),
        )
    assert 0 < len(files(output)) < 6


def test_a_stopped_decode_resumes_after_its_whole_images(tokens: Path, tmp_path: Path) -> None:
    decode(tokens, tmp_path / "whole", batch_size=2)
    stopped(tokens, tmp_path / "back")
    times = {name: (tmp_path / "back" / name).stat().st_mtime_ns for name in files(tmp_path / "back")}
    report = decode(tokens, tmp_path / "back", batch_size=2)
    assert (report.images, report.before) == (6, len(times))
    assert contents(tmp_path / "back") == contents(tmp_path / "whole")
    assert {name: (tmp_path / "back" / name).stat().st_mtime_ns for name in times} == times


def test_a_killed_decode_leaves_no_temporaries_behind(tokens: Path, tmp_path: Path) -> None:
    stopped(tokens, tmp_path / "back")
    (tmp_path / "back/.tmp-x.png.png-1-abcd").write_bytes(b"half")
    decode(tokens, tmp_path / "back", batch_size=2)
    assert files(tmp_path / "back") == sorted(f"{key}.png" for key in KEYS)


def test_a_finished_decode_writes_only_what_is_missing(tokens: Path, tmp_path: Path) -> None:
    decode(tokens, tmp_path)
    whole = contents(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    report = decode(tokens, tmp_path)
    assert (report.images, report.before) == (6, 6)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == times
    (tmp_path / "x.png.png").unlink()
    decode(tokens, tmp_path)
    assert contents(tmp_path) == whole


def test_written_over_images_of_others_are_not_taken_as_done(tokens: Path, tmp_path: Path) -> None:
    decode(tokens, tmp_path / "whole", batch_size=2)
    fill(tmp_path / "back", [f"{key}.png" for key in KEYS])
    steps: list[DecodeProgress] = []
    with pytest.raises(Interrupted):
        decode(
            tokens,
            tmp_path / "back",
            batch_size=2,
            workers=1,
            overwrite=True,
            progress=steps.append,
            should_stop=lambda: bool(steps),
        )
    decode(tokens, tmp_path / "back", batch_size=2)
    assert contents(tmp_path / "back") == contents(tmp_path / "whole")


def test_another_token_set_is_refused_by_name(tokens: Path, tokenizer: Path, tmp_path: Path) -> None:
    encode([fill(tmp_path / "in", ["other.png"])], tmp_path / "t", tokenizer)
    decode(tokens, tmp_path / "back")
    ours, theirs = open_manifest(tmp_path / "t"), open_manifest(tokens)
    with pytest.raises(TokensError, match=f"images of token set {theirs}, this decode has {ours}.*--overwrite"):
        decode(tmp_path / "t", tmp_path / "back")
    assert decode(tmp_path / "t", tmp_path / "back", overwrite=True).images == 1
    assert len(files(tmp_path / "back")) == 7


def open_manifest(folder: Path) -> str:
    """The first digits of the data set's id."""
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()[:12]


def test_other_options_are_refused_by_name(tokens: Path, tmp_path: Path) -> None:
    decode(tokens, tmp_path, limit=2)
    for options, message in (
        ({}, "--limit 2, this decode has none"),
        ({"limit": 2, "format": "jpg"}, "--format png, this decode has jpg"),
        ({"limit": 2, "batch_size": 3}, r"--batch-size \d+, this decode has 3"),
        ({"limit": 2, "precision": "bf16"}, "--precision fp32, this decode has bf16"),
    ):
        with pytest.raises(TokensError, match=message):
            decode(tokens, tmp_path, **options)  # type: ignore[arg-type]
    assert len(files(tmp_path)) == 2


def test_a_damaged_record_is_named(tokens: Path, tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text("{")
    with pytest.raises(TokensError, match=f"{RECORD}: damaged"):
        decode(tokens, tmp_path, overwrite=True)


def test_a_tar_that_exists_is_replaced_on_request_only(tokens: Path, tmp_path: Path) -> None:
    decode(tokens, tmp_path / "x.tar", limit=1)
    small = (tmp_path / "x.tar").read_bytes()
    with pytest.raises(TokensError, match=r"x\.tar: exists; .*--overwrite"):
        decode(tokens, tmp_path / "x.tar")
    assert (tmp_path / "x.tar").read_bytes() == small
    decode(tokens, tmp_path / "x.tar", overwrite=True)
    assert len((tmp_path / "x.tar").read_bytes()) > len(small)
    assert files(tmp_path) == ["x.tar"]


def test_the_record_is_no_image_to_encode(tokens: Path, tokenizer: Path, tmp_path: Path) -> None:
    decode(tokens, tmp_path / "back")
    assert encode([tmp_path / "back"], tmp_path / "again", tokenizer).images == 6


# Names


@pytest.mark.parametrize("key", ["../x.png", "a/../../x.png", "/etc/x.png", "..", "", "/", ".", "a/\0.png"])
def test_keys_that_would_leave_the_output_are_refused(key: str) -> None:
    with pytest.raises(TokensError, match="not to be trusted"):
        image_name(key, ".png")


@pytest.mark.parametrize("key", ["../../escape.png", "/tmp/escape.png"])
def test_a_hostile_token_folder_writes_nothing_outside(tokenizer: Path, tmp_path: Path, key: str) -> None:
    encode([fill(tmp_path / "in", ["x.png"])], tmp_path / "t", tokenizer)
    path = tmp_path / "t" / shard_path(0)
    path.write_bytes(shard_to_bytes(replace(read_shard(path), keys=PackedStrings.pack([key]))))
    (tmp_path / "t" / MANIFEST).unlink()
    with pytest.raises(TokensError, match="outside the output folder"):
        decode(tmp_path / "t", tmp_path / "deep/er/back")
    assert not list(tmp_path.rglob("*escape*"))


def test_a_hostile_tar_name_is_refused() -> None:
    with pytest.raises(TokensError, match="not to be trusted"):
        tar_folders(["../up"], [])


@pytest.mark.parametrize("key", ["x.jpg", "a/b.c/d e.png", "ü/名前.jpg", "a/..b/...jpg", ".a/x.jpg", "back\\slash.png"])
def test_ordinary_keys_keep_their_names(key: str) -> None:
    assert image_name(key, ".png") == f"{key}.png"


def test_names_never_collide() -> None:
    long = "x" * 300
    marked = image_name(f"{long}.png", ".png")
    keys = [
        *("x.jpg", "x.jpg.png", "x.jpg.png/y.jpg", "a/b.jpg", "a//b.jpg", "./a/b.jpg", "a/./b.jpg"),
        *(
            f"{long}.png",
            f"{long}.jpg",
            f"{long}/a.jpg",
            f"{long}y/a.jpg",
            "d/" * 1500 + "x.jpg",
            "d/" * 1501 + "x.jpg",
        ),
        *(marked.removesuffix(".png"), "x.jpg.PNG/y.jpg", "名" * 200 + ".jpg", "名" * 201 + ".jpg"),
    ]
    names = [image_name(key, ".png") for key in keys]
    assert len(set(names)) == len(names)
    folders = {"/".join(name.split("/")[:depth]) for name in names for depth in range(1, name.count("/") + 1)}
    assert not folders & set(names)  # no name is a folder here and a file there
    assert all(len(part.encode()) <= 220 for name in names for part in name.split("/"))
    assert all(len(name.encode()) < 3000 for name in names)


def test_odd_names_can_be_written(tokenizer: Path, tmp_path: Path) -> None:
    names = ["a//b.png", "a/b.png", "y" * 250 + "/" + "z" * 300 + ".png", "x.png/y.png", "x.png"]
    encode([pictures_tar(tmp_path / "t.tar", names)], tmp_path / "t", tokenizer)
    assert decode(tmp_path / "t", tmp_path / "back").images == 5
    assert len(files(tmp_path / "back")) == 5
