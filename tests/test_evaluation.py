"""Quality figures by the stated protocol."""

from __future__ import annotations

import io
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from imtok.config import load_tokenizer_config
from imtok.data.collection import ImageCollection
from imtok.errors import ConfigError, SourceError
from imtok.evaluation import METRICS, PSNR, Measurement, Metric, build_metrics, evaluate, measure, psnr, ssim
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


def test_ssim_agrees_with_scikit_image() -> None:
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


def test_exact_images_are_counted_and_left_out_of_psnr() -> None:
    originals = torch.zeros(3, 3, 16, 16, dtype=torch.uint8)
    restored = originals.clone()
    restored[1] += 5
    some, none = (Measurement(build_metrics(), num_codes=4) for _ in range(2))
    some.update(restored, originals, torch.zeros(3, 2, 2, dtype=torch.int64))
    none.update(originals, originals, torch.zeros(3, 2, 2, dtype=torch.int64))
    quality = some.quality(skipped=0, size=16)
    assert (quality.images, quality.exact) == (3, 2)
    assert quality.psnr == pytest.approx(10 * math.log10(255**2 / 25))
    exact = none.quality(skipped=0, size=16)
    assert (exact.exact, exact.psnr, exact.as_dict()["psnr"]) == (3, math.inf, None)


def test_json_keeps_the_order_of_its_keys(tokenizer: Tokenizer, pictures: Path) -> None:
    keys = list(measure(tokenizer, ImageCollection.open([pictures]), size=16).as_dict())
    assert keys[:9] == [
        "images", "skipped", "size", "precision", "psnr", "exact", "ssim", "bits_per_image", "codebook_size",
    ]  # fmt: skip
    assert keys[-1] == "protocol"


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
    with pytest.raises(SourceError, match="no image of 1 can be read"):
        evaluate(tmp_path / "tokenizer", [bad])


class Distance(nn.Module):
    """In place of VGG16: the mean absolute difference, times a weight that knows its device."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def distances(self, restored: Tensor, originals: Tensor) -> Tensor:
        return self.weight * (restored - originals).abs().mean(dim=(1, 2, 3))


def fresh(metric: type[Metric]) -> Metric:
    return metric(Distance()) if metric.needs else metric()


@pytest.fixture
def pairs() -> list[tuple[Tensor, Tensor]]:
    """Batches of reconstructions and originals, of unequal sizes."""
    generator = torch.Generator().manual_seed(0)
    return [
        tuple(torch.randint(0, 256, (size, 3, 16, 16), generator=generator, dtype=torch.uint8) for _ in range(2))
        for size in (3, 1, 4)
    ]


@pytest.mark.parametrize("metric", [metric for metric in METRICS.values() if metric.by_default])
def test_merged_parts_are_the_whole_in_any_order(metric: type[Metric], pairs: list[tuple[Tensor, Tensor]]) -> None:
    whole = fresh(metric)
    for pair in pairs:
        whole.update(*pair)
    for order in ((0, 1, 2), (2, 0, 1)):
        parts = [fresh(metric) for _ in pairs]
        for part, pair in zip(parts, pairs, strict=True):
            part.update(*pair)
        merged = pickle.loads(pickle.dumps(parts[order[0]]))  # as it comes from another process
        assert merged.network is None
        for place in order[1:]:
            merged.merge(parts[place])
        assert merged.compute() == pytest.approx(whole.compute(), rel=1e-12)


def test_measurements_of_parts_merge_with_their_codes(pairs: list[tuple[Tensor, Tensor]]) -> None:
    codes = torch.arange(8 * 4).reshape(8, 2, 2) % 5
    parts = codes.split([3, 1, 4])
    whole, first, second = (Measurement(build_metrics(), num_codes=5) for _ in range(3))
    for measurement, chosen in ((whole, (0, 1, 2)), (first, (2,)), (second, (0, 1))):
        for place in chosen:
            measurement.update(*pairs[place], parts[place])
    first.merge(second)
    merged, expected = (each.quality(skipped=1, size=16) for each in (first, whole))
    assert merged.usage.counts.tolist() == expected.usage.counts.tolist()
    assert (merged.images, merged.exact, merged.bits_per_image) == (8, 0, 4 * math.log2(5))
    assert dict(merged.metrics) == pytest.approx(dict(expected.metrics), rel=1e-12)


def test_lpips_is_the_mean_over_images_whatever_the_batches(pairs: list[tuple[Tensor, Tensor]]) -> None:
    (lpips,) = [each for each in build_metrics({"perceptual": Distance()}) if each.name == "lpips"]
    for pair in pairs:
        lpips.update(*pair)
    restored, originals = (torch.cat(each).double() for each in zip(*pairs, strict=True))
    assert lpips.compute() == pytest.approx(float((restored - originals).abs().mean()) / 127.5, rel=1e-5)


def test_a_metric_without_its_network_says_why(
    tokenizer: Tokenizer, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    tokenizer.save(tmp_path / "tokenizer")
    with pytest.raises(ConfigError, match=r"metric lpips: .*hub/checkpoints/vgg16.*\.pth: no such file"):
        evaluate(tmp_path / "tokenizer", [pictures], metrics=["psnr", "lpips"])
    with pytest.raises(ConfigError, match="metric fid: unknown, expected one of psnr, ssim, ms_ssim, lpips"):
        evaluate(tmp_path / "tokenizer", [pictures], metrics=["fid"])
    with pytest.raises(TypeError, match="LPIPS takes the network perceptual"):
        METRICS["lpips"]()


def test_requested_metrics_alone_are_measured_with_their_networks(
    tokenizer: Tokenizer, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(METRICS["lpips"], "unavailable", classmethod(lambda _: ""))
    monkeypatch.setattr(METRICS["lpips"], "open_network", classmethod(lambda _: Distance()))
    tokenizer.save(tmp_path / "tokenizer")
    quality = evaluate(tmp_path / "tokenizer", [pictures], metrics=["lpips"])
    assert list(quality.metrics) == ["lpips"]
    assert 0 < quality.metrics["lpips"] < 2
    assert quality.as_dict()["lpips"] == quality.lpips
    assert "uint8 RGB; LPIPS VGG16" in quality.protocol


def test_values_are_formatted_and_compared_as_the_metric_declares() -> None:
    lpips, ssim_metric = METRICS["lpips"], METRICS["ssim"]
    assert (PSNR.format(25.0), PSNR.format(None), PSNR.format_briefly(math.inf)) == ("25.00 dB", "exact", "inf dB")
    assert (ssim_metric.format(0.5), ssim_metric.format_briefly(0.5)) == ("0.5000", "0.500")
    assert PSNR.is_better(25.0, 24.0)
    assert PSNR.is_better(None, 99.0)
    assert not PSNR.is_better(None, None)
    assert not PSNR.is_better(25.0, None)
    assert lpips.is_better(0.1, 0.2)
    assert not lpips.is_better(0.2, 0.1)


def test_images_smaller_than_a_metric_needs_are_refused(tmp_path: Path, pictures: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    with pytest.raises(ConfigError, match="--size 4: SSIM needs 8 pixels or more"):
        evaluate(tmp_path / "tokenizer", [pictures], size=4)
