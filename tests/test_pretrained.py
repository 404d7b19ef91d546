"""The tokenizer that comes with imtok: what it must be, and that it is what is used where none is named."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from making import fill, tiny_tokenizer
from typer.testing import CliRunner

import imtok
import imtok.tokenizer
from imtok.cli import app
from imtok.data.collection import ImageCollection
from imtok.encoding import encode
from imtok.errors import TokenizerError
from imtok.evaluation import measure
from imtok.tokenizer import PRETRAINED, find_tokenizer, pretrained_names
from imtok.tokens import open_tokens

FOLDER = Path(imtok.tokenizer.__file__).parent / "pretrained" / "imtok-f8"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return fill(tmp_path / "pictures", (f"{number}.png" for number in range(3)))


def test_it_is_small_in_bytes_and_in_bits() -> None:
    tokenizer = imtok.load("imtok-f8")
    assert (FOLDER / "model.safetensors").stat().st_size <= 8_000_000
    assert sorted(path.name for path in FOLDER.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert tokenizer.downsample == 8
    assert tokenizer.num_codebooks * math.log2(tokenizer.num_codes) <= 16
    assert imtok.load().fingerprint == tokenizer.fingerprint
    assert pretrained_names() == [PRETRAINED] == ["imtok-f8"]


def test_its_card_names_the_tokens_it_makes() -> None:
    """Tokens on people's disks were made with it: new weights need a new name."""
    assert imtok.load("imtok-f8").fingerprint in (FOLDER / "README.md").read_text()


def test_its_fingerprint_and_codes_stay() -> None:
    tokenizer = imtok.load("imtok-f8")
    assert tokenizer.fingerprint == "272236a8ee111af4fdad01c51e2214d5b4b33100b80651cad136848f4d37fccf"
    squares = torch.randint(0, 256, (1, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(28))
    # Of 40 seeds the one whose latents lie farthest, 0.015 levels, from where rounding goes the other way.
    codes = tokenizer.encode(squares.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3))
    assert codes.flatten().tolist() == [
        *(48934, 4521, 61941, 49822, 27568, 60437, 56399, 19300),
        *(55371, 43232, 39434, 19292, 16817, 48933, 19833, 61950),
    ]


def test_it_gives_photographs_back_at_25_dB(shared: Path) -> None:  # noqa: N802  (the unit)
    held_out = ImageCollection.open([shared / "data" / "photos"]).split(0.08)[1]
    quality = measure(imtok.load(), held_out.subsample(12), size=256)
    assert quality.psnr >= 25.0
    assert quality.bits_per_image <= 16 * 32 * 32


def test_encode_takes_it_where_no_tokenizer_is_named(pictures: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["encode", str(pictures), "-o", str(tmp_path / "tokens"), "--size", "32"])
    assert result.exit_code == 0, result.output
    assert "tokenizer: imtok-f8, which comes with imtok" in result.output
    tokens = open_tokens(tmp_path / "tokens")
    assert tokens.fingerprint == imtok.load("imtok-f8").fingerprint
    assert tokens[0][1].shape == (4, 4)


def test_a_token_folder_continues_with_its_own_tokenizer(pictures: Path, tmp_path: Path) -> None:
    own = tiny_tokenizer(tmp_path / "own")
    encode([pictures], tmp_path / "tokens", own)
    encode([pictures], tmp_path / "tokens")
    assert open_tokens(tmp_path / "tokens").fingerprint == imtok.load(own).fingerprint


def test_a_folder_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = imtok.load(tiny_tokenizer(Path("imtok-f8")))
    assert imtok.load("imtok-f8").fingerprint == own.fingerprint


def test_an_unknown_name_is_reported_with_the_known_ones() -> None:
    with pytest.raises(TokenizerError, match="imtok-f8, which comes with imtok"):
        find_tokenizer(Path("imtok-f9"))


def test_info_and_eval_know_its_name(pictures: Path) -> None:
    told = CliRunner().invoke(app, ["info", "imtok-f8"])
    assert told.exit_code == 0, told.output
    assert imtok.load().fingerprint in told.output.replace("\n", "")
    measured = CliRunner().invoke(app, ["eval", "imtok-f8", str(pictures), "--size", "32"])
    assert measured.exit_code == 0, measured.output


def test_it_encodes_and_decodes_any_multiple_of_eight() -> None:
    tokenizer = imtok.load()
    codes = tokenizer.encode(torch.zeros(1, 3, 40, 64, dtype=torch.uint8))
    assert codes.shape == (1, 5, 8)
    assert tokenizer.decode(codes).shape == (1, 3, 40, 64)
