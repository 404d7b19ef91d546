"""Idempotence, sensitivity and quantization error equal direct computations, and known values on a plain tokenizer."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from making import QUANTIZERS, picture, tiny
from torch import Tensor, nn

from imtok.analysis import robustness
from imtok.analysis.batched_runner import BatchedRunner
from imtok.analysis.robustness import (
    EncodedImages,
    encode_with_error,
    idempotence,
    mean_psnr,
    sensitivity,
    shift_down,
    shift_right,
    through_jpeg,
)
from imtok.analysis.statistics import ErrorByCode, Idempotence, Sensitivity
from imtok.data.images import to_tensor
from imtok.evaluation import psnr
from imtok.kernels import finite_scalar_bound
from imtok.quantizer_config import FSQConfig
from imtok.tokenizer import Tokenizer, to_uint8

MEASURABLE = [name for name in QUANTIZERS if name != "gumbel"]


class _Means(nn.Module):
    """The mean colour of each 8 x 8 patch, where FSQ of 5 levels rounds it to the nearest of -1, -1/2, 0, 1/2, 1."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.atanh(0.95 * F.avg_pool2d(images, 8))


class _Squares(nn.Module):
    def forward(self, latents: Tensor) -> Tensor:
        return F.interpolate(latents, scale_factor=8)


def mosaic() -> Tokenizer:
    """Codes are colours: what it decodes has the codes it was decoded from."""
    tokenizer = tiny(quantizer=FSQConfig(levels=(5, 5, 5)))
    weight = tokenizer.encoder.conv_out.weight
    tokenizer.encoder, tokenizer.decoder = _Means(), _Squares()  # type: ignore[assignment]
    tokenizer.register_parameter("weight", nn.Parameter(weight.detach()))  # it has to be somewhere
    return tokenizer


def code(red: int, green: int, blue: int) -> int:
    """Of levels 0 .. 4."""
    return red + 5 * green + 25 * blue


def images_of(count: int) -> Tensor:
    return torch.stack([to_tensor(picture(seed, 32, 32)) for seed in range(count)])


def runner_of(name: str) -> BatchedRunner:
    return BatchedRunner(tiny(quantizer=QUANTIZERS[name]), device="cpu", batch_size=2)


def idempotence_of(runner: BatchedRunner, codes: Tensor, passes: int = 3) -> Idempotence:
    decoded = runner.decode(codes)
    return idempotence(runner, codes, EncodedImages(decoded, runner.encode(decoded)), passes)


def sensitivity_of(runner: BatchedRunner, images: Tensor, *, of_decoded: bool = False) -> Sensitivity:
    return sensitivity(runner, EncodedImages(images, runner.encode(images)), of_decoded=of_decoded)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_idempotence_equals_passes_by_hand(name: str) -> None:
    runner = runner_of(name)
    tokenizer = runner.tokenizer
    start = runner.encode(images_of(4))
    found = idempotence_of(runner, start, passes=2)
    first = to_uint8(tokenizer.decode(start))
    once = tokenizer.encode(first)
    second = to_uint8(tokenizer.decode(once))
    twice = tokenizer.encode(second)
    third = to_uint8(tokenizer.decode(twice))
    assert found.images == 4
    assert [each.same_as_first for each in found.passes] == pytest.approx(
        [float((codes == start).double().mean()) for codes in (once, twice)]
    )
    assert [each.same_as_last for each in found.passes] == pytest.approx(
        [found.passes[0].same_as_first, float((twice == once).double().mean())]
    )
    assert [each.psnr for each in found.passes] == [mean_psnr(second, first), mean_psnr(third, first)]


def test_a_tokenizer_that_keeps_codes_is_idempotent() -> None:
    codes = torch.randint(0, 125, (3, 4, 4), generator=torch.Generator().manual_seed(0))
    found = idempotence_of(BatchedRunner(mosaic(), device="cpu"), codes)
    assert [(each.same_as_first, each.same_as_last, each.psnr) for each in found.passes] == [(1, 1, None)] * 3
    assert found.least_stable == []


def test_the_least_stable_codes_changed_most_and_occur_often_enough() -> None:
    tokenizer = mosaic()
    codes = torch.full((1, 4, 4), code(2, 2, 2))
    codes[0, :2] = code(0, 0, 0)
    codes[0, 3, 3] = code(4, 4, 4)  # changes too, but is seen once
    dark, bright = (levels / 2 - 1 for levels in (torch.tensor([0.0] * 3), torch.tensor([4.0] * 3)))
    tokenizer.decoder = _Moved(tokenizer.decoder, {tuple(dark.tolist()): 0.5, tuple(bright.tolist()): -0.5})
    found = idempotence_of(BatchedRunner(tokenizer, device="cpu"), codes, passes=1)
    assert found.passes[0].same_as_first == pytest.approx(1 - 9 / 16)
    assert [(each.code, each.share, each.tokens) for each in found.least_stable] == [(code(0, 0, 0), 1.0, 8)]


class _Moved(nn.Module):
    """Decodes some colours to others."""

    def __init__(self, decoder: nn.Module, moves: dict[tuple[float, ...], float]) -> None:
        super().__init__()
        self.decoder, self.moves = decoder, moves

    def forward(self, latents: Tensor) -> Tensor:
        moved = latents.clone()
        for colour, by in self.moves.items():
            there = (latents == torch.tensor(colour).view(1, 3, 1, 1)).all(dim=1, keepdim=True)
            moved = torch.where(there, latents + by, moved)
        return self.decoder(moved)


def test_a_shift_leaves_a_constant_image_unchanged() -> None:
    grey = torch.full((2, 3, 32, 32), 128, dtype=torch.uint8)
    found = sensitivity_of(runner_of("vq"), grey, of_decoded=True)
    assert (found.images, found.of_decoded) == (2, True)
    assert [each.name for each in found.disturbances] == [
        "shift right by 1 pixel",
        "shift down by 1 pixel",
        "JPEG quality 95",
        "JPEG quality 75",
    ]
    for shift in found.disturbances[:2]:
        assert (shift.changed, shift.psnr, shift.most_changed) == (0, None, [])
        assert all(each.share == 0 for each in shift.least_changed)


def test_a_shift_changes_only_codes_at_an_edge() -> None:
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    images[..., 16:] = 255
    right, down, *_ = sensitivity_of(BatchedRunner(_sharp(), device="cpu"), images).disturbances
    assert right.changed == 4 / 16  # one column of codes
    assert [(each.code, each.share, each.tokens) for each in right.most_changed] == [(code(4, 4, 4), 0.5, 8)]
    assert [(each.code, each.share) for each in right.least_changed] == [(0, 0.0), (code(4, 4, 4), 0.5)]
    assert right.psnr == pytest.approx(float(psnr(shift_right(images), images)))
    assert (down.changed, down.psnr) == (0, None)


def _sharp() -> Tokenizer:
    """As `mosaic`, but a patch that is not of one colour has code 62, the middle gray."""
    tokenizer = mosaic()
    tokenizer.encoder = _Plain()  # type: ignore[assignment]
    return tokenizer


class _Plain(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        mean, largest = F.avg_pool2d(images, 8), F.max_pool2d(images, 8)
        return torch.atanh(0.95 * torch.where((mean - largest).abs() < 1e-5, mean, 0.0))


@pytest.mark.parametrize("name", ["fsq", "residual", "product", "gumbel"])
def test_every_code_of_every_codebook_counts_towards_the_change(name: str) -> None:
    runner = runner_of(name)
    images = images_of(3)
    found = sensitivity_of(runner, images)
    codes = runner.encode(images)
    disturbed = (shift_right(images), shift_down(images), through_jpeg(images, 95), through_jpeg(images, 75))
    for each, other in zip(found.disturbances, disturbed, strict=True):
        assert each.changed == pytest.approx(float((runner.encode(other) != codes).double().mean()))
        assert each.psnr == pytest.approx(float(psnr(other, images).mean()))
    assert found.disturbances[2].psnr > found.disturbances[3].psnr  # type: ignore[operator]


def test_codes_with_equal_shares_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robustness, "LISTED", 3)
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    for column, grey in enumerate((255, 0, 128, 64)):
        images[..., 8 * column : 8 * column + 8] = grey
    monkeypatch.setattr(robustness, "SEEN", 4)
    right = sensitivity_of(BatchedRunner(_sharp(), device="cpu"), images).disturbances[0]
    assert [each.code for each in right.least_changed] == [code(2, 2, 2), code(4, 4, 4), 0]
    assert [(each.code, each.share) for each in right.most_changed] == [(0, 1.0), (code(1, 1, 1), 1.0)]


def test_shifts_repeat_the_edge() -> None:
    image = torch.arange(4, dtype=torch.uint8).view(1, 1, 2, 2)
    assert shift_right(image).tolist() == [[[[0, 0], [2, 2]]]]
    assert shift_down(image).tolist() == [[[[0, 1], [0, 1]]]]


def test_mean_psnr_covers_the_images_that_differ() -> None:
    black = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    other = black.clone()
    other[1] += 5
    assert mean_psnr(other, black) == float(psnr(other, black)[1])
    assert mean_psnr(black, black) is None


def error_of(runner: BatchedRunner, images: Tensor) -> ErrorByCode:
    codes, found = encode_with_error(runner, images)
    assert torch.equal(codes, runner.encode(images))
    assert found is not None
    return found


@pytest.mark.parametrize("name", ["vq", "cosine", "simvq", "frozen", "ibq", "lfq", "bsq", "product", "product-shared"])
def test_the_mean_error_is_the_commitment_loss(name: str) -> None:
    runner = runner_of(name)
    images = images_of(2)
    ((_, quantized),) = runner.latents(images)
    assert error_of(runner, images).mean == pytest.approx(float(quantized.losses["commitment"]), rel=1e-4)


@pytest.mark.parametrize("name", MEASURABLE)
def test_errors_by_code_add_up_to_the_mean(name: str) -> None:
    runner = runner_of(name)
    images = images_of(3)
    found = error_of(runner, images)
    codes = runner.encode(images)
    first = codes if runner.tokenizer.num_codebooks == 1 else codes[..., 0]
    values, counts = first.unique(return_counts=True)
    assert (found.codes, found.tokens) == (values.tolist(), counts.tolist())
    total = sum(error * tokens for error, tokens in zip(found.errors, found.tokens, strict=True))
    assert total / sum(found.tokens) == pytest.approx(found.mean)


def test_the_error_of_fsq_is_that_of_rounding_bounded_latents() -> None:
    runner = runner_of("fsq")
    images = images_of(2)
    ((latents, quantized),) = runner.latents(images)
    bounded = torch.stack(
        [finite_scalar_bound(latents[:, i], level) / (level // 2) for i, level in enumerate((7, 5, 5))], dim=1
    )
    differences = (bounded - quantized.latents).square()
    found = error_of(runner, images)
    assert found.mean == pytest.approx(float(differences.mean()), rel=1e-5)
    assert found.relative == pytest.approx(float(differences.sum() / bounded.square().sum()), rel=1e-5)
    there = quantized.codes == found.codes[0]
    assert found.errors[0] == pytest.approx(float(differences.mean(dim=1)[there].mean()), rel=1e-5)


@pytest.mark.parametrize("name", ["residual", "residual-shared", "residual-fsq"])
def test_the_error_of_a_residual_quantizer_remains_after_all_stages(name: str) -> None:
    runner = runner_of(name)
    images = images_of(2)
    ((latents, quantized),) = runner.latents(images)
    left = (latents - runner.tokenizer.quantizer.lookup(quantized.codes)).square().mean()
    assert error_of(runner, images).mean == pytest.approx(float(left), rel=1e-5)


def test_codes_of_gumbel_have_no_error() -> None:
    runner = runner_of("gumbel")
    codes, error = encode_with_error(runner, images_of(1))
    assert torch.equal(codes, runner.encode(images_of(1)))
    assert error is None


def test_only_the_most_frequent_of_many_codes_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = runner_of("fsq")
    whole = error_of(runner, images_of(3))
    monkeypatch.setattr(robustness, "MOST_ERRORS", 2)
    found = error_of(runner, images_of(3))
    assert found.mean == whole.mean
    assert sorted(found.tokens) == sorted(whole.tokens)[-2:]
    assert found.codes == sorted(found.codes)
