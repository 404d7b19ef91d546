"""Units to shards: what they hold, with and without augmentation."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from making import contents, encoded, fill, picture, pictures_tar, tiny_tokenizer, write_tar
from typer.testing import CliRunner

import imtok
from imtok.analysis import analyze
from imtok.cli import app
from imtok.data.augmentation import Augmentation, augment, parse_augmentation
from imtok.data.images import decode_image, fit_image, to_picture
from imtok.decoding import decode
from imtok.description import describe
from imtok.encoding import encode
from imtok.errors import ConfigError, TokensError
from imtok.tokens import open_tokens, read_shard, verify_tokens
from imtok.tokens.folder import INFO, shard_path

FORMATS = Path(__file__).parent / "formats"
OPTIONS: dict[str, Any] = {"unit_size": 3, "batch_size": 2}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A folder of seven images, one of them unreadable, and a tar of two."""
    root = tmp_path_factory.mktemp("photos")
    fill(root / "in", [f"{n}.png" for n in range(7)])
    (root / "in/4.png").write_bytes(encoded(picture(4))[:100])
    return [root / "in", pictures_tar(root / "x.tar", ["0.png", "8.png"])]


def test_a_set_without_augmentation_keeps_its_bytes(tmp_path: Path) -> None:
    fill(tmp_path / "in", ["cat/a.png", "cat/b.png", "dog/c.png"])
    (tmp_path / "in/dog/cut.png").write_bytes(encoded(picture(0))[:100])
    members = [("t.png", encoded(picture(9))), ("t.cls", b"7"), ("../up.png", encoded(picture(1)))]
    tar = write_tar(tmp_path / "s.tar", members)
    options: dict[str, Any] = {"size": 16, "unit_size": 2, "batch_size": 2, "device": "cpu", "labels": "none"}
    encode([tmp_path / "in", tar], tmp_path / "t", FORMATS / "tokenizer-v1", **options)
    files = contents(tmp_path / "t")
    info = json.loads(files[INFO])
    del info["numerics"]["versions"]
    digest = hashlib.sha256(json.dumps(info).encode())
    for name in sorted(files):
        if name.startswith(("shards", "plan", "MANIFEST")):
            digest.update(name.encode() + b"\0" + files[name])
    assert digest.hexdigest() == "8d6429b6b7aaaeefdfd29f08b26fadf847b31f97f496ea3adc7f8551538a4975"


@pytest.mark.parametrize("kind", ["flip", "random-crops=3"])
def test_first_crops_have_the_codes_of_a_plain_set(
    photos: list[Path], tokenizer: Path, tmp_path: Path, kind: str
) -> None:
    encode(photos, tmp_path / "plain", tokenizer, **OPTIONS)
    report = encode(photos, tmp_path / "t", tokenizer, **OPTIONS, augment=kind)
    plain, tokens = open_tokens(tmp_path / "plain"), open_tokens(tmp_path / "t")
    assert report.num_crops == tokens.num_crops == parse_augmentation(kind).num_crops
    assert (report.images, report.skipped) == (len(plain), 1) == (8, 1)
    assert [(key, codes.tolist()) for key, codes in tokens] == [(key, codes.tolist()) for key, codes in plain]
    assert verify_tokens(tmp_path / "t").problems == []


@pytest.mark.parametrize("kind", ["flip", "ten-crop", "random-crops=3"])
def test_every_crop_is_encoded_and_recorded(photos: list[Path], tokenizer: Path, tmp_path: Path, kind: str) -> None:
    encode(photos, tmp_path / "t", tokenizer, **OPTIONS, augment=kind)
    tokens, model = open_tokens(tmp_path / "t"), imtok.load(tokenizer)
    for index, name in ((0, "\x000.png"), (4, "\x005.png"), (6, "x\x000.png")):
        made = augment(picture((0, 0, 0, 0, 5, 0, 0)[index]), 32, "crop", parse_augmentation(kind), name)
        assert tokens.all_codes(index).tolist() == model.encode(made.pixels).tolist()
        crops = tokens.crops(index)
        assert crops is not None
        assert crops.tolist() == made.crops.tolist()


def test_crops_do_not_depend_on_who_encodes_them(photos: list[Path], tokenizer: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = OPTIONS | {"augment": "random-crops=4", "augment_seed": 5}
    encode(photos, tmp_path / "one", tokenizer, **options, workers=1)
    for rank in (1, 0):
        for index in (1, 0):
            who: dict[str, Any] = {"rank": rank, "world_size": 2, "shard": (index, 2), "workers": 3}
            report = encode(photos, tmp_path / "four", tokenizer, **options, **who)
    assert report.complete
    assert contents(tmp_path / "four") == contents(tmp_path / "one")


def test_equal_images_of_two_containers_have_crops_of_their_own(tokenizer: Path, tmp_path: Path) -> None:
    tars = [pictures_tar(tmp_path / f"{name}.tar", ["0.png"]) for name in "ab"]
    encode(tars, tmp_path / "t", tokenizer, augment="random-crops=3")
    first, second = (open_tokens(tmp_path / "t").crops(index) for index in range(2))
    assert first is not None
    assert second is not None
    assert not torch.equal(first, second)


def test_the_seed_of_the_crops_is_recorded(photos: list[Path], tokenizer: Path, tmp_path: Path) -> None:
    encode(photos, tmp_path / "t", tokenizer, **OPTIONS, augment="random-crops=3", augment_seed=9)
    info = open_tokens(tmp_path / "t").info
    assert (info.version, info.augment, info.augment_seed, info.num_crops) == (3, "random-crops=3", 9, 3)
    made = augment(picture(0), 32, "crop", Augmentation("random-crops", 3, seed=9), "\x000.png")
    crops = open_tokens(tmp_path / "t").crops(0)
    assert crops is not None
    assert crops.tolist() == made.crops.tolist()


@pytest.mark.parametrize(
    ("begun", "other", "differs"),
    [
        ({}, {"augment": "flip"}, "--augment none, this call has flip"),
        ({"augment": "flip"}, {"augment": "none"}, "--augment flip, this call has none"),
        ({"augment": "ten-crop"}, {"augment": "ten-crop=1.2"}, "--augment ten-crop=1.1, this call has ten-crop=1.2"),
        (
            {"augment": "random-crops=2"},
            {"augment": "random-crops=2", "augment_seed": 1},
            "--augment-seed 0, this call has 1",
        ),
    ],
)
def test_another_augmentation_on_resume_is_refused(
    tokenizer: Path, tmp_path: Path, begun: dict[str, Any], other: dict[str, Any], differs: str
) -> None:
    fill(tmp_path / "in", ["a.png"])
    encode([tmp_path / "in"], tmp_path / "t", tokenizer, **begun)
    before = contents(tmp_path / "t")
    with pytest.raises(TokensError, match=differs):
        encode([tmp_path / "in"], tmp_path / "t", tokenizer, **other)
    assert encode([tmp_path / "in"], tmp_path / "t", tokenizer).was_complete  # what is recorded is adopted
    assert encode([tmp_path / "in"], tmp_path / "t", tokenizer, **begun).was_complete
    assert contents(tmp_path / "t") == before


def test_what_cannot_be_augmented_is_refused_before_anything_is_written(tokenizer: Path, tmp_path: Path) -> None:
    fill(tmp_path / "in", ["a.png"])
    for options, message in (
        ({"augment": "ten-crop", "fit": "pad"}, "--fit pad keeps all of them"),
        ({"augment": "nine-crop"}, "expected none, flip, ten-crop"),
        ({"augment": "flip", "augment_seed": 1}, "--augment-seed 1: only random-crops are drawn"),
    ):
        with pytest.raises(ConfigError, match=message):
            encode([tmp_path / "in"], tmp_path / "t", tokenizer, **options)
    assert not (tmp_path / "t").exists()


def test_an_augmented_set_grows_with_its_inputs(tokenizer: Path, tmp_path: Path) -> None:
    fill(tmp_path / "in", ["a.png", "b.png"])
    encode([tmp_path / "in"], tmp_path / "t", tokenizer, **OPTIONS, augment="flip")
    first = (tmp_path / "t" / shard_path(0)).read_bytes()
    fill(tmp_path / "in", ["a.png", "b.png", "c.png"])
    assert encode([tmp_path / "in"], tmp_path / "t", tokenizer, **OPTIONS).units_added == 1
    assert (tmp_path / "t" / shard_path(0)).read_bytes() == first
    assert open_tokens(tmp_path / "t").all_codes(2).shape == (2, 4, 4)
    assert verify_tokens(tmp_path / "t").ok


def test_a_unit_without_readable_images_has_no_crops(tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(encoded(picture(0))[:100])
    encode(
        [tmp_path / "in", write_tar(tmp_path / "e.tar", [("a.txt", b"")])], tmp_path / "t", tokenizer, augment="flip"
    )
    for unit in (0, 1):
        shard = read_shard(tmp_path / "t" / shard_path(unit))
        assert shard.crops is not None
        assert (shard.all_codes.shape, shard.crops.shape) == ((0, 2, 4, 4), (0, 2, 5))
    assert verify_tokens(tmp_path / "t").ok


def test_statistics_and_description_know_of_crops(photos: list[Path], tokenizer: Path, tmp_path: Path) -> None:
    encode(photos, tmp_path / "plain", tokenizer, **OPTIONS)
    encode(photos, tmp_path / "t", tokenizer, **OPTIONS, augment="flip")
    found, plain = (analyze(tmp_path / name).statistics for name in ("t", "plain"))
    assert (found.images, found.usage) == (plain.images, plain.usage)
    facts = describe(tmp_path / "t")
    assert (facts["augment"], facts["num_crops"], facts["images"]) == ("flip", 2, 8)
    assert "augment" not in describe(tmp_path / "plain")


def test_decode_shows_the_crop_that_is_named(photos: list[Path], tokenizer: Path, tmp_path: Path) -> None:
    encode(photos, tmp_path / "t", tokenizer, **OPTIONS, augment="flip")
    model, tokens = imtok.load(tokenizer), open_tokens(tmp_path / "t")
    for crop in (0, 1):
        assert decode(tmp_path / "t", tmp_path / f"{crop}", crop=crop, batch_size=1).images == 8
        found = decode_image((tmp_path / f"{crop}/0.png.png").read_bytes())
        pixels = imtok.tokenizer.to_uint8(model.decode(tokens.all_codes(0)[crop][None]))[0]
        assert found.tobytes() == to_picture(pixels).tobytes()
    with pytest.raises(TokensError, match="holds images of --crop 1, this decode has 0"):
        decode(tmp_path / "t", tmp_path / "1", batch_size=1)
    with pytest.raises(ConfigError, match=r"--crop 2: .* has crops 0 to 1 of each image"):
        decode(tmp_path / "t", tmp_path / "2", crop=2)


def test_flip_of_padded_pictures_keeps_all_of_them(tokenizer: Path, tmp_path: Path) -> None:
    fill(tmp_path / "in", ["a.png"])
    encode([tmp_path / "in"], tmp_path / "t", tokenizer, fit="pad", augment="flip")
    tokens = open_tokens(tmp_path / "t")
    pixels = fit_image(picture(0), 32, "pad").pixels
    codes = imtok.load(tokenizer).encode(torch.stack([pixels, pixels.flip(-1)]))
    assert tokens.all_codes(0).tolist() == codes.tolist()
    crops = tokens.crops(0)
    assert crops is not None
    assert crops.tolist() == [[0, 0, 48, 40, 0], [0, 0, 48, 40, 1]]


def test_the_command_line_names_the_crops(tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "in", ["a.png", "b.png"])

    def run(command: str) -> str:
        result = CliRunner().invoke(app, command.split())
        assert result.exit_code == 0, result.output
        return result.output

    printed = run(f"encode in -o t -t {tokenizer} --augment random-crops=3 --augment-seed 4")
    assert "2 images in t: 3 crops, 4x4 = 16 tokens each" in printed
    assert "t: the statistics are of the first of 3 crops of each image" in run("stats t")
    run("decode t -o crop --crop 2")
    decode(tmp_path / "t", tmp_path / "again", crop=2)
    assert (tmp_path / "crop/a.png.png").read_bytes() == (tmp_path / "again/a.png.png").read_bytes()
    run("decode t -o first")
    assert (tmp_path / "first/a.png.png").read_bytes() != (tmp_path / "crop/a.png.png").read_bytes()
