"""Quality figures by the stated protocol."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imtok.config import load_tokenizer_config
from imtok.data.collection import ImageCollection
from imtok.errors import ConfigError, SourceError
from imtok.evaluation import evaluate, measure, psnr, ssim
from imtok.tokenizer import Tokenizer, to_uint8

CONFIG = {
    "size": 16,
    "network": {"fold": 2, "channels": [8, 16], "blocks": 1},
    "quantizer": {"kind": "fsq", "levels": [5, 5]},
}


@pytest.fixture
def tokenizer() -> Tokenizer:
    torch.manual_seed(0)
    return Tokenizer(load_tokenizer_config(CONFIG, "test")).eval()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for number in range(5):
        pixels = random.integers(0, 256, (30 + number, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return tmp_path


def test_psnr_is_the_textbook_value_per_image() -> None:
    black = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    other = black.clone()
    other[1] += 5
    values = psnr(other, black)
    assert values[0] == math.inf
    assert values[1].item() == pytest.approx(10 * math.log10(255**2 / 25))


def test_psnr_does_not_wrap_around_uint8() -> None:
    zero = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    assert psnr(zero, torch.full_like(zero, 255)).item() == pytest.approx(0.0)


def test_ssim_is_one_for_equal_pictures_and_agrees_with_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    generator = torch.Generator().manual_seed(0)
    one = torch.randint(0, 256, (1, 3, 32, 32), generator=generator, dtype=torch.uint8)
    other = (one.float() * 0.8 + 20).to(torch.uint8)
    assert ssim(one, one).item() == pytest.approx(1.0)
    # scikit-image crops the border that its window does not cover; so the two are compared on its whole map.
    _, full = metrics.structural_similarity(
        one[0].permute(1, 2, 0).numpy(),
        other[0].permute(1, 2, 0).numpy(),
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
        full=True,
    )
    assert ssim(other, one).item() == pytest.approx(full[5:-5, 5:-5].mean(), abs=0.01)


def test_the_figures_are_those_of_the_protocol_worked_by_hand(tokenizer: Tokenizer, pictures: Path) -> None:
    quality = measure(tokenizer, ImageCollection.open([pictures]), size=16, batch_size=2)
    expected = []
    for path in sorted(pictures.iterdir()):
        picture = Image.fromarray(np.array(Image.open(io.BytesIO(path.read_bytes()))))
        width, height = picture.size
        resized = picture.resize((round(width * 16 / height), 16), Image.Resampling.BICUBIC)
        left = (resized.width - 16) // 2
        pixels = torch.from_numpy(np.array(resized.crop((left, 0, left + 16, 16)))).permute(2, 0, 1)[None]
        restored = to_uint8(tokenizer.decode(tokenizer.encode(pixels)))
        error = (restored.double() - pixels.double()).square().mean().item()
        expected.append(10 * math.log10(255**2 / error))
    assert quality.psnr == pytest.approx(np.mean(expected), rel=1e-5)
    assert quality.images == 5
    assert quality.usage.tokens == 5 * 16
    assert quality.bits_per_image == pytest.approx(16 * math.log2(25))
    assert "centre crop 16x16" in quality.protocol


def test_padded_pictures_are_measured_padded_and_the_protocol_says_so(tokenizer: Tokenizer, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    images = ImageCollection.open([tmp_path])
    inside = np.array(Image.fromarray(pixels).resize((16, 4), Image.Resampling.BICUBIC))
    padded = torch.from_numpy(np.concatenate([inside[:1].repeat(6, 0), inside, inside[-1:].repeat(6, 0)]))
    padded = padded.permute(2, 0, 1)[None]
    restored = to_uint8(tokenizer.decode(tokenizer.encode(padded)))
    quality = measure(tokenizer, images, size=16, fit="pad")
    assert quality.psnr == pytest.approx(float(psnr(restored, padded)), abs=1e-3)
    assert quality.psnr != pytest.approx(measure(tokenizer, images, size=16).psnr, abs=0.1)
    assert "longer side 16, edges repeated to 16x16 and compared too, fp32" in quality.protocol
    assert "crop" not in quality.protocol


def test_images_that_come_back_exactly_are_counted_and_left_out_of_the_mean(
    tokenizer: Tokenizer, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = measure(tokenizer, ImageCollection.open([pictures]), size=16)
    exact = torch.tensor([math.inf, 20.0, math.inf, 30.0, 40.0])
    monkeypatch.setattr("imtok.evaluation.psnr", lambda *_: exact)
    quality = measure(tokenizer, ImageCollection.open([pictures]), size=16)
    assert (plain.exact, quality.exact, quality.psnr) == (0, 2, 30.0)
    exact[:] = math.inf
    assert measure(tokenizer, ImageCollection.open([pictures]), size=16).as_dict()["psnr"] is None


def test_unreadable_images_are_left_out_and_counted(tokenizer: Tokenizer, pictures: Path) -> None:
    (pictures / "bad.jpg").write_bytes(b"bad")
    quality = measure(tokenizer, ImageCollection.open([pictures]), size=16)
    assert (quality.images, quality.skipped) == (5, 1)


def test_what_cannot_be_measured_is_refused(tokenizer: Tokenizer, pictures: Path, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    with pytest.raises(ConfigError, match="no multiple"):
        evaluate(tmp_path / "tokenizer", [pictures], size=18)
    bad = tmp_path / "only-bad"
    bad.mkdir()
    (bad / "x.jpg").write_bytes(b"bad")
    with pytest.raises(SourceError, match="none of the 1 images"):
        evaluate(tmp_path / "tokenizer", [bad])
