"""LFQ and BSQ against numbers that other projects' own code produced, at the tolerances stated with them.

Where a peer differs on purpose, the difference itself is asserted and its reason written down.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from golden_files import Golden, as_grid, as_rows, load, run
from torch import Tensor

from imtok.kernels import join_bits, reverse_bits, split_bits
from imtok.quantizers import BSQ, LFQ


def every_code(dim: int) -> Tensor:
    return torch.arange(2**dim).view(1, 1, -1)


def gradient_by_table(quantizer: LFQ | BSQ, golden: Golden, log: Callable[[Tensor], Tensor]) -> Tensor:
    """The gradient of a peer's objective written its own way: chances of all 2^D codes for each latent, in float64."""
    z = golden["in.z"].double().requires_grad_()
    points = z if isinstance(quantizer, LFQ) else F.normalize(z, dim=1)
    chosen = quantizer.lookup(quantizer(golden["in.z"]).codes).double()
    codebook = as_rows(quantizer.lookup(every_code(quantizer.dim)))[0].double()
    chances = (2 * points.movedim(1, -1).flatten(0, 2) @ codebook.T / quantizer.temperature).softmax(dim=1)
    sample = -(chances * log(chances)).sum(dim=1).mean()
    batch = -(chances.mean(dim=0) * log(chances.mean(dim=0))).sum()
    weights = quantizer.loss_weights
    losses = weights["commitment"] * F.mse_loss(points, chosen) + weights["entropy"] * (sample - batch)
    (gradient,) = torch.autograd.grad(losses + (golden["in.grad_zq"] * points).sum(), z)
    return gradient.float()


def exact_log(chances: Tensor) -> Tensor:
    return chances.clamp(min=1e-300).log()


def log_of_lucidrains(chances: Tensor) -> Tensor:
    return chances.clamp(min=1e-5).log()


def log_of_open_magvit2(chances: Tensor) -> Tensor:
    return (chances + 1e-5).log()


def check_gradient(golden: Golden, quantizer: LFQ | BSQ, actual: Tensor, log: Callable[[Tensor], Tensor]) -> None:
    """Deliberate: peers bend the logarithm of chances near 1e-5, which tells in few gradients where T is 0.01.

    Ours is the gradient of the entropy itself; with their logarithm the same objective gives theirs.
    """
    torch.testing.assert_close(actual, gradient_by_table(quantizer, golden, exact_log), atol=1e-5, rtol=1e-4)
    golden.check("out.grad_z", gradient_by_table(quantizer, golden, log))
    differs = (actual - golden["out.grad_z"]).abs() > 1e-5 + 1e-4 * golden["out.grad_z"].abs()
    assert differs.double().mean() < 0.03
    assert differs.any() == (quantizer.temperature < 0.1)


@pytest.mark.parametrize("temperature", ["t100", "t2"])
@pytest.mark.parametrize("kind", [LFQ, BSQ])
def test_lucidrains(kind: type[LFQ | BSQ], temperature: str) -> None:
    """Its temperature is inverse, and its batch entropy is that of the whole codebook: one group of all dimensions."""
    golden = load(f"lucidrains_{kind.__name__.lower()}_{temperature}")
    dim = golden.config["dim"]
    quantizer = kind(
        dim,
        commitment_weight=golden.config["commitment_loss_weight"],
        entropy_weight=golden.config["entropy_loss_weight"],
        batch_entropy_weight=golden.config["diversity_gamma"],
        temperature=1 / golden.config["inv_temperature"],
        entropy_group=dim,
    )
    step = run(quantizer, golden["in.z"], golden["in.grad_zq"])
    golden.check("out.indices", step.codes)
    golden.check("out.z_q", step.latents)
    golden.check("out.codebook", as_rows(quantizer.lookup(every_code(dim)))[0])
    golden.check("out.commitment", step.losses["commitment"].detach())
    entropies = quantizer.entropies(golden["in.z"])
    golden.check("out.per_sample_entropy", entropies.sample)
    golden.check("out.batch_entropy", entropies.batch)
    golden.check("out.aux_loss", step.loss)
    check_gradient(golden, quantizer, step.grad_latents, log_of_lucidrains)


def open_magvit2(golden: Golden) -> LFQ:
    dim = golden.config["dim"]
    return LFQ(dim, temperature=golden.config["temperature"], entropy_group=dim)


def test_open_magvit2() -> None:
    golden = load("openmagvit2_lfq")
    quantizer = open_magvit2(golden)
    step = run(quantizer, golden["in.z"], golden["in.grad_zq"])
    golden.check("out.z_q", step.latents)
    golden.check("out.codes_of_indices", quantizer.lookup(step.codes))
    golden.check("out.commitment", step.losses["commitment"].detach())
    golden.check("out.entropy_loss", step.losses["entropy"].detach())
    entropies = quantizer.entropies(golden["in.z"])
    golden.check("out.per_sample_entropy", entropies.sample)
    golden.check("out.codebook_entropy", entropies.batch)
    check_gradient(golden, quantizer, step.grad_latents, log_of_open_magvit2)


def test_open_magvit2_has_the_bits_of_a_code_in_reverse() -> None:
    """Deliberate: dimension 0 is its least significant bit, ours the most, as in lucidrains' and bsq-vit's code."""
    golden = load("openmagvit2_lfq")
    quantizer = open_magvit2(golden)
    codes = quantizer(golden["in.z"]).codes
    golden.check("out.indices", reverse_bits(codes, quantizer.dim).flatten())
    theirs = golden["out.indices"].view_as(codes)
    assert not torch.equal(codes, theirs)
    golden.check("out.codes_of_indices", quantizer.lookup(reverse_bits(theirs, quantizer.dim)))


def test_open_magvit2_factorizes_a_code_into_the_same_dimensions() -> None:
    """Its sub-tokens are of the first three dimensions and of the rest, each with its bits in reverse again."""
    golden = load("openmagvit2_lfq")
    quantizer = open_magvit2(golden)
    widths = [3, quantizer.dim - 3]
    codes = quantizer(golden["in.z"]).codes
    before, after = split_bits(codes, widths).unbind(dim=-1)
    golden.check("factorized.indices_pre", reverse_bits(before, widths[0]).flatten())
    golden.check("factorized.indices_post", reverse_bits(after, widths[1]).flatten())
    assert torch.equal(join_bits(torch.stack([before, after], dim=-1), widths), codes)


@pytest.mark.parametrize("compute", ["group", "analytical"])
def test_bsq_vit(compute: str) -> None:
    """Its commitment sums over channels, so its weight is D times ours; `analytical` is groups of one dimension.

    Deliberate: it quantizes to +-1, passes the gradient there and scales after, so that what reaches z is 1/sqrt(D)
    of what comes in; ours is straight through to the point on the sphere, as in lucidrains' code. Its caller has
    normalised z, where `BSQ` does so itself: our gradient is its own less the part along z.
    """
    golden = load(f"bsqvit_bsq_{compute}")
    dim = golden.config["embed_dim"]
    quantizer = BSQ(
        dim,
        commitment_weight=golden.config["beta"] * dim,
        entropy_weight=golden.config["zeta"],
        sample_entropy_weight=golden.config["gamma0"],
        batch_entropy_weight=golden.config["gamma"],
        temperature=1 / golden.config["inv_temperature"],
        entropy_group=golden.config["group_size"] if compute == "group" else 1,
    )
    z, grad = golden["in.z"], golden["in.grad_zq"]
    step = run(quantizer, as_grid(z), as_grid(grad) * dim**-0.5)
    golden.check("out.indices", step.codes.squeeze(1))
    golden.check("out.z_q", as_rows(step.latents))
    golden.check("out.loss", step.loss)
    golden.check("out.codebook_entropy", quantizer.entropies(as_grid(z)).batch)
    widths = [golden.config["group_size"]] * (dim // golden.config["group_size"])
    golden.check("out.group_indices", split_bits(step.codes.squeeze(1), widths))

    theirs = golden["out.grad_z"]
    across = theirs - (theirs * z).sum(dim=-1, keepdim=True) * z
    torch.testing.assert_close(as_rows(step.grad_latents), across, atol=1e-5, rtol=1e-4)
    unscaled = run(quantizer, as_grid(z), as_grid(grad)).grad_latents
    assert F.cosine_similarity(as_rows(unscaled).flatten(), theirs.flatten(), dim=0) < 0.999
