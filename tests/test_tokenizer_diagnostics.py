"""Diagnostics of a tokenizer beside its tokens: each part equals what its own function computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from making import QUANTIZERS, encoded, fill, picture, tiny

from imtok.analysis import count_by_codebook
from imtok.analysis.batched_runner import BatchedRunner
from imtok.analysis.robustness import PERTURBATIONS, EncodedImages, encode_with_error, idempotence, sensitivity
from imtok.analysis.statistics import TokenizerStatistics
from imtok.analysis.tokenizer_diagnostics import PASSES, diagnose_tokenizer
from imtok.analysis.visualisations import Visualisations, mean_patches
from imtok.config import NetworkConfig, TokenizerConfig
from imtok.data.collection import ImageCollection
from imtok.data.images import decode_image, fit_image
from imtok.encoding import encode
from imtok.errors import ConfigError, SourceError, TokenizerError, TokensError
from imtok.evaluation import measure, psnr, ssim
from imtok.quantizer_config import FSQConfig, QuantizerConfig
from imtok.tokenizer import Tokenizer, load, to_float, to_uint8
from imtok.tokens import TokenDataset, open_tokens

KEYS = [f"{number}.png" for number in range(9)]


def made(folder: Path, quantizer: QuantizerConfig, keys: list[str] = KEYS) -> tuple[Tokenizer, TokenDataset]:
    """A tokenizer and the tokens it made of images in `folder/images`."""
    tiny(quantizer=quantizer).save(folder / "tokenizer")
    encode([fill(folder / "images", keys)], folder / "tokens", folder / "tokenizer", unit_size=4, device="cpu")
    return load(folder / "tokenizer"), open_tokens(folder / "tokens")


@pytest.fixture(scope="module")
def fsq(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, TokenDataset, ImageCollection]:
    folder = tmp_path_factory.mktemp("fsq")
    tokenizer, tokens = made(folder, FSQConfig(levels=(5, 5, 5)))
    return tokenizer, tokens, ImageCollection.open([folder / "images"])


def counts_of(tokens: TokenDataset) -> np.ndarray:
    return count_by_codebook((shard.codes for shard in tokens.shards()), tokens.codebook_size, tokens.num_codebooks)


def diagnosed(
    tokenizer: Tokenizer, tokens: TokenDataset, **options: object
) -> tuple[TokenizerStatistics, Visualisations]:
    return diagnose_tokenizer(tokenizer, "mine", tokens, counts_of(tokens), device="cpu", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_tokenizer_of_every_kind_has_diagnostics(name: str, tmp_path: Path) -> None:
    tokenizer, tokens = made(tmp_path, QUANTIZERS[name], KEYS[:3])
    images = ImageCollection.open([tmp_path / "images"])
    for given in (None, images):
        statistics, visualisations = diagnosed(tokenizer, tokens, images=given, sample=2)
        assert (statistics.name, statistics.quantizer) == ("mine", QUANTIZERS[name].summary)
        assert [each.codebook for each in statistics.geometry] == sorted(
            QUANTIZERS[name].codebook_ids.index(table) for table in set(QUANTIZERS[name].codebook_ids)
        )
        assert sum(sum(each.point_counts) for each in statistics.geometry) == 3 * 16 * tokens.num_codebooks
        assert (statistics.error is None) == (given is None or name == "gumbel")
        assert (statistics.reconstruction is None) == (given is None)
        assert len(visualisations.codes) == np.count_nonzero(counts_of(tokens)[0])
        assert visualisations.swatches.shape == visualisations.patches.shape == (len(visualisations.codes), 8, 8, 3)
        assert visualisations.patch_counts.sum() == 2 * 16
        assert visualisations.decoded.shape == (2, 32, 32, 3)


def test_without_images_the_tokens_are_decoded(
    fsq: tuple[Tokenizer, TokenDataset, ImageCollection],
) -> None:
    tokenizer, tokens, _ = fsq
    statistics, visualisations = diagnosed(tokenizer, tokens, sample=4)
    runner = BatchedRunner(tokenizer, device="cpu")
    pairs = [tokens[index] for index in (0, 2, 4, 6)]
    codes = torch.stack([each for _, each in pairs])
    first_pass = EncodedImages(runner.decode(codes), runner.encode(runner.decode(codes)))
    assert statistics.idempotence == idempotence(runner, codes, first_pass)
    assert statistics.sensitivity == sensitivity(runner, first_pass, of_decoded=True)
    assert visualisations.keys == tuple(key for key, _ in pairs)
    assert visualisations.originals is None
    np.testing.assert_array_equal(visualisations.decoded, runner.decode(codes).permute(0, 2, 3, 1).numpy())
    counts = counts_of(tokens)[0]
    assert visualisations.counts.tolist() == sorted(counts[counts > 0], reverse=True)
    np.testing.assert_array_equal(visualisations.counts, counts[visualisations.codes])
    np.testing.assert_array_equal(
        visualisations.patches, mean_patches(runner.decode(codes), codes, visualisations.codes)[0]
    )


def test_images_decide_about_sensitivity_error_and_reconstruction(
    fsq: tuple[Tokenizer, TokenDataset, ImageCollection],
) -> None:
    tokenizer, tokens, images = fsq
    statistics, visualisations = diagnosed(tokenizer, tokens, images=images, sample=4)
    runner = BatchedRunner(tokenizer, device="cpu")
    few = images.subsample(4)
    pixels = torch.stack([fit_image(decode_image(few.read(index)), 32).pixels for index in range(4)])
    codes, error = encode_with_error(runner, pixels)
    assert statistics.sensitivity == sensitivity(runner, EncodedImages(pixels, codes))
    assert statistics.error == error
    quality = measure(tokenizer, few, size=32)
    assert statistics.reconstruction is not None
    assert (statistics.reconstruction.psnr, statistics.reconstruction.ssim) == (quality.psnr, quality.ssim)
    assert (statistics.reconstruction.images, statistics.reconstruction.protocol) == (4, quality.protocol)
    assert visualisations.originals is not None
    assert visualisations.keys == tuple(few.keys)
    np.testing.assert_array_equal(visualisations.originals, pixels.permute(0, 2, 3, 1).numpy())
    restored = runner.decode(runner.encode(pixels))
    np.testing.assert_array_equal(visualisations.decoded, restored.permute(0, 2, 3, 1).numpy())


def test_images_are_padded_where_those_of_the_tokens_were(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for seed in range(3):
        (tmp_path / "images" / f"{seed}.png").write_bytes(encoded(picture(seed, 128, 32)))
    tiny().save(tmp_path / "tokenizer")
    tokenizer, images = load(tmp_path / "tokenizer"), ImageCollection.open([tmp_path / "images"])
    encode([tmp_path / "images"], tmp_path / "tokens", tmp_path / "tokenizer", fit="pad", device="cpu")
    tokens = open_tokens(tmp_path / "tokens")
    statistics, visualisations = diagnosed(tokenizer, tokens, images=images)
    padded = torch.stack([fit_image(picture(seed, 128, 32), 32, "pad").pixels for seed in range(3)])
    assert visualisations.originals is not None
    np.testing.assert_array_equal(visualisations.originals, padded.permute(0, 2, 3, 1).numpy())
    restored = to_uint8(tokenizer.decode(tokenizer.encode(padded)))
    assert statistics.reconstruction is not None
    assert statistics.reconstruction.psnr == pytest.approx(float(psnr(restored, padded).mean()), abs=0.01)
    assert statistics.reconstruction.ssim == pytest.approx(float(ssim(restored, padded).mean()), abs=1e-3)
    assert "longer side 32, edges repeated" in statistics.reconstruction.protocol


def test_the_batch_size_changes_only_the_last_bits(fsq: tuple[Tokenizer, TokenDataset, ImageCollection]) -> None:
    tokenizer, tokens, images = fsq
    one, two = (diagnosed(tokenizer, tokens, images=images, batch_size=size)[0] for size in (2, 16))
    assert one.geometry == two.geometry
    for pair in zip(one.idempotence.passes, two.idempotence.passes, strict=True):
        assert pair[0].same_as_first == pytest.approx(pair[1].same_as_first, abs=0.02)
        assert pair[0].psnr == pytest.approx(pair[1].psnr, abs=0.05)
    for before, after in zip(one.sensitivity.disturbances, two.sensitivity.disturbances, strict=True):
        assert (before.name, before.psnr) == (after.name, after.psnr)
        assert before.changed == pytest.approx(after.changed, abs=0.02)
    assert one.error is not None
    assert two.error is not None
    assert one.error.mean == pytest.approx(two.error.mean, rel=1e-3)
    assert one.error.relative == pytest.approx(two.error.relative, rel=1e-3)
    assert sum(one.error.tokens) == sum(two.error.tokens) == 9 * 16
    assert one.reconstruction is not None
    assert two.reconstruction is not None
    assert one.reconstruction.images == two.reconstruction.images == 9
    assert one.reconstruction.psnr == pytest.approx(two.reconstruction.psnr, abs=0.01)
    assert one.reconstruction.ssim == pytest.approx(two.reconstruction.ssim, abs=1e-3)


def test_images_that_all_come_back_exactly_have_no_psnr(
    fsq: tuple[Tokenizer, TokenDataset, ImageCollection], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, tokens, images = fsq
    monkeypatch.setattr("imtok.evaluation.pixels.psnr", lambda restored, _: torch.full((len(restored),), torch.inf))
    statistics, _ = diagnosed(tokenizer, tokens, images=images)
    assert statistics.reconstruction is not None
    assert statistics.reconstruction.psnr is None
    assert statistics.reconstruction.images == 9


@pytest.mark.parametrize("with_images", [True, False])
def test_each_image_of_the_sample_is_encoded_once(
    with_images: bool, fsq: tuple[Tokenizer, TokenDataset, ImageCollection], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, tokens, images = fsq
    encoded: list[bytes] = []
    forward = tokenizer.encoder.forward

    def counted(batch: torch.Tensor) -> torch.Tensor:
        encoded.extend(image.numpy().tobytes() for image in batch)
        return forward(batch)

    monkeypatch.setattr(tokenizer.encoder, "forward", counted)
    diagnosed(tokenizer, tokens, images=images if with_images else None, sample=4)
    assert len(encoded) == 4 * (PASSES + len(PERTURBATIONS) + with_images)
    if with_images:
        pixels = [fit_image(decode_image(images.read(index)), 32).pixels for index in (0, 2, 4, 6)]
        assert [encoded.count(to_float(each).numpy().tobytes()) for each in pixels] == [1] * 4


@pytest.mark.parametrize("name", ["fsq", "gumbel", "product"])
@pytest.mark.parametrize("given", [True, False])
def test_progress_ends_at_the_announced_total(name: str, given: bool, tmp_path: Path) -> None:
    tokenizer, tokens = made(tmp_path, QUANTIZERS[name], KEYS[:8])
    (tmp_path / "images" / "bad.png").write_bytes(b"nothing")
    images = ImageCollection.open([tmp_path / "images"]) if given else None
    assert_steps_end_at_their_total(tokenizer, tokens, images)


def assert_steps_end_at_their_total(tokenizer: Tokenizer, tokens: TokenDataset, images: ImageCollection | None) -> None:
    heard: list[tuple[int, int]] = []
    diagnosed(tokenizer, tokens, images=images, batch_size=3, progress=lambda *step: heard.append(step))
    assert heard == sorted(heard)
    assert len({total for _, total in heard}) == 1
    assert heard[-1][0] == heard[-1][1]


def test_another_tokenizer_is_refused(fsq: tuple[Tokenizer, TokenDataset, ImageCollection]) -> None:
    _, tokens, _ = fsq
    other = tiny(seed=1)
    with pytest.raises(TokenizerError) as refused:
        diagnosed(other, tokens)
    text = str(refused.value)
    assert "\n" not in text
    assert text.startswith("mine: ")
    assert other.fingerprint[:12] in text
    assert tokens.fingerprint[:12] in text


def test_a_token_set_of_no_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"nothing")
    tiny().save(tmp_path / "tokenizer")
    encode([tmp_path / "images"], tmp_path / "tokens", tmp_path / "tokenizer", device="cpu")
    with pytest.raises(TokensError, match="holds tokens of no image"):
        diagnosed(load(tmp_path / "tokenizer"), open_tokens(tmp_path / "tokens"))


def test_a_sample_of_none_is_refused(fsq: tuple[Tokenizer, TokenDataset, ImageCollection]) -> None:
    tokenizer, tokens, _ = fsq
    with pytest.raises(ConfigError, match="sample 0: expected 1 image or more"):
        diagnosed(tokenizer, tokens, sample=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_sees_what_a_cpu_sees(tmp_path: Path) -> None:
    tokenizer, tokens = made(tmp_path, QUANTIZERS["residual"])
    images = ImageCollection.open([tmp_path / "images"])
    slow, _ = diagnosed(tokenizer, tokens, images=images)
    fast, _ = diagnose_tokenizer(tokenizer, "mine", tokens, counts_of(tokens), images=images, device="cuda")
    assert fast.geometry == slow.geometry
    assert fast.idempotence.passes[0].same_as_first == pytest.approx(slow.idempotence.passes[0].same_as_first, abs=0.02)
    assert fast.error is not None
    assert slow.error is not None
    assert fast.error.mean == pytest.approx(slow.error.mean, rel=0.01)


def test_unreadable_images_are_left_out_unless_all_are(
    fsq: tuple[Tokenizer, TokenDataset, ImageCollection], tmp_path: Path
) -> None:
    tokenizer, tokens, _ = fsq
    (tmp_path / "bad.png").write_bytes(b"nothing")
    with pytest.raises(SourceError, match="no image of 1 can be read"):
        diagnosed(tokenizer, tokens, images=ImageCollection.open([tmp_path]))
    for seed, name in enumerate(("a.png", "gone.png", "z.png")):
        (tmp_path / name).write_bytes(encoded(picture(seed)))
    images = ImageCollection.open([tmp_path])
    assert images.keys == ["a.png", "bad.png", "gone.png", "z.png"]
    (tmp_path / "gone.png").unlink()
    statistics, visualisations = diagnosed(tokenizer, tokens, images=images)
    assert (statistics.sensitivity.images, visualisations.keys) == (2, ("a.png", "z.png"))
    assert statistics.reconstruction is not None
    assert statistics.reconstruction.images == 2
    assert visualisations.originals is not None
    for original, seed in zip(visualisations.originals, (0, 2), strict=True):
        np.testing.assert_array_equal(original, fit_image(picture(seed), 32).pixels.permute(1, 2, 0).numpy())


def test_images_too_small_for_ssim_have_no_reconstruction(tmp_path: Path) -> None:
    network = NetworkConfig(fold=2, channels=(8,), blocks=1)
    Tokenizer(TokenizerConfig(network=network, size=8)).save(tmp_path / "tokenizer")
    images = fill(tmp_path / "images", KEYS[:2])
    encode([images], tmp_path / "tokens", tmp_path / "tokenizer", size=4, device="cpu")
    tokens = open_tokens(tmp_path / "tokens")
    tokenizer, opened = load(tmp_path / "tokenizer"), ImageCollection.open([images])
    statistics, _ = diagnosed(tokenizer, tokens, images=opened)
    assert statistics.reconstruction is None
    assert statistics.error is not None
    assert_steps_end_at_their_total(tokenizer, tokens, opened)
