"""Numbers that other projects' Gumbel, residual and product quantizers produced, matched at their tolerances."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from golden_files import Golden, as_grid, as_rows, load
from torch import Tensor

from imtok.kernels import codes_to_digits, digits_to_codes
from imtok.quantizers import (
    FSQ,
    LFQ,
    GumbelQuantizer,
    ProductQuantizer,
    Quantizer,
    ResidualQuantizer,
    VectorQuantizer,
)
from imtok.quantizers.base import to_grid, to_rows
from imtok.quantizers.gumbel import kl_to_uniform


def vq_with(codebook: Tensor) -> VectorQuantizer:
    quantizer = VectorQuantizer(codebook.shape[1], len(codebook), commitment_weight=1.0)
    quantizer.codebook.copy_(codebook)
    return quantizer


def several_vq(codebooks: Tensor, shared: bool) -> list[VectorQuantizer]:
    """One quantizer for each codebook (Q, K, D), or the one they all share."""
    if shared:
        assert all(torch.equal(codebook, codebooks[0]) for codebook in codebooks)
    return [vq_with(codebook) for codebook in (codebooks[:1] if shared else codebooks)]


def residual_vq(codebooks: Tensor, shared: bool) -> ResidualQuantizer:
    stages = several_vq(codebooks, shared)
    return ResidualQuantizer(stages[0], depth=len(codebooks)) if shared else ResidualQuantizer(stages)


def codes_of_stages(quantizer: ResidualQuantizer, codes: Tensor) -> Tensor:
    """What each stage adds: codes (B, 1, N, Q) -> (Q, B, N, D)."""
    added = [
        as_rows(stage.lookup(codes[..., index])) * quantizer.scales[index] for index, stage in enumerate(quantizer.uses)
    ]
    return torch.stack(added)


# --- Gumbel

# taming draws noise at evaluation too: its `eval` is a draw at temperature 1, not what imtok does there.
DRAWS = [("eval", 1.0), ("train", 0.7)]


def taming_gumbel(golden: Golden, temperature: float) -> GumbelQuantizer:
    config = golden.config
    quantizer = GumbelQuantizer(
        config["num_hiddens"],
        config["n_embed"],
        code_dim=config["embedding_dim"],
        temperature=temperature,
        kl_weight=config["kl_weight"],
        straight_through=config["straight_through"],
    )
    with torch.no_grad():
        quantizer.projection.weight.copy_(golden["in.proj_weight"].flatten(1))
        quantizer.projection.bias.copy_(golden["in.proj_bias"])
        quantizer.codebook.copy_(golden["in.embed"])
    return quantizer


@pytest.mark.parametrize(("draw", "temperature"), DRAWS)
def test_taming_gumbel_with_the_noise_it_drew(draw: str, temperature: float) -> None:
    golden = load("taming_gumbel")
    quantizer = taming_gumbel(golden, temperature)
    z = golden["in.z"].clone().requires_grad_()
    logits = quantizer.logits(to_rows(z))
    chosen, codes = quantizer.choose(logits, to_rows(golden[f"{draw}.gumbel_noise"]))
    kl = quantizer.loss_weights["kl"] * kl_to_uniform(logits)
    objective = kl + (golden["in.grad_zq"] * to_grid(chosen, z)).sum()
    grad_z, grad_codebook, grad_weight = torch.autograd.grad(
        objective, [z, quantizer.codebook, quantizer.projection.weight]
    )

    golden.check("out.logits", to_grid(logits, z).detach())
    golden.check(f"{draw}.indices", codes.view(2, 4, 4))
    golden.check(f"{draw}.z_q", to_grid(chosen, z).detach())
    golden.check(f"{draw}.kl_loss", kl.detach())
    golden.check(f"{draw}.grad_z", grad_z)
    golden.check(f"{draw}.grad_embed", grad_codebook)
    golden.check(f"{draw}.grad_proj_weight", grad_weight[:, :, None, None])


def test_evaluation_takes_the_largest_logit_where_taming_still_draws() -> None:
    """Deliberate: a tokenizer gives the same codes for the same image, and the divergence is a loss of training."""
    golden = load("taming_gumbel")
    quantizer = taming_gumbel(golden, 1.0).eval()
    out = quantizer(golden["in.z"])
    golden.check("out.argmax_indices", out.codes)
    divergence = kl_to_uniform(quantizer.logits(to_rows(golden["in.z"])))
    golden.check("eval.kl_loss", quantizer.loss_weights["kl"] * divergence.detach())
    assert out.losses == {}
    assert (out.codes != golden["eval.indices"]).any()


# --- residual VQ


@pytest.mark.parametrize("kind", ["separate", "shared"])
def test_residual_vq_of_lucidrains(kind: str) -> None:
    golden = load(f"lucidrains_residual_vq_{kind}")
    quantizer = residual_vq(golden["in.codebooks"], golden.config["shared_codebook"]).eval()
    out = quantizer(as_grid(golden["in.x"]))
    golden.check("out.indices", out.codes.squeeze(1))
    golden.check("out.quantized", as_rows(out.latents))
    golden.check("out.from_indices", as_rows(quantizer.lookup(out.codes)))
    golden.check("out.all_codes", codes_of_stages(quantizer, out.codes))
    for stages in range(1, quantizer.depth + 1):
        coarse = as_rows(quantizer.lookup(out.codes[..., :stages]))
        torch.testing.assert_close(coarse, golden["out.all_codes"][:stages].sum(dim=0), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["separate", "shared"])
def test_the_bottleneck_of_rq_vae(kind: str) -> None:
    """Its cumulative commitment, from which nothing is detached but the codes, is the mean of the stages' own."""
    golden = load(f"rqvae_bottleneck_{kind}")
    quantizer = residual_vq(golden["in.codebooks"], golden.config["shared_codebook"]).eval()
    x = golden["in.x"].clone().requires_grad_()
    out = quantizer(x.permute(0, 3, 1, 2))
    (out.loss + (golden["in.grad_zq"] * out.latents.permute(0, 2, 3, 1)).sum()).backward()
    golden.check("out.indices", out.codes)
    golden.check("out.z_q", out.latents.detach().permute(0, 2, 3, 1))
    golden.check("out.loss", out.loss.detach())
    assert x.grad is not None
    golden.check("out.grad_x", x.grad)
    golden.check("out.embed_code", quantizer.lookup(out.codes).permute(0, 2, 3, 1))


# --- product VQ


@pytest.mark.parametrize("kind", ["separate", "shared"])
def test_the_heads_of_lucidrains(kind: str) -> None:
    golden = load(f"lucidrains_heads_{kind}")
    heads = [vq_with(codebook) for codebook in golden["in.codebook"]]
    separate, count = golden.config["separate_codebook_per_head"], golden.config["heads"]
    quantizer = ProductQuantizer(heads) if separate else ProductQuantizer(heads[0], num_heads=count)
    out = quantizer.eval()(as_grid(golden["in.x"]))
    golden.check("out.indices", out.codes.squeeze(1))
    golden.check("out.quantized", as_rows(out.latents))
    golden.check("out.quantized", as_rows(quantizer.lookup(out.codes)))


# --- residual FSQ


class SymmetricFSQ(Quantizer):
    """The stage of lucidrains' ResidualFSQ: L values from -1 to 1 at equal distances, for even L too."""

    def __init__(self, levels: Sequence[int], clamps: bool) -> None:
        super().__init__()
        self.dim, self.num_codes, self.loss_weights = len(levels), math.prod(levels), {}
        self.levels, self.clamps = list(levels), clamps
        self.steps = torch.tensor(levels).view(1, -1, 1, 1) - 1

    def quantize(self, latents: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        bounded = latents.clamp(-1, 1) if self.clamps else latents.tanh()
        digits = (self.steps * (bounded + 1) / 2 + 0.5).floor()
        return digits * (2 / self.steps) - 1, digits_to_codes(digits.movedim(1, -1), self.levels), {}

    def lookup(self, codes: Tensor) -> Tensor:
        return codes_to_digits(codes, self.levels).movedim(-1, 1).contiguous() * (2 / self.steps) - 1

    def code_tensors(self) -> dict[str, Tensor]:
        return {}


def falling_scales(levels: Sequence[int], stages: int) -> list[list[float]]:
    return [[float(level) ** -stage for level in levels] for stage in range(stages)]


def residual_fsq_input(golden: Golden) -> Tensor:
    """The latents as they enter the first stage: (B, d, 1, N). With a hard clamp the peer bounds them first, once."""
    x = as_grid(golden["in.x"])
    if not golden.config["bound_hard_clamp"]:
        return x
    most = 1 + 1 / (torch.tensor(golden.config["levels"]).view(1, -1, 1, 1) - 1)
    return (x / most).tanh() * most


@pytest.mark.parametrize("bound", ["hard", "tanh"])
def test_residual_fsq_of_lucidrains_is_a_residual_quantizer(bound: str) -> None:
    golden = load(f"lucidrains_residual_fsq_{bound}")
    levels, stages = golden.config["levels"], golden.config["num_quantizers"]
    stage = SymmetricFSQ(levels, golden.config["bound_hard_clamp"])
    quantizer = ResidualQuantizer(stage, depth=stages, scales=falling_scales(levels, stages)).eval()
    golden.check("out.scales", quantizer.scales)
    out = quantizer(residual_fsq_input(golden))
    golden.check("out.indices", out.codes.squeeze(1))
    golden.check("out.quantized", as_rows(out.latents))
    golden.check("out.all_codes", codes_of_stages(quantizer, out.codes))
    assert torch.equal(quantizer.lookup(out.codes), out.latents)


@pytest.mark.parametrize("bound", ["hard", "tanh"])
def test_fsq_has_the_grid_of_the_notebook_not_lucidrains(bound: str) -> None:
    """Deliberate: `FSQ` is the authors' notebook, whose even level counts span [-1, 1 - 2/L] and whose bound is tanh.

    For odd counts and tanh the two are one quantizer but for the notebook's narrower bound, at bin edges.
    """
    golden = load(f"lucidrains_residual_fsq_{bound}")
    levels, stages = golden.config["levels"], golden.config["num_quantizers"]
    quantizer = ResidualQuantizer(FSQ(levels), depth=stages, scales=falling_scales(levels, stages)).eval()
    out = quantizer(residual_fsq_input(golden))
    assert torch.equal(quantizer.lookup(out.codes), out.latents)
    ours, theirs = codes_of_stages(quantizer, out.codes)[0], golden["out.all_codes"][0]
    even, odd = [0], [1, 2, 3]  # of levels 8, 5, 5, 3
    alike = torch.isclose(ours[..., even], theirs[..., even])
    assert (ours[..., even][alike] == -1).all()  # all that j/4 and 2k/7 - 1 have in common
    assert not alike.all()
    assert ours[..., even].max() <= 0.75
    if bound == "tanh":
        torch.testing.assert_close(ours[..., odd], theirs[..., odd], atol=1e-6, rtol=0)
    else:
        assert not torch.allclose(ours[..., odd], theirs[..., odd], atol=1e-2)


# --- residual LFQ


def test_residual_lfq_of_lucidrains() -> None:
    """Its stages have codes of +-2^-i; here they are LFQ's +-1, scaled by 2^-i."""
    golden = load("lucidrains_residual_lfq")
    stages = golden.config["num_quantizers"]
    scales = [2.0**-stage for stage in range(stages)]
    quantizer = ResidualQuantizer(LFQ(golden.config["dim"]), depth=stages, scales=scales).eval()
    assert quantizer.num_codes == golden.config["codebook_size"]
    out = quantizer(as_grid(golden["in.x"]))
    golden.check("out.indices", out.codes.squeeze(1))
    golden.check("out.quantized", as_rows(out.latents))
    golden.check("out.quantized", as_rows(quantizer.lookup(out.codes)))
