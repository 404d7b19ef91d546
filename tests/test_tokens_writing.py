"""Token folders from codes made elsewhere: they open, verify and decode, and what does not fit is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from making import QUANTIZERS, encoded, picture, tiny, tiny_tokenizer

import imtok.tokens.writing as writing
from imtok.decoding import decode
from imtok.errors import TokensError
from imtok.tokens import open_tokens, verify_tokens, write_tokens

KEYS = ["a.png", "b/c.png", "d"]


def test_written_codes_open_verify_and_decode(tmp_path: Path) -> None:
    codes = np.arange(48).reshape(3, 4, 4)
    written = write_tokens(
        tmp_path / "t",
        KEYS,
        codes,
        tokenizer=tiny_tokenizer(tmp_path / "m"),
        labels=[1, None, 0],
        class_names=["x", "y"],
    )
    assert verify_tokens(tmp_path / "t").problems == []
    assert [key for key, _ in written] == KEYS
    assert all(torch.equal(found, torch.from_numpy(codes[index])) for index, (_, found) in enumerate(written))
    assert [written.label(index) for index in range(3)] == [1, None, 0]
    assert written.class_names == ("x", "y")
    assert decode(tmp_path / "t", tmp_path / "back").images == 3
    assert (tmp_path / "back/b/c.png.png").exists()


def test_many_images_become_several_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_UNIT_SIZE", 2)
    codes = torch.randint(0, 125, (5, 2, 2))  # another size than the tokenizer was trained for
    written = write_tokens(tmp_path / "t", [f"{each}" for each in range(5)], codes, tokenizer=tiny())
    assert len(written.units) == 3
    assert torch.equal(torch.stack([each for _, each in written]), codes)
    assert verify_tokens(tmp_path / "t").ok


def test_codes_of_an_encoded_image_round_trip(tmp_path: Path) -> None:
    model = tiny(quantizer=QUANTIZERS["residual"]).eval()
    (tmp_path / "one.png").write_bytes(encoded(picture(0, 32, 32)))
    image = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    codes = model.encode(image)
    write_tokens(tmp_path / "t", ["one"], codes, tokenizer=model)
    assert torch.equal(open_tokens(tmp_path / "t")[0][1], codes[0])


def test_no_images_make_an_empty_folder(tmp_path: Path) -> None:
    assert len(write_tokens(tmp_path / "t", [], np.zeros((0, 4, 4), int), tokenizer=tiny())) == 0


GOOD = np.zeros((3, 4, 4), int)
WRONG: dict[str, tuple[list[str], Any, dict[str, Any], str]] = {
    "too large": (KEYS, GOOD + 125, {}, r"codes span \[125, 125\], expected \[0, 125\)"),
    "negative": (KEYS, GOOD - 1, {}, r"span \[-1, -1\]"),
    "floats": (KEYS, GOOD + 0.5, {}, "float64, expected integers"),
    "flat": (KEYS, GOOD.reshape(3, 16), {}, r"shape \(3, 16\), this tokenizer needs \(N, h, h\)"),
    "not square": (KEYS, GOOD[:, :2], {}, "shape"),
    "with codebooks": (KEYS, GOOD[..., None], {}, "shape"),
    "few keys": (KEYS[:2], GOOD, {}, "2 keys for the codes of 3 images"),
    "a key twice": (["a", "b", "a"], GOOD, {}, "'a' occurs twice"),
    "a key that climbs": (["a", "../b", "c"], GOOD, {}, "expected a relative path"),
    "few labels": (KEYS, GOOD, {"labels": [1]}, "1 labels for the codes of 3"),
    "a label without name": (KEYS, GOOD, {"labels": [0, 1, 2], "class_names": ["x", "y"]}, "only 2 class names"),
    "a negative label": (KEYS, GOOD, {"labels": [0, -2, 1]}, "expected 0 or more"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused_and_nothing_written(name: str, tmp_path: Path) -> None:
    keys, codes, options, message = WRONG[name]
    with pytest.raises(TokensError, match=message):
        write_tokens(tmp_path / "t", keys, codes, tokenizer=tiny(), **options)
    assert not (tmp_path / "t").exists()


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(TokensError, match="not empty"):
        write_tokens(tmp_path, KEYS, GOOD, tokenizer=tiny())
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
