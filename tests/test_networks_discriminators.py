"""What every discriminator owes, over all of them; then what each owes alone, and ActNorm's start."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from imtok.networks import MaskBitDiscriminator, PatchDiscriminator, StyleGANDiscriminator
from imtok.networks.actnorm import ActNorm
from imtok.networks.blur import Blur

# torch.compile looks at `.grad` of what it is given and hides the warning, but not from a filter that raises it.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning")

DISCRIMINATORS: dict[str, Callable[[], Any]] = {
    "patch-group": partial(PatchDiscriminator, 8, 2),
    "patch-batch": partial(PatchDiscriminator, 8, 2, "batch"),
    "patch-act": partial(PatchDiscriminator, 8, 2, "act"),
    "patch-none": partial(PatchDiscriminator, 8, 2, "none"),
    "stylegan": partial(StyleGANDiscriminator, 16, 8),
    "maskbit": partial(MaskBitDiscriminator, 8, 2, pool=4),
    "maskbit-without-pool": partial(MaskBitDiscriminator, 8, 2, pool=None),
}
every_discriminator = pytest.mark.parametrize("name", DISCRIMINATORS)


def make(name: str) -> Any:
    torch.manual_seed(0)
    return DISCRIMINATORS[name]()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def images(count: int = 2, height: int = 16, width: int = 16, seed: int = 0) -> Tensor:
    return noise(count, 3, height, width, seed=seed).tanh()


@every_discriminator
def test_gradients_reach_every_parameter_and_the_images(name: str) -> None:
    network, x = make(name), images().requires_grad_()
    network(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().amin(dim=(1, 2, 3)).isfinite().all()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().sum() > 0, key


@every_discriminator
def test_the_gradient_at_images_can_itself_be_learned_from(name: str) -> None:
    """R1 needs it: a step along the penalty's own gradient lessens the penalty."""
    network, x = make(name), images().requires_grad_()

    def penalty() -> Tensor:
        (gradient,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
        return gradient.square().sum()

    first = penalty()
    first.backward()
    moved = {key: p.grad for key, p in network.named_parameters() if p.grad is not None}
    assert any(key.endswith("weight") for key in moved)
    assert all(gradient.isfinite().all() for gradient in moved.values())
    slope = sum(gradient.square().sum() for gradient in moved.values())
    step = 1e-3 * first.detach() / slope  # to first order a thousandth less
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            if key in moved:
                parameter -= step * moved[key]
    torch.testing.assert_close(1 - penalty() / first, torch.tensor(1e-3), rtol=0.1, atol=0.0)


@every_discriminator
def test_bfloat16_changes_logits_by_rounding_only(name: str) -> None:
    network, x = make(name), images().requires_grad_()
    exact = network(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = network(x)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, rtol=0.01, atol=0.1 * exact.std().item())
    (gradient,) = torch.autograd.grad(rounded.float().sum(), x)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


@every_discriminator
def test_one_graph_holds_the_whole_network(name: str) -> None:
    network, x = make(name), images()
    eager = network(x)  # starts ActNorm, the one step that waits for values
    torch.testing.assert_close(torch.compile(network, backend="eager", fullgraph=True)(x), eager)


@every_discriminator
def test_logits_depend_on_one_image_but_with_batch_norm(name: str) -> None:
    network, x = make(name), images(3)
    network(x)
    together, alone = network(x)[:1], network(x[:1])
    assert torch.allclose(together, alone, atol=1e-5) == (name != "patch-batch")


@every_discriminator
def test_the_smallest_image_has_a_logit_and_smaller_are_refused(name: str) -> None:
    network = make(name)
    side = network.min_size
    x = images(2, side, side).requires_grad_()
    logits = network(x)
    assert logits.isfinite().all()
    assert torch.autograd.grad(logits.sum(), x)[0].isfinite().all()
    for height, width in ((side - 1, side), (side, side - 1)):
        with pytest.raises(ValueError, match=f"images are {height} x {width}, this discriminator"):
            network(images(2, height, width))


@every_discriminator
def test_a_state_dict_carries_all(name: str) -> None:
    network, other = make(name), DISCRIMINATORS[name]()
    network(images(seed=1))
    other.load_state_dict(network.state_dict())
    assert torch.equal(network.eval()(images()), other.eval()(images()))


@pytest.mark.parametrize(
    ("layers", "height", "width", "grid"), [(1, 12, 7, (4, 1)), (2, 16, 31, (2, 5)), (3, 24, 50, (1, 4))]
)
def test_patchgan_gives_a_logit_a_patch(layers: int, height: int, width: int, grid: tuple[int, int]) -> None:
    assert PatchDiscriminator(4, layers)(images(2, height, width)).shape == (2, 1, *grid)


def test_a_patch_of_patchgan_is_seventy_pixels() -> None:
    x = images(1, 128, 128).requires_grad_()
    logits = PatchDiscriminator(4, norm="none")(x)
    (gradient,) = torch.autograd.grad(logits[0, 0, 6, 6], x)
    rows = gradient.abs().sum(dim=(0, 1, 3)).nonzero()
    assert rows.max() - rows.min() + 1 == 70


def test_patchgan_has_the_published_widths_and_weights() -> None:
    torch.manual_seed(0)
    network = PatchDiscriminator(layers=4)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert [conv.out_channels for conv in convolutions] == [64, 128, 256, 512, 512, 1]
    for conv in convolutions:
        torch.testing.assert_close(conv.weight.std(), torch.tensor(0.02), rtol=0.05, atol=0.0)
        assert conv.bias is not None
    for norm in (m for m in network.modules() if isinstance(m, nn.GroupNorm)):
        torch.testing.assert_close(norm.weight.mean(), torch.tensor(1.0), rtol=0.0, atol=0.01)
        torch.testing.assert_close(norm.weight.std(), torch.tensor(0.02), rtol=0.3, atol=0.0)
        assert norm.bias.abs().sum() == 0


def test_only_convolutions_before_batch_norm_have_no_bias() -> None:
    for norm in ("group", "batch", "act", "none"):
        inner = PatchDiscriminator(4, 1, norm).get_submodule("trunk.2")
        assert (inner.bias is None) == (norm == "batch")


def test_stylegan_has_the_published_widths_and_serves_other_sizes() -> None:
    with torch.device("meta"):
        published, crops = StyleGANDiscriminator(256), StyleGANDiscriminator(96)
    assert widths(published) == [64, 128, 256, 512, 512, 512, 512]
    assert widths(crops) == [256, 512, 512, 512, 512]
    assert crops.hidden.in_features == 512 * 6**2
    for size in (4, 7, 8, 11, 24):
        assert StyleGANDiscriminator(size, 4)(images(2, size, size)).shape == (2, 1)


def widths(network: StyleGANDiscriminator) -> list[int]:
    blocks = [m for m in network.blocks.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
    return [network.stem.out_channels, *(skip.out_channels for skip in blocks)]


def test_stylegan_refuses_images_of_another_size() -> None:
    with pytest.raises(ValueError, match="images are 32 x 32, this discriminator was built for 16 x 16"):
        StyleGANDiscriminator(16, 4)(images(2, 32, 32))


def test_maskbit_pools_to_one_grid_or_keeps_its_own() -> None:
    pooled, free = MaskBitDiscriminator(4, 2, pool=3), MaskBitDiscriminator(4, 2, pool=None)
    for height, width, grid in ((12, 12, (3, 3)), (17, 30, (5, 8))):
        assert pooled(images(2, height, width)).shape == (2, 1, 3, 3)
        assert free(images(2, height, width)).shape == (2, 1, *grid)
    assert MaskBitDiscriminator(4).min_size == 128


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PatchDiscriminator(0), "channels is 0, expected 1 or more"),
        (lambda: PatchDiscriminator(layers=0), "layers is 0, expected 1 or more"),
        (lambda: PatchDiscriminator(norm="layer"), "norm is 'layer', expected one of group, batch, act, none"),  # type: ignore[arg-type]
        (lambda: StyleGANDiscriminator(3), "size is 3, expected 4 or more"),
        (lambda: MaskBitDiscriminator(pool=0), "pool is 0, expected 1 or more"),
    ],
)
def test_what_cannot_be_built_is_refused(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("size", [3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_blur_keeps_even_values_and_removes_alternating_ones(size: int, stride: int) -> None:
    blur = Blur(size, stride=stride, border="reflect")
    for height, width in ((8, 9), (7, 4)):
        out = blur(torch.ones(1, 2, height, width))
        torch.testing.assert_close(out, torch.ones(1, 2, -(-height // stride), -(-width // stride)))
    stripes = torch.tensor([1.0, -1.0]).repeat(6).expand(1, 2, 12, 12)
    torch.testing.assert_close(blur(stripes)[..., 1:-1], torch.zeros_like(blur(stripes)[..., 1:-1]))


def test_actnorm_standardises_its_first_training_batch_and_no_other() -> None:
    norm, first, second = ActNorm(3), 5 * noise(4, 3, 5, 6) + 2, noise(2, 3, 5, 6, seed=1)
    assert torch.equal(norm.eval()(first), first)  # evaluation starts nothing
    assert not norm.initialized
    out = norm.train()(first)
    assert norm.initialized
    torch.testing.assert_close(out.mean(dim=(0, 2, 3)), torch.zeros(3), rtol=0.0, atol=1e-5)
    torch.testing.assert_close(out.std(dim=(0, 2, 3)), torch.ones(3))
    started = copy.deepcopy(norm.state_dict())
    out = norm(second)
    assert all(torch.equal(value, started[key]) for key, value in norm.state_dict().items())
    torch.testing.assert_close(norm.inverse(out), second)


def test_actnorms_determinant_is_that_of_its_jacobian() -> None:
    norm, x = ActNorm(2), noise(1, 2, 2, 3)
    norm(noise(4, 2, 2, 3, seed=1))
    jacobian = torch.autograd.functional.jacobian(norm, x).view(12, 12)
    torch.testing.assert_close(norm.log_determinant(x), torch.linalg.slogdet(jacobian).logabsdet.view(1))


def test_actnorm_restarts_only_from_an_unstarted_state_dict() -> None:
    norm, resumed, first, second = ActNorm(3), ActNorm(3), noise(2, 3, 4, 4), noise(2, 3, 4, 4, seed=1) + 7
    unstarted = copy.deepcopy(norm.state_dict())
    norm(first)
    resumed.load_state_dict(norm.state_dict())
    assert torch.equal(resumed(second), norm(second))
    again = nn.Sequential(norm)
    again.load_state_dict({f"0.{key}": value for key, value in unstarted.items()})
    torch.testing.assert_close(again(second).mean(), torch.tensor(0.0), rtol=0.0, atol=1e-5)


def test_actnorm_starts_equally_in_a_compiled_network() -> None:
    plain, compiled = make("patch-act"), make("patch-act")
    torch.testing.assert_close(torch.compile(compiled, backend="eager")(images()), plain(images()))
    assert torch.equal(compiled.get_buffer("trunk.3.initialized"), torch.tensor(1.0))
    torch.testing.assert_close(dict(compiled.state_dict()), dict(plain.state_dict()))


def test_actnorm_is_not_started_by_a_batch_without_statistics() -> None:
    norm, bad = ActNorm(3), noise(2, 3, 4, 4)
    bad[0, 1, 2, 3] = torch.nan
    assert norm(bad).isnan().sum() == 1
    norm(noise(1, 3, 1, 1))
    assert not norm.initialized
    norm(noise(2, 3, 4, 4))
    assert norm.initialized


def start_on_rank(rank: int, folder: Path) -> None:
    """Start ActNorm on one rank's share of a batch; runs in a process of its own and writes what became of it."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    try:
        norm = ActNorm(3)
        norm(noise(4, 3, 5, 6).split([1, 3])[rank])
        torch.save(norm.state_dict(), folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_actnorm_starts_on_all_ranks_from_the_joint_batch(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(start_on_rank, args=(tmp_path,), nprocs=2)
    first, second = torch.load(tmp_path / "0.pt"), torch.load(tmp_path / "1.pt")
    joint = ActNorm(3)
    joint(noise(4, 3, 5, 6))
    for key, value in joint.state_dict().items():
        assert torch.equal(first[key], second[key]), key
        torch.testing.assert_close(first[key], value, msg=key)
