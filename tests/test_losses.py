"""The losses by values worked out by hand, their gradients, and what they refuse."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from vgg import vgg_weights

from imtok.config.training import GANQPConfig
from imtok.errors import ConfigError
from imtok.losses import (
    AdversarialKind,
    LeCAM,
    Pairs,
    PerceptualLoss,
    adaptive_weight,
    backbone,
    discriminator_accuracy,
    discriminator_loss,
    feature_distance,
    find_vgg_weights,
    generator_loss,
    gradient_penalty,
    logit_laplace_loss,
    map_pixels,
    r1_penalty,
    ramp,
    unmap_pixels,
)
from imtok.losses.reconstruction import L1Term, L2Term

KINDS: tuple[AdversarialKind, ...] = get_args(AdversarialKind)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pictures(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# --- reconstruction


def test_reconstruction_losses_are_means_over_all_values() -> None:
    reconstructions = torch.tensor([0.5, -1.0]).view(1, 1, 1, 2).requires_grad_()
    for term, value, gradient in ((L1Term(1), 1.25, [0.5, -0.5]), (L2Term(1), 2.125, [0.5, -2.0])):
        loss = term(reconstructions, torch.tensor([0.0, 1.0]).view(1, 1, 1, 2))
        assert loss.item() == value
        assert torch.autograd.grad(loss, reconstructions)[0].flatten().tolist() == gradient


# --- adversarial losses


def test_discriminator_losses_are_half_of_what_reals_and_fakes_cost() -> None:
    real, fake = torch.tensor([3.0, 0.5, -1.0]), torch.tensor([-2.0, 0.0])
    assert discriminator_loss("hinge", real, fake).item() == pytest.approx((2.5 / 3 + 0.5) / 2)
    assert discriminator_loss("least_squares", real, fake).item() == pytest.approx((8.25 / 3 + 2) / 2)
    softplus = [math.log1p(math.exp(x)) for x in (-3.0, -0.5, 1.0, -2.0, 0.0)]
    expected = (sum(softplus[:3]) / 3 + sum(softplus[3:]) / 2) / 2
    assert discriminator_loss("non_saturating", real, fake).item() == pytest.approx(expected)


def test_generator_losses_fall_as_fakes_are_taken_for_real() -> None:
    fake = torch.tensor([2.0, -1.0])
    assert generator_loss("hinge", fake).item() == -0.5
    assert generator_loss("least_squares", fake).item() == 1.25
    expected = (math.log1p(math.exp(-2)) + math.log1p(math.exp(1))) / 2
    assert generator_loss("non_saturating", fake).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("kind", "for_real", "for_fake", "for_generator"),
    [
        ("hinge", [0.0, -0.25], [0.25, 0.0], [-0.5, -0.5]),
        ("non_saturating", [-0.25 / (1 + math.exp(2)), -0.125], [0.125, 0.25 / (1 + math.exp(2))], None),
        ("least_squares", [0.5, -0.5], [0.0, -1.0], [-0.5, -1.5]),
    ],
)
def test_gradients_push_logits_as_each_side_needs(
    kind: AdversarialKind, for_real: list[float], for_fake: list[float], for_generator: list[float] | None
) -> None:
    real, fake = torch.tensor([2.0, 0.0]).requires_grad_(), torch.tensor([0.0, -2.0]).requires_grad_()
    grads = torch.autograd.grad(discriminator_loss(kind, real, fake), (real, fake))
    assert grads[0].tolist() == pytest.approx(for_real)
    assert grads[1].tolist() == pytest.approx(for_fake)
    (grad,) = torch.autograd.grad(generator_loss(kind, fake), fake)
    # where the discriminator is sure, the generator's gradient is greatest: it does not saturate
    assert grad.tolist() == pytest.approx(for_generator or [-0.25, -0.5 / (1 + math.exp(-2))])


@pytest.mark.parametrize("kind", KINDS)
def test_logits_of_any_shape_and_type_give_float32_scalars(kind: AdversarialKind) -> None:
    real, fake = noise(4, 1, 3, 3, seed=1).bfloat16(), noise(4, seed=2).bfloat16()
    pairs = Pairs(pictures(4, 3, 2, 2), pictures(4, 3, 2, 2, seed=1), GANQPConfig())
    for loss, in_float in (
        (discriminator_loss(kind, real, fake, pairs), discriminator_loss(kind, real.float(), fake.float(), pairs)),
        (generator_loss(kind, fake), generator_loss(kind, fake.float())),
        (discriminator_accuracy(real, fake, kind), discriminator_accuracy(real.float(), fake.float(), kind)),
    ):
        assert loss.dtype == torch.float32
        assert loss.shape == ()
        assert torch.equal(loss, in_float)


def test_accuracy_counts_reals_above_and_fakes_below_the_border() -> None:
    real, fake = torch.tensor([1.0, 0.2, -3.0, 0.4]), torch.tensor([-1.0, 0.3])
    assert discriminator_accuracy(real, fake).item() == (3 / 4 + 1 / 2) / 2
    assert discriminator_accuracy(real, fake, "least_squares").item() == (1 / 4 + 1) / 2
    assert discriminator_accuracy(torch.ones(3), -torch.ones(3)).item() == 1
    assert not discriminator_accuracy(real.requires_grad_(), fake).requires_grad


def test_adaptive_weight_is_the_clamped_ratio_of_norms() -> None:
    reconstruction, adversarial = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]])
    assert adaptive_weight(reconstruction, adversarial).item() == pytest.approx(5 / 2.0001)
    assert adaptive_weight(reconstruction, adversarial, largest=2).item() == 2
    assert adaptive_weight(reconstruction, torch.zeros(2)).item() == 1e4
    assert adaptive_weight(torch.zeros(2), torch.zeros(2)).item() == 0
    weight = adaptive_weight(reconstruction.requires_grad_(), adversarial.bfloat16())
    assert weight.dtype == torch.float32
    assert not weight.requires_grad


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_adaptive_weight_does_not_hide_a_non_finite_gradient(bad: float) -> None:
    good, broken = torch.ones(3), torch.tensor([1.0, bad])
    assert adaptive_weight(good, broken).isnan()
    assert adaptive_weight(broken, good).isnan()


def test_a_ramp_waits_rises_and_stays() -> None:
    heights = [ramp(progress, 0.25, 0.5) for progress in (0.0, 0.25, 0.375, 0.75, 1.0)]
    assert heights == [0, 0, 0.25, 1, 1]
    assert [ramp(progress, 0.25, 0) for progress in (0.2499, 0.25, 0.3)] == [0, 1, 1]
    assert ramp(0.0, 0.0, 0.0) == 1


# --- penalties


def test_penalties_of_a_linear_critic_are_its_weights_length() -> None:
    weight = torch.tensor([3.0, 4.0, 0.0]).view(1, 3, 1, 1).requires_grad_()
    images = pictures(5, 3, 1, 1).requires_grad_()
    logits = (images * weight).sum(dim=(1, 2, 3))
    for penalty, value, grad in (
        (r1_penalty(logits, images), 25.0, [6.0, 8.0, 0.0]),
        (gradient_penalty(logits, images), 25.0, [6.0, 8.0, 0.0]),
        (gradient_penalty(logits, images, center=1), 16.0, [4.8, 6.4, 0.0]),  # 2 (|w| - 1) w / |w|
    ):
        assert penalty.item() == pytest.approx(value)
        (found,) = torch.autograd.grad(penalty, weight, retain_graph=True)
        assert found.flatten().tolist() == pytest.approx(grad)


def test_penalties_count_each_image_by_itself_and_sum_its_logits() -> None:
    images = torch.tensor([1.0, 2.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1).clone().requires_grad_()
    patches = images.square().sum(dim=1, keepdim=True).expand(2, 1, 2, 2)  # dD/dx = 4 * 2x for four patches
    assert r1_penalty(patches, images).item() == pytest.approx((3 * 8**2 + 3 * 16**2) / 2)


@pytest.mark.parametrize("center", [0.0, 1.0])
def test_penalties_stay_finite_where_the_critic_is_flat(center: float) -> None:
    weight = torch.zeros(1, 3, 1, 1).requires_grad_()
    images = pictures(2, 3, 4, 4).requires_grad_()
    penalty = gradient_penalty((images * weight).sum(dim=(1, 2, 3)), images, center)
    (grad,) = torch.autograd.grad(penalty, weight)
    assert penalty.item() == center**2
    assert grad.isfinite().all()


def test_penalties_are_float32_and_refuse_images_without_a_gradient() -> None:
    images = pictures(2, 3, 4, 4).bfloat16().requires_grad_()
    assert r1_penalty(images.square().mean(dim=(1, 2, 3)), images).dtype == torch.float32
    with pytest.raises(ValueError, match=r"images have no gradient; call images.requires_grad_\(\) before"):
        r1_penalty(images.detach().mean(dim=(1, 2, 3)), images.detach())


def test_lecam_by_hand_over_two_steps() -> None:
    lecam = LeCAM(decay=0.75)
    real, fake = torch.tensor([3.0, 1.0]).requires_grad_(), torch.tensor([-3.0, 1.0]).requires_grad_()
    assert lecam(real, fake).item() == 2**2 + 1**2  # both averages still 0
    assert [lecam.real_mean.item(), lecam.fake_mean.item()] == [0.5, -0.25]
    penalty = lecam(real, fake)
    assert penalty.item() == 2.25**2 + 1.5**2
    assert [lecam.real_mean.item(), lecam.fake_mean.item()] == [0.875, -0.4375]
    grads = torch.autograd.grad(penalty, (real, fake))
    assert grads[0].tolist() == [2.25, 2.25]
    assert grads[1].tolist() == [-1.5, -1.5]


def test_lecam_of_each_logit_with_averages_that_know_this_step() -> None:
    lecam = LeCAM(decay=0.75, per_logit=True, update_first=True)
    real, fake = torch.tensor([3.0, 1.0]), torch.tensor([-3.0, 1.0])
    assert lecam(real, fake).item() == (3.25**2 + 1.25**2) / 2 + 3.5**2 / 2  # averages .5 and -.25; .5 - 1 counts 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_lecam_averages_pass_over_non_finite_logits(bad: float) -> None:
    lecam = LeCAM(decay=0.5)
    lecam(torch.tensor([2.0]), torch.tensor([-2.0]))
    penalty = lecam(torch.tensor([1.0, bad]), torch.tensor([-4.0]))
    assert lecam.real_mean.item() == 1.0
    assert lecam.fake_mean.item() == -2.5
    assert bad < 0 or not penalty.isfinite()  # which who guards the step sees; relu takes minus infinity for 0


def test_lecam_resumes_and_learns_nothing_at_evaluation() -> None:
    lecam, resumed = LeCAM(), LeCAM()
    lecam(noise(4, seed=1).bfloat16(), noise(4, seed=2).bfloat16())
    resumed.load_state_dict(lecam.state_dict())
    assert set(lecam.state_dict()) == {"real_mean", "fake_mean"}
    assert resumed.real_mean != 0
    real, fake = noise(4, seed=3), noise(4, seed=4)
    assert torch.equal(resumed.eval()(real, fake), lecam(real, fake))
    assert resumed.real_mean != lecam.real_mean
    assert lecam.real_mean.dtype == torch.float32


# --- logit-Laplace


def test_logit_laplace_by_hand() -> None:
    images = torch.zeros(1, 3, 1, 1)  # mapped to 1/2, whose logit is 0
    locations = torch.full((1, 3, 1, 1), 2.0).requires_grad_()
    log_scales = torch.full((1, 3, 1, 1), math.log(4)).requires_grad_()
    loss = logit_laplace_loss(locations, log_scales, images)
    assert loss.item() == pytest.approx(2 / 4 + math.log(4) + math.log(1 / 4))
    grads = torch.autograd.grad(loss, (locations, log_scales))
    assert grads[0].flatten().tolist() == pytest.approx([1 / 12] * 3)
    assert grads[1].flatten().tolist() == pytest.approx([(1 - 1 / 2) / 3] * 3)


def test_logit_laplace_is_float32_and_finite_over_all_images() -> None:
    images = torch.tensor([-1.0, 1.0, 0.3]).view(1, 3, 1, 1).bfloat16()
    loss = logit_laplace_loss(torch.zeros_like(images), torch.zeros_like(images), images)
    assert loss.dtype == torch.float32
    assert loss.isfinite()


def test_pixels_are_mapped_inside_the_interval_and_back() -> None:
    images = torch.tensor([-1.0, 0.0, 1.0])
    torch.testing.assert_close(map_pixels(images), torch.tensor([0.1, 0.5, 0.9]))
    torch.testing.assert_close(unmap_pixels(map_pixels(images)), images)
    assert unmap_pixels(torch.tensor([0.0, 1.0])).tolist() == [-1.0, 1.0]  # beyond what any pixel maps to


# --- LPIPS


def flat(shape: torch.Size, value: float = 0.01) -> Tensor:
    """All one value, and small on the disk."""
    return torch.tensor(value).expand(shape)


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VGG16 with random weights that keep the scale of what passes through."""
    random = torch.Generator().manual_seed(0)

    def draw(shape: torch.Size) -> Tensor:
        return torch.randn(shape, generator=random) * math.sqrt(2 / math.prod(shape[1:])) if shape[1:] else flat(shape)

    path = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    torch.save(vgg_weights(draw), path)
    return path


@pytest.fixture(scope="module")
def lpips(vgg_file: Path) -> PerceptualLoss:
    """Tests share it and must leave it as it is."""
    return PerceptualLoss(vgg_file)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Names another URL for the weights and an empty cache, and tells where in the cache the file belongs."""

    def point(url: str) -> Path:
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.setattr(backbone, "published_url", lambda _: url)
        return tmp_path / "torch" / "hub" / "checkpoints" / url.rpartition("/")[2]

    return point


def test_the_distance_of_features_by_hand() -> None:
    a = torch.tensor([[3.0, 4.0], [1.0, 0.0]]).view(2, 2, 1, 1).expand(2, 2, 2, 2)
    b = torch.tensor([[0.0, 2.0], [5.0, 0.0]]).view(2, 2, 1, 1).expand(2, 2, 2, 2)
    head = torch.tensor([1.0, 10.0]).view(1, 2, 1, 1)
    distances = feature_distance([a, a], [b, b], [head, 2 * head])
    assert distances.tolist() == pytest.approx([3 * (0.6**2 + 10 * 0.2**2), 0.0])  # unit lengths (.6, .8) and (0, 1)
    assert feature_distance([a.bfloat16()], [b], [head]).dtype == torch.float32


def test_features_of_no_length_have_a_finite_gradient() -> None:
    nothing = torch.zeros(1, 2, 3, 3).requires_grad_()
    head = torch.ones(1, 2, 1, 1)
    distance = feature_distance([nothing], [torch.zeros(1, 2, 3, 3)], [head])
    assert distance.item() == 0
    assert torch.autograd.grad(distance.sum(), nothing)[0].eq(0).all()
    beside_something = feature_distance([nothing], [torch.ones(1, 2, 3, 3)], [head])
    (grad,) = torch.autograd.grad(beside_something.sum(), nothing)
    assert 0 < grad.abs().max() <= 2e4


def test_a_black_network_gives_no_distance_and_no_gradient(tmp_path: Path) -> None:
    torch.save(vgg_weights(lambda shape: flat(shape, 0.0)), tmp_path / "vgg16.pth")
    reconstructions = pictures(1, 3, 16, 16).requires_grad_()
    loss = PerceptualLoss(tmp_path / "vgg16.pth")(reconstructions, torch.full((1, 3, 16, 16), -1.0))
    assert loss.item() == 0
    assert torch.autograd.grad(loss, reconstructions)[0].eq(0).all()


def test_lpips_is_nothing_between_equals_and_its_gradient_leads_there(lpips: PerceptualLoss) -> None:
    images = pictures(2, 3, 16, 24)
    assert lpips(images, images).item() == 0
    reconstructions = (images + 0.3 * noise(2, 3, 16, 24)).requires_grad_()  # beyond [-1, 1] in places
    loss = lpips(reconstructions, images.requires_grad_())
    loss.backward()
    assert reconstructions.grad is not None
    assert reconstructions.grad[reconstructions.detach().abs() > 1].ne(0).any()
    assert images.grad is None
    step = 1e-2 * reconstructions.grad / reconstructions.grad.norm()
    slope = lpips(reconstructions.detach() + step, images) - lpips(reconstructions.detach() - step, images)
    torch.testing.assert_close(slope / 2e-2, reconstructions.grad.norm(), rtol=0.05, atol=0)


def test_lpips_is_float32_whatever_the_images_and_the_autocast(lpips: PerceptualLoss) -> None:
    images, reconstructions = pictures(1, 3, 16, 16), pictures(1, 3, 16, 16, seed=1)
    expected = lpips(reconstructions, images)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = lpips(reconstructions.bfloat16(), images)
    for loss in (lpips(reconstructions.bfloat16(), images.bfloat16()), under_autocast):
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, expected, rtol=0.05, atol=0)


def test_lpips_is_frozen_for_good_and_draws_no_random_number(vgg_file: Path) -> None:
    before = torch.get_rng_state()
    loss = PerceptualLoss(vgg_file)
    assert torch.equal(torch.get_rng_state(), before)
    nn.ModuleList([loss]).train()
    assert not any(module.training for module in loss.modules())
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    assert all(head.ge(0).all() and head.gt(0).any() for head in loss.heads)
    assert [head.shape[1] for head in loss.heads] == [64, 128, 256, 512, 512]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (pictures(1, 3, 16, 16) * 2, r"images have values in \[-2, 2\], expected \[-1, 1\]"),
        (pictures(1, 3, 16, 16).abs() * 255, r"images have values in \[0.\d+, 25\d\], expected"),
        (torch.full((1, 3, 16, 16), math.nan), r"images have values in \[nan, nan\], expected"),
        (pictures(1, 3, 16, 12), r"images are 16 x 12 pixels, and LPIPS needs 16 a side"),
        (pictures(1, 1, 16, 16), r"shapes \(1, 1, 16, 16\) and \(1, 1, 16, 16\), expected the same \(B, 3, H, W\)"),
    ],
)
def test_lpips_refuses_images_that_break_its_contract(lpips: PerceptualLoss, images: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lpips(torch.zeros_like(images), images)


def test_lpips_refuses_reconstructions_of_another_size(lpips: PerceptualLoss) -> None:
    with pytest.raises(ValueError, match=r"shapes \(1, 3, 32, 32\) and \(1, 3, 16, 16\)"):
        lpips(pictures(1, 3, 32, 32), pictures(1, 3, 16, 16))


# --- the weights of VGG16


def test_weights_are_read_from_either_form_of_file(tmp_path: Path) -> None:
    weights = vgg_weights(lambda shape: flat(shape, 0.5)) | {"classifier.0.bias": torch.zeros(4096)}
    torch.save(weights, tmp_path / "zip.pth")
    torch.save(weights, tmp_path / "older.pth", _use_new_zipfile_serialization=False)
    save_file({key: value.contiguous() for key, value in weights.items()}, tmp_path / "vgg.safetensors")
    for name in ("zip.pth", "older.pth", "vgg.safetensors"):
        assert find_vgg_weights(tmp_path / name) == tmp_path / name
        read = PerceptualLoss(tmp_path / name).features.state_dict()
        assert read["28.bias"].eq(0.5).all()
        assert len(read) == 26


def refuse_pixels(path: Path) -> None:
    path.write_bytes(b"\x89PNG" + bytes(100))


def refuse_half(path: Path) -> None:
    torch.save(vgg_weights(flat), path)
    path.write_bytes(path.read_bytes()[:2000])


def refuse_pickled_code(path: Path) -> None:
    torch.save({"features.0.weight": Path("anything")}, path)


def refuse_vgg11(path: Path) -> None:
    weights = vgg_weights(flat)
    torch.save({key: value for key, value in weights.items() if key != "features.2.bias"}, path)


def refuse_other_widths(path: Path) -> None:
    torch.save(vgg_weights(flat) | {"features.0.weight": torch.zeros(64, 1, 3, 3)}, path)


def refuse_batch_norm(path: Path) -> None:
    torch.save(vgg_weights(flat) | {"features.1.running_mean": torch.zeros(64)}, path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda _: None, "no such file; loss.perceptual_weights names VGG16's weights, as https://"),
        (refuse_pixels, "cannot be read as weights; put https://"),
        (refuse_half, "cannot be read as weights; put https://"),
        (refuse_pickled_code, "cannot be read as weights; put https://"),
        (refuse_vgg11, "holds another network than VGG16, features.2.bias is absent, expected 64; name VGG16's"),
        (refuse_other_widths, "features.0.weight is 64 x 1 x 3 x 3, expected 64 x 3 x 3 x 3; name VGG16's"),
        (refuse_batch_norm, "features.1.running_mean is 64, expected absent; name VGG16's"),
    ],
)
@pytest.mark.parametrize("find", [find_vgg_weights, PerceptualLoss])
def test_a_file_other_than_vgg16_is_refused(
    find: Callable[[Path], object], tmp_path: Path, write: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / "vgg16.pth"
    write(path)
    with pytest.raises(ConfigError) as caught:
        find(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_weights_offline_are_one_clear_line(elsewhere: Callable[[str], Path]) -> None:
    url = "http://127.0.0.1:9/vgg16-397923af.pth"
    file = elsewhere(url)
    with pytest.raises(ConfigError) as caught:
        find_vgg_weights(None)
    assert str(caught.value) == (
        f"{file}: VGG16's weights, which the perceptual loss needs, are not there and cannot be fetched from {url} "
        "(Connection refused); put that file there, name it by --set loss.perceptual_weights=PATH, or train on pixels "
        "alone by --set loss.perceptual=0"
    )
    assert list(file.parent.iterdir()) == []


def test_weights_are_fetched_once_and_kept_in_torchs_cache(elsewhere: Callable[[str], Path], tmp_path: Path) -> None:
    made = tmp_path / "made.pth"
    torch.save(vgg_weights(flat), made)
    published = made.rename(tmp_path / f"vgg16-{hashlib.sha256(made.read_bytes()).hexdigest()[:8]}.pth")
    file = elsewhere(published.as_uri())
    assert find_vgg_weights(None) == file
    published.unlink()
    assert find_vgg_weights(None) == file
    PerceptualLoss()


def test_a_fetched_file_of_another_hash_is_not_kept(elsewhere: Callable[[str], Path], tmp_path: Path) -> None:
    published = tmp_path / "vgg16-397923af.pth"
    published.write_bytes(b"a page that says the file has moved")
    file = elsewhere(published.as_uri())
    with pytest.raises(ConfigError, match=r'invalid hash value \(expected "397923af"'):
        find_vgg_weights(None)
    assert list(file.parent.iterdir()) == []


def test_the_weights_are_torchvisions() -> None:
    assert backbone.VGG16.published.url == "https://download.pytorch.org/models/vgg16-397923af.pth"


# --- on a GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_no_loss_waits_for_the_gpu_after_the_first_step(vgg_file: Path) -> None:
    lpips, lecam = PerceptualLoss(vgg_file).cuda(), LeCAM().cuda()
    images, reconstructions = pictures(2, 3, 32, 32).cuda(), pictures(2, 3, 32, 32, seed=1).cuda().requires_grad_()
    lpips(reconstructions, images)  # checks the range, once
    torch.cuda.set_sync_debug_mode("error")
    try:
        lpips(reconstructions, images).backward()
        for kind in KINDS:
            pairs = Pairs(images, reconstructions, GANQPConfig(pairing="independent"))
            discriminator_loss(kind, images, reconstructions, pairs).backward()
            generator_loss(kind, reconstructions).backward()
            discriminator_accuracy(images, reconstructions, kind)
        adaptive_weight(images, reconstructions)
        lecam(images, reconstructions).backward()
        r1_penalty(reconstructions.square(), reconstructions).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
