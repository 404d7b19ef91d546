"""Gradient checkpointing: gradients, state and random numbers are those of a step without it, for all that learns."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from families import QUANTIZERS, make, noise, noise_for
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from imtok.losses import LeCAM
from imtok.networks import PatchDiscriminator
from imtok.networks.norms import BatchNorm
from imtok.networks.spectral_norm import add_spectral_norm
from imtok.quantizers import Quantizer, VectorQuantizer
from imtok.recomputation import FirstPasses, is_recomputed, may_be_recomputed

KINDS = pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "not-reentrant"])
# Above the first two steps: a k-means start, restarts of dead codes, and clustering.
LEARNING: dict[str, Callable[[], Quantizer]] = {name: lambda name=name: make(name) for name in QUANTIZERS} | {
    f"vq-moves-{update}": lambda update=update: VectorQuantizer(
        4, 24, codebook_update=update, kmeans_start=True, revival_threshold=0.9
    )
    for update in ("ema", "gradient")
}


def steps(function: Callable[[Tensor], tuple[Tensor, ...]], inputs: list[Tensor], reentrant: bool | None) -> None:
    """Call backward on the sum of all outputs, with all forwards before it, as in an accumulated step."""
    losses = []
    for value in inputs:
        outs = function(value) if reentrant is None else checkpoint(function, value, use_reentrant=reentrant)
        losses += [(out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum() for out in outs]
    torch.stack(losses).sum().backward()


def compare(
    plain: nn.Module, run: Callable[[nn.Module, Tensor], tuple[Tensor, ...]], like: Tensor, reentrant: bool
) -> None:
    """Take two steps of two forwards with and without checkpointing; everything must be equal."""
    other = copy.deepcopy(plain)
    for step in range(2):
        inputs = [noise(*like.shape, seed=10 * step + part) for part in range(2)]
        found = []
        for module, kind in ((plain, None), (other, reentrant)):
            values = [value.clone().requires_grad_() for value in inputs]
            torch.manual_seed(step)
            steps(lambda value, module=module: run(module, value), values, kind)
            gradients = [value.grad for value in values] + [each.grad for each in module.parameters()]
            found.append((gradients, torch.get_rng_state()))
        for expected, got in zip(*(gradients for gradients, _ in found), strict=True):
            assert (expected is None) == (got is None)
            if expected is not None:
                torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(found[0][1], found[1][1])
        assert all(map(torch.equal, plain.state_dict().values(), other.state_dict().values()))


def quantize(module: nn.Module, latents: Tensor) -> tuple[Tensor, ...]:
    """A function around the quantizer, with dropout after it."""
    out = module(latents * 1.5)
    return nn.functional.dropout(out.latents, 0.5), out.loss


@KINDS
@pytest.mark.parametrize("name", LEARNING)
def test_a_checkpointed_quantizer_learns_and_differentiates_as_without(name: str, reentrant: bool) -> None:
    torch.manual_seed(0)
    quantizer = LEARNING[name]().train()
    compare(quantizer, quantize, noise_for(quantizer), reentrant)


@KINDS
def test_a_quantizer_may_itself_be_the_checkpointed_function(reentrant: bool) -> None:
    quantizer = make("vq-euclidean-rotation-ema").train()
    compare(quantizer, lambda module, value: (module(value).latents,), noise_for(quantizer), reentrant)


def test_nested_checkpoints_learn_once() -> None:
    quantizer = make("residual-shared-ema").train()
    compare(
        quantizer,
        lambda module, value: checkpoint(lambda x: quantize(module, x), value, use_reentrant=False),
        noise_for(quantizer),
        reentrant=False,
    )


@KINDS
def test_spectral_norm_takes_one_step_of_its_iteration_a_forward(reentrant: bool) -> None:
    torch.manual_seed(0)
    network = PatchDiscriminator(4, 1, norm="none")
    add_spectral_norm(network)
    compare(network.train(), lambda module, x: (module(x), module(x.flip(3))), torch.empty(2, 3, 8, 8), reentrant)


@KINDS
def test_batch_norm_averages_each_batch_once(reentrant: bool) -> None:
    compare(BatchNorm(3).train(), lambda module, x: (module(x),), torch.empty(2, 3, 4, 4), reentrant)


@KINDS
def test_lecam_moves_its_averages_once(reentrant: bool) -> None:
    compare(LeCAM(0.5).train(), lambda module, x: (module(x, 1 - x),), torch.empty(6), reentrant)


def test_ordinary_training_and_evaluation_keep_nothing() -> None:
    quantizer = make("vq-euclidean-straight_through-ema").train()
    for _ in range(3):
        quantizer(noise_for(quantizer).requires_grad_()).latents.sum().backward()
    with torch.no_grad():
        quantizer.eval()(noise_for(quantizer))
    assert quantizer._first_passes._passes == []
    assert not is_recomputed()
    assert not may_be_recomputed()


def test_passes_that_are_never_recomputed_do_not_pile_up() -> None:
    quantizer = make("vq-euclidean-straight_through-ema").train()
    with torch.no_grad():
        for seed in range(40):
            quantizer(noise_for(quantizer, seed=seed))
    assert len(quantizer._first_passes._passes) == 32


def test_a_copy_of_a_module_has_no_first_passes() -> None:
    passes = FirstPasses[int]()
    passes.keep(noise(3), 1)
    assert copy.deepcopy(passes)._passes == pickle.loads(pickle.dumps(passes))._passes == []


def test_an_unknown_first_pass_is_told_and_nothing_learns() -> None:
    quantizer = make("vq-euclidean-straight_through-ema").train()
    before = quantizer.codebook.clone()  # type: ignore[operator]
    value = torch.zeros(1, requires_grad=True)
    value.register_hook(lambda _: quantizer(noise_for(quantizer)) and None)
    with pytest.warns(RuntimeWarning, match="its first pass is not known"):
        value.sum().backward()
    assert torch.equal(quantizer.codebook, before)  # type: ignore[arg-type]
