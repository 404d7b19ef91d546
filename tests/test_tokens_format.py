"""A tokenizer and a token folder of format 1, kept as files: every later imtok reads them to the same codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from making import contents, picture

import imtok
from imtok.data.images import fit_image, image_size
from imtok.decoding import decode
from imtok.description import describe
from imtok.packed_strings import PackedStrings
from imtok.tokens import Shard, ShardHeader, open_tokens, read_manifest, read_shard, shard_to_bytes, verify_tokens

FORMATS = Path(__file__).parent / "formats"
FINGERPRINT = "22566e9c718db44cfe465896f613c678f5624ff796ac175e5e803a6c5f6168e5"
DATASET_ID = "ca294b049855adf7baec319a5448f37d98cfabd4af9f3152c42134fd51cc7e09"
CODES = {
    "cat/a.png": [[141, 76], [180, 221]],
    "cat/b.png": [[41, 157], [166, 191]],
    "dog/c.png": [[60, 270], [60, 157]],
    "t.png": [[41, 76], [82, 172]],
}


def test_a_tokenizer_of_format_1_keeps_fingerprint_and_codes() -> None:
    tokenizer = imtok.load(FORMATS / "tokenizer-v1")
    assert tokenizer.fingerprint == FINGERPRINT
    assert (tokenizer.num_codes, tokenizer.downsample) == (300, 8)
    pixels = fit_image(picture(0), 16).pixels
    assert tokenizer.encode(pixels[None])[0].tolist() == CODES["cat/a.png"]


def test_a_tokenizer_of_format_1_is_saved_as_it_was(tmp_path: Path) -> None:
    imtok.load(FORMATS / "tokenizer-v1").save(tmp_path / "again")
    again = imtok.load(tmp_path / "again")
    assert again.fingerprint == FINGERPRINT
    weights = "model.safetensors"
    assert (tmp_path / "again" / weights).read_bytes() == (FORMATS / "tokenizer-v1" / weights).read_bytes()


def test_tokens_of_format_1_open_with_codes_labels_and_skips() -> None:
    tokens = open_tokens(FORMATS / "tokens-v1")
    assert {key: codes.tolist() for key, codes in tokens} == CODES
    assert tokens[0][1].dtype == torch.int64
    assert [tokens.label(index) for index in range(4)] == [0, 0, 1, 7]
    assert (tokens.class_names, tokens.grid, tokens.codebook_size) == (("cat", "dog"), (2, 2), 300)
    assert tokens.fingerprint == FINGERPRINT
    skipped = [pair for shard in tokens.shards() for pair in zip(shard.skip_keys, shard.skip_reasons, strict=True)]
    assert skipped == [("dog/cut.png", "truncated"), ("../up.png", "unsafe name")]


def test_tokens_of_format_1_are_described_with_their_classes() -> None:
    facts = describe(FORMATS / "tokens-v1")
    assert facts["classes"] == {"cat": 2, "dog": 1, "7": 1}  # the last from the .cls of a tar
    assert facts["skipped"] == {"truncated": 1, "unsafe name": 1}


def test_tokens_of_format_1_pass_verification_under_their_name() -> None:
    found = verify_tokens(FORMATS / "tokens-v1")
    assert found.problems == []
    assert (found.images, found.skipped, found.units) == (4, 2, 3)
    manifest = read_manifest(FORMATS / "tokens-v1")
    assert manifest is not None
    assert manifest.dataset_id == DATASET_ID


def test_tokens_of_format_1_decode_to_images(tmp_path: Path) -> None:
    before = contents(FORMATS / "tokens-v1")
    report = decode(FORMATS / "tokens-v1", tmp_path / "images")
    assert (report.images, report.skipped) == (4, 2)
    names = ["cat/a.png.png", "cat/b.png.png", "dog/c.png.png", "shard/t.png.png"]
    files = sorted((tmp_path / "images").rglob("*.png"))
    assert [path.relative_to(tmp_path / "images").as_posix() for path in files] == names
    assert {image_size(path.read_bytes()) for path in files} == {(16, 16)}
    assert contents(FORMATS / "tokens-v1") == before


def test_an_image_takes_33_bytes_beside_codes_and_key(tmp_path: Path) -> None:
    images = 2048  # in a unit of the folder list
    shard = Shard(
        header=ShardHeader(unit=4882, inputs=images, fingerprint=FINGERPRINT, codebook_size=65536),
        codes=np.zeros((images, 32, 32), np.uint16),
        keys=PackedStrings.pack(f"n00000007/{number:08d}.jpg" for number in range(images)),
        index=np.arange(images),
        original_size=np.full((images, 2), 500, np.int32),
        labels=np.zeros(images, np.int64),
        skip_index=np.empty(0, np.int64),
        skip_keys=PackedStrings.pack([]),
        skip_reasons=PackedStrings.pack([]),
    )
    path = tmp_path / "x.safetensors"
    path.write_bytes(shard_to_bytes(shard))
    read = read_shard(path)
    assert read.labels is not None
    assert len(read) == images
    others = path.stat().st_size - read.codes.nbytes - read.keys.data.nbytes
    assert 32 < others / images <= 33
