"""Numbers that other projects' own code produced, matched at the tolerances stated with them.

Most come from the files in `goldens/`; a few stand here as literals. Where a peer differs on purpose, the difference
itself is asserted and its reason written down. Not compared: the orthogonal regulariser of `lucidrains_aux_losses`,
which imtok leaves out (reason at its test), and the reflection and the gradient without scale of `rotation_trick`,
which are ablations of the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_files import Golden, Step, as_grid, as_rows, load, run
from torch import Tensor

from imtok.kernels import assignment_entropies, assignment_logits, finite_scalar_bound, nearest_codes, rotate_to
from imtok.quantizers import FSQ, VectorQuantizer
from imtok.usage import CodebookUsage, count_codes


def vq_with(codebook: Tensor, **options: Any) -> VectorQuantizer:
    """A quantizer in training mode on the peer's codebook, statistics as after construction."""
    quantizer = VectorQuantizer(codebook.shape[1], len(codebook), **options).to(codebook.dtype)
    quantizer.codebook.data.copy_(codebook)
    if quantizer.codebook_update == "ema":
        quantizer.embed_sum.copy_(codebook)
    return quantizer.train()


def usage_of(codes: Tensor, num_codes: int) -> CodebookUsage:
    return CodebookUsage(count_codes([codes.numpy()], num_codes), 0)


# --- gradient codebooks

# Peers put beta on one of the two terms: taming's default (`legacy`) and diffusers on the codebook, others on the
# commitment.
BETA_ON_CODEBOOK = {"codebook_update": "gradient", "commitment_weight": 1.0, "codebook_weight": 0.25}
BETA_ON_COMMITMENT = {"codebook_update": "gradient", "commitment_weight": 0.25, "codebook_weight": 1.0}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("variant", "weights"), [("legacy", BETA_ON_CODEBOOK), ("fixed", BETA_ON_COMMITMENT)])
def test_taming_vq(variant: str, weights: dict[str, Any], dtype: torch.dtype) -> None:
    golden = load("taming_vq2")
    suffix = "_f64" if dtype == torch.float64 else ""
    quantizer = vq_with(golden["in.codebook"].to(dtype), **weights)
    step = run(quantizer, golden["in.z"].to(dtype), golden["in.grad_zq"].to(dtype))
    golden.check("out.indices", step.codes)
    golden.check(f"out.z_q{suffix}", step.latents)
    golden.check(f"{variant}{suffix}.loss", step.loss)
    golden.check(f"{variant}{suffix}.grad_z", step.grad_latents)
    assert step.grad_codebook is not None
    golden.check(f"{variant}{suffix}.grad_codebook", step.grad_codebook)
    golden.check("out.codebook_entry", quantizer.lookup(step.codes))


def test_the_first_vector_quantizer_of_taming_has_the_legacy_loss() -> None:
    golden = load("taming_vq2")
    quantizer = vq_with(golden["in.codebook"], **BETA_ON_CODEBOOK)
    step = run(quantizer, golden["in.z"], golden["in.grad_zq"])
    golden.check("v1.loss", step.loss)
    golden.check("v1.perplexity", torch.tensor(usage_of(step.codes, golden.config["n_e"]).perplexity))


def test_ties_go_to_the_first_code_as_elsewhere() -> None:
    golden = load("taming_vq2_ties")
    codes = nearest_codes(golden["in.z"], golden["in.codebook"])
    golden.check("out.indices", codes)
    golden.check("out.indices_diffusers", codes)


def test_diffusers_vq() -> None:
    golden = load("diffusers_vq")
    step = run(vq_with(golden["in.codebook"], **BETA_ON_CODEBOOK), golden["in.z"], golden["in.grad_zq"])
    golden.check("out.indices", step.codes.flatten())
    golden.check("out.z_q", step.latents)
    golden.check("out.loss", step.loss)
    golden.check("out.grad_z", step.grad_latents)
    assert step.grad_codebook is not None
    golden.check("out.grad_codebook", step.grad_codebook)


@pytest.mark.parametrize(("name", "metric"), [("titok_vq_plain", "euclidean"), ("titok_vq_l2", "cosine")])
def test_titok_vq(name: str, metric: str) -> None:
    golden = load(name)
    quantizer = vq_with(golden["in.codebook"], metric=metric, **BETA_ON_COMMITMENT)
    step = run(quantizer, golden["in.z"], golden["in.grad_zq"])
    golden.check("out.indices", step.codes)
    golden.check("out.z_q", step.latents)
    golden.check("out.commitment_loss", 0.25 * step.losses["commitment"].detach())
    golden.check("out.codebook_loss", step.losses["codebook"].detach())
    golden.check("out.loss", step.loss)
    golden.check("out.grad_z", step.grad_latents)
    assert step.grad_codebook is not None
    golden.check("out.grad_codebook", step.grad_codebook)


def peers_entropies(logits: Tensor) -> tuple[Tensor, Tensor]:
    """As `assignment_entropies`, but the second as LlamaGen and IBQ take it: -sum p log(p + 1e-5)."""
    mean = logits.softmax(dim=1).mean(dim=0)  # (K,)
    return assignment_entropies(logits)[0], -(mean * (mean + 1e-5).log()).sum()


@pytest.mark.parametrize(("name", "metric"), [("llamagen_vq_plain", "euclidean"), ("llamagen_vq_l2", "cosine")])
def test_llamagen_vq(name: str, metric: str) -> None:
    """Its batch entropy is -sum p log(p + 1e-5), imtok's exact: that moves the value, not the gradients' digits."""
    golden = load(name)
    weight = golden.config["entropy_loss_ratio"]
    quantizer = vq_with(golden["in.codebook"], metric=metric, entropy_weight=weight, **BETA_ON_COMMITMENT)
    step = run(quantizer, golden["in.z"], golden["in.grad_zq"])
    golden.check("out.indices", step.codes.flatten())
    golden.check("out.z_q", step.latents)
    golden.check("out.vq_loss", step.losses["codebook"].detach())
    golden.check("out.commit_loss", 0.25 * step.losses["commitment"].detach())
    golden.check("out.grad_z", step.grad_latents)
    assert step.grad_codebook is not None
    golden.check("out.grad_codebook", step.grad_codebook)
    rows, codebook = golden["in.z"].movedim(1, -1).flatten(0, 2), golden["in.codebook"]
    if metric == "cosine":
        rows, codebook = F.normalize(rows, dim=1), F.normalize(codebook, dim=1)
    logits = assignment_logits(rows, codebook, metric) / quantizer.entropy_temperature
    sample, batch = peers_entropies(logits)
    golden.check("out.entropy_loss", weight * (sample - batch))
    exact = weight * step.losses["entropy"].item()
    assert 0 < golden["out.entropy_loss"].item() - exact < weight * golden.config["n_e"] * 1e-5
    golden.check("out.z_q_eval", quantizer.eval()(golden["in.z"]).latents.detach())
    golden.check("out.codebook_entry", quantizer.lookup(step.codes).detach())


@pytest.mark.parametrize("name", ["llamagen_vq_plain", "llamagen_vq_l2"])
def test_the_entropy_loss_of_llamagen(name: str) -> None:
    golden = load(name)
    affinity = golden["entropy.in"].clone().requires_grad_()
    sample, batch = peers_entropies(affinity / 0.1)
    (sample - batch).backward()
    golden.check("entropy.loss", (sample - batch).detach())
    assert affinity.grad is not None
    golden.check("entropy.grad", affinity.grad)


@pytest.mark.parametrize("name", ["llamagen_vq_plain", "llamagen_vq_l2"])
def test_the_usage_agrees_with_llamagen_where_code_0_is_used(name: str) -> None:
    """It counts different codes in a window of 65536 that begins as zeros, so code 0 always counts as used."""
    golden = load(name)
    assert (golden["out.indices"] == 0).any()
    golden.check("out.usage", torch.tensor(usage_of(golden["out.indices"], 40).usage, dtype=torch.float64))


def test_bsqvit_vq_sums_its_loss_over_channels() -> None:
    """The others average: its weights are D times theirs."""
    golden = load("bsqvit_vq_l2")
    dim = golden.config["embed_dim"]
    weights = {"codebook_update": "gradient", "commitment_weight": 0.25 * dim, "codebook_weight": 1.0 * dim}
    step = run(vq_with(golden["in.codebook"], metric="cosine", **weights), golden["in.z"], golden["in.grad_zq"])
    golden.check("out.indices", step.codes.flatten(1))
    golden.check("out.z_q", step.latents)
    golden.check("out.loss", step.loss)
    golden.check("out.grad_z", step.grad_latents)
    assert step.grad_codebook is not None
    golden.check("out.grad_codebook", step.grad_codebook)
    # Its entropy is that of the counts with 1e-4 added to each, in nats; imtok's is of the counts as they are, in bits.
    usage = usage_of(step.codes, golden.config["n_embed"])
    shares = (usage.counts + 1e-4) / (usage.counts + 1e-4).sum()
    golden.check("out.usage_entropy", torch.tensor(-(shares * np.log(shares)).sum(), dtype=torch.float32))
    assert usage.entropy_bits * np.log(2) == pytest.approx(golden["out.usage_entropy"].item(), rel=1e-3)


def test_seedvoken_searches_on_the_sphere_but_returns_raw_codes() -> None:
    """A deliberate difference: a code that was found by its direction has no length to give back.

    SEED-Voken searches by cosine, then reads the un-normalised rows and takes the loss on them, so a row's length
    takes no part in the choice yet decides the error. imtok's cosine codes are unit vectors throughout, as LlamaGen's.
    """
    golden = load("seedvoken_vq2_l2")
    z, codebook = golden["in.z"], golden["in.codebook"]
    quantizer = vq_with(codebook, metric="cosine", **BETA_ON_CODEBOOK)
    out = quantizer(z)
    golden.check("out.indices", out.codes)
    raw = F.embedding(out.codes, codebook).movedim(-1, 1)
    golden.check("out.z_q", raw)
    golden.check("out.loss", 1.25 * F.mse_loss(raw, z))
    torch.testing.assert_close(out.latents.detach(), F.normalize(raw, dim=1))
    assert not torch.allclose(out.loss, golden["out.loss"], rtol=0.1)


@pytest.mark.parametrize(
    ("name", "estimator"), [("lucidrains_learnable_ste", "straight_through"), ("lucidrains_learnable_rot", "rotation")]
)
def test_lucidrains_learnable_codebook(name: str, estimator: str) -> None:
    """Its one term 0.25 |z - e|^2, without stop-gradients, is our two at 0.25: half the value, the same gradients."""
    golden = load(name)
    weights = {"codebook_update": "gradient", "commitment_weight": 0.25, "codebook_weight": 0.25}
    step = run(vq_with(golden["in.codebook"], estimator=estimator, **weights), golden["in.z"], golden["in.grad_q"])
    golden.check("out.indices", step.codes)
    golden.check("out.quantized", step.latents)
    golden.check("out.loss", step.loss / 2)
    golden.check("out.grad_z", step.grad_latents)
    assert step.grad_codebook is not None
    golden.check("out.grad_codebook", step.grad_codebook)


def test_lucidrains_auxiliary_losses() -> None:
    """Its diversity is minus our batch entropy, of plain distances and once a position: over the images alone.

    That mean over two images is a quirk of its reduction, rebuilt here from our function. Its orthogonal regulariser
    is left out: it needs the K x K products of all codes, and evens out directions whether or not latents lie there.
    """
    golden = load("lucidrains_aux_losses")
    quantizer = vq_with(golden["in.codebook"], commitment_weight=golden.config["commitment_weight"])
    out = quantizer(as_grid(golden["in.x"]))
    golden.check("out.indices", out.codes.squeeze(1))
    golden.check("out.commitment", out.losses["commitment"])
    scale = golden.config["codebook_diversity_temperature"]
    distances = torch.cdist(golden["in.x"], golden["in.codebook"])  # (B, N, K)
    entropies = [assignment_entropies(-scale * distances[:, place])[1] for place in range(distances.shape[1])]
    diversity = -torch.stack(entropies).mean()
    golden.check("out.diversity", diversity)
    theirs = golden.config["codebook_diversity_loss_weight"] * diversity
    theirs += golden.config["orthogonal_reg_weight"] * golden["out.orthogonal"]
    golden.check("out.total", out.loss + theirs)


# --- projection (SimVQ)


def projection_with(golden: Golden, **options: Any) -> VectorQuantizer:
    has_bias = "in.bias" in golden.tensors
    quantizer = vq_with(golden["in.frozen"], codebook_update="projection", projection_bias=has_bias, **options)
    quantizer.projection.weight.data.copy_(golden["in.weight"])
    if has_bias:
        quantizer.projection.bias.data.copy_(golden["in.bias"])
    return quantizer


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("official_legacy", {"commitment_weight": 1.0, "codebook_weight": 0.25}),
        ("official_fixed", {"commitment_weight": 0.25}),
        ("lucidrains_ste", {"commitment_weight": 0.25}),
        ("lucidrains_rot", {"commitment_weight": 0.25, "estimator": "rotation"}),
    ],
)
def test_simvq(name: str, options: dict[str, Any]) -> None:
    """The official code has a bias, lucidrains none; its look-up by index forgets the projection, imtok's does not."""
    golden = load(f"simvq_{name}")
    quantizer = projection_with(golden, **options)
    latents = golden["in.z"].clone().requires_grad_()
    out = quantizer(latents)
    (out.loss + (out.latents * golden["in.grad_zq"]).sum()).backward()
    golden.check("out.indices", out.codes)
    golden.check("out.z_q", out.latents.detach())
    golden.check("out.loss", out.loss.detach())
    assert latents.grad is not None
    golden.check("out.grad_z", latents.grad)
    grads = {key: value.grad for key, value in quantizer.named_parameters()}
    for key in ("weight", "bias"):
        if f"out.grad_{key}" in golden.tensors:
            grad = grads[f"projection.{key}"]
            assert grad is not None
            golden.check(f"out.grad_{key}", grad)
    golden.check("out.z_q", quantizer.lookup(out.codes).detach())


# --- index propagation (IBQ)


@pytest.mark.parametrize("name", ["t1", "t0.01"])
def test_ibq(name: str) -> None:
    """Its entropies have log(p + 1e-5), as LlamaGen's: `peers_entropies`, within 1e-5 K of the exact."""
    golden = load(f"ibq_{name}")
    temperature = golden.config["entropy_temperature"]
    quantizer = vq_with(
        golden["in.codebook"],
        metric="dot",
        estimator="index_propagation",
        codebook_update="gradient",
        commitment_weight=1.0,
        codebook_weight=golden.config["beta"],
        entropy_weight=golden.config["entropy_loss_weight_used_here"],
        entropy_temperature=temperature,
    )
    step = run(quantizer, golden["in.z"], golden["in.grad_zq"])
    golden.check("out.indices", step.codes.flatten())
    golden.check("out.z_q", step.latents)
    golden.check("out.quant_loss", step.loss - 0.05 * step.losses["entropy"].detach())
    golden.check("out.grad_z", step.grad_latents)
    assert step.grad_codebook is not None
    golden.check("out.grad_codebook", step.grad_codebook)
    rows = golden["in.z"].movedim(1, -1).flatten(0, 2)
    sample, batch = peers_entropies(assignment_logits(rows, golden["in.codebook"], "dot") / temperature)
    golden.check("out.sample_entropy", sample)
    golden.check("out.avg_entropy", batch)
    golden.check("out.entropy_loss", sample - batch)
    assert 0 < golden["out.entropy_loss"] - step.losses["entropy"].detach() < golden.config["n_e"] * 1e-5


# --- online clustering (CVQ)


def test_titok_online_clustering() -> None:
    golden = load("titok_vq_clustering")
    quantizer = vq_with(
        golden["in.codebook"], online_clustering=True, decay=golden.config["decay"], **BETA_ON_COMMITMENT
    )
    for number in (1, 2):
        golden.check(f"out.indices{number}", quantizer(golden[f"in.z{number}"]).codes)
        golden.check(f"out.codebook{number}", quantizer.codebook.detach())
        golden.check(f"out.embed_prob{number}", quantizer.usage)


# --- moving averages


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize(("short", "estimator"), [("ste", "straight_through"), ("rot", "rotation")])
def test_lucidrains_moving_averages_over_three_steps(metric: str, short: str, estimator: str) -> None:
    golden = load(f"lucidrains_{metric.replace('euclidean', 'euclid')}_ema_{short}")
    quantizer = vq_with(
        golden["in.codebook"],
        metric=metric,
        estimator=estimator,
        decay=golden.config["decay"],
        eps=golden.config["eps"],
        commitment_weight=golden.config["commitment_weight"],
    )
    for number in (1, 2, 3):
        step = run(quantizer, as_grid(golden[f"in.x{number}"]), as_grid(golden[f"in.grad_q{number}"]))
        golden.check(f"out.indices{number}", step.codes.squeeze(1))
        golden.check(f"out.quantized{number}", as_rows(step.latents))
        golden.check(f"out.loss{number}", step.loss)
        golden.check(f"out.grad_x{number}", as_rows(step.grad_latents))
        golden.check(f"state.codebook{number}", quantizer.codebook)
        golden.check(f"state.cluster_size{number}", quantizer.cluster_size)
        golden.check(f"state.embed_avg{number}", quantizer.embed_sum)
    out = quantizer.eval()(as_grid(golden["in.x1"]))
    golden.check("eval.indices", out.codes.squeeze(1))
    golden.check("eval.quantized", as_rows(out.latents))
    golden.check("eval.codes_from_indices", as_rows(quantizer.lookup(out.codes)))


@pytest.mark.parametrize("peer", ["taming", "rqvae", "bsqvit", "rottrick", "lucidrains"])
def test_five_peers_agree_on_moving_averages_once_they_start_alike(peer: str) -> None:
    """All but lucidrains start their counts at 0; imtok starts at 1, as lucidrains, and follows them from 0 too."""
    golden = load("ema_five_peers")
    quantizer = vq_with(golden["in.codebook"], decay=golden.config["decay"], eps=golden.config["eps"])
    if peer != "lucidrains":
        quantizer.cluster_size.zero_()
    for number in (1, 2, 3):
        quantizer(as_grid(golden[f"in.x{number}"].unsqueeze(0)))
        golden.check(f"{peer}.cluster_size{number}", quantizer.cluster_size)
        golden.check(f"{peer}.embed_avg{number}", quantizer.embed_sum)
        codebook = golden[f"{peer}.codebook{number}"]
        torch.testing.assert_close(quantizer.codebook[:-1], codebook[:-1], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(quantizer.codebook[-1], codebook[-1], atol=1e-6, rtol=1e-4)  # never chosen


def test_counts_that_start_at_zero_throw_unused_codes_away() -> None:
    """The reason for starting at 1: after one step the unused code is 1e5 times as long with the other peers."""
    golden = load("ema_five_peers")
    start = golden["in.codebook"][-1]
    assert golden["taming.codebook1"][-1].norm() > 5e4 * start.norm()
    quantizer = vq_with(golden["in.codebook"], decay=0.99)
    quantizer(as_grid(golden["in.x1"].unsqueeze(0)))
    torch.testing.assert_close(quantizer.codebook[-1], start, atol=0, rtol=1e-4)


def test_moving_averages_of_lucidrains_in_figures() -> None:
    """Two steps of vector-quantize-pytorch 1.32.0: decay 0.8, commitment_weight 1, counts starting at 1."""
    quantizer = vq_with(torch.tensor([[0.0, 0.0], [1.0, 1.0], [-4.0, 3.0]]), decay=0.8, commitment_weight=1.0)

    one = torch.tensor([[[0.25, -0.5], [0.125, 0.25], [1.5, 0.75], [0.75, 1.25], [1.0, 2.0], [-0.5, 0.25]]])
    out = quantizer(as_grid(one))
    assert out.codes.tolist() == [[[0, 0, 1, 1, 1, 0]]]
    assert out.loss.item() == pytest.approx(0.1783854216, rel=1e-6)
    torch.testing.assert_close(quantizer.cluster_size, torch.tensor([1.4, 1.4, 0.8]))
    torch.testing.assert_close(quantizer.embed_sum, torch.tensor([[-0.025, 0.0], [1.45, 1.6], [-3.2, 2.4]]))
    expected = torch.tensor([[-0.0178571641, 0.0], [1.0357155800, 1.1428585052], [-3.9999833107, 2.9999876022]])
    torch.testing.assert_close(quantizer.codebook, expected, atol=1e-7, rtol=1e-6)

    two = torch.tensor([[[1.25, 1.0], [0.5, 0.75], [0.0, -1.0], [2.0, 1.5], [0.25, 0.25], [1.0, 0.5]]])
    out = quantizer(as_grid(two))
    assert out.codes.tolist() == [[[1, 1, 0, 1, 0, 1]]]
    assert out.loss.item() == pytest.approx(0.2595132291, rel=1e-6)
    torch.testing.assert_close(quantizer.cluster_size, torch.tensor([1.52, 1.92, 0.64]))
    expected = torch.tensor(
        [[0.0197368581, -0.0986842960], [1.0989607573, 1.0572940111], [-3.9999668598, 2.9999752045]]
    )
    torch.testing.assert_close(quantizer.codebook, expected, atol=1e-7, rtol=1e-6)


# --- the rotation trick


@dataclass(frozen=True)
class Rotated:
    """The rows of `rotation_trick`, in float64: value and gradient from imtok, and what the peers gave."""

    golden: Golden
    cases: list[str]
    latents: Tensor
    targets: Tensor
    grad: Tensor
    gradient: Tensor

    def rows(self, *prefixes: str) -> list[int]:
        return [row for row, case in enumerate(self.cases) if case.startswith(prefixes)]


@pytest.fixture
def rotated() -> Rotated:
    golden = load("rotation_trick")
    latents, targets, grad = (golden[f"in.{name}"].double() for name in ("e", "q", "grad"))
    latents.requires_grad_()
    value = rotate_to(latents, targets)
    assert torch.equal(value, targets)
    (gradient,) = torch.autograd.grad(value, latents, grad)
    return Rotated(golden, golden.config["case_names"], latents.detach(), targets, grad, gradient)


def test_rotations_are_those_of_lucidrains(rotated: Rotated) -> None:
    """Its only other row is zero_e, asserted below; its value drifts from the target near opposition, ours does not."""
    rows = [row for row, case in enumerate(rotated.cases) if case != "zero_e"]
    theirs = rotated.golden["lucidrains.grad_e_f64"]
    torch.testing.assert_close(rotated.gradient[rows], theirs[rows], atol=1e-12, rtol=1e-8)
    torch.testing.assert_close(rotated.targets[rows], rotated.golden["lucidrains.out_f64"][rows], atol=1e-10, rtol=1e-8)


def test_rotations_in_float32_are_within_the_rows_own_tolerance(rotated: Rotated) -> None:
    latents = rotated.golden["in.e"].clone().requires_grad_()
    rotate_to(latents, rotated.golden["in.q"]).backward(rotated.golden["in.grad"])
    assert latents.grad is not None
    rows = [row for row, case in enumerate(rotated.cases) if case != "zero_e"]
    error = (latents.grad - rotated.golden["lucidrains.grad_e_f64"]).abs().amax(dim=1)
    assert (error <= rotated.golden["lucidrains.row_atol_grad"])[rows].all()


def test_rotations_agree_with_the_vq_vae_of_the_paper(rotated: Rotated) -> None:
    """vq_vae.py adds 1e-6 to each norm: a relative error of 1e-6 over the length of the vector, or of w = u + v.

    Left out: exact opposition and zero_e, where it gives NaN, -q or a gradient of 1e6 (asserted below).
    """
    rows = rotated.rows("random", "scale", "near", "identical", "parallel", "orthogonal", "zero_q")
    theirs = rotated.golden["vqvae.grad_e_f64"][rows]
    e, q = rotated.latents[rows], rotated.targets[rows]
    between = (F.normalize(e, dim=1) + F.normalize(q, dim=1)).norm(dim=1)
    epsilon = 1e-6 * (1 / e.norm(dim=1) + 1 / q.norm(dim=1).clamp(min=1e-3) + 1 / between)
    longest = rotated.gradient[rows].norm(dim=1).clamp(min=1e-9)
    assert ((rotated.gradient[rows] - theirs).norm(dim=1) <= 4 * epsilon * longest).all()


@pytest.mark.parametrize("peer", ["vqgan", "vitvqgan"])
def test_the_vqgan_variants_lack_the_radial_part(rotated: Rotated, peer: str) -> None:
    """Deliberate: they rotate e/|e| with gradient through the normalisation, which projects out the part along e.

    The paper's section 4.2 and its vq_vae.py keep it, as imtok does: without it nothing from the decoder changes a
    latent's length.
    """
    rows = rotated.rows("random", "scale", "near", "identical", "parallel", "orthogonal")
    u = F.normalize(rotated.latents, dim=1)
    tangential = rotated.gradient - (rotated.gradient * u).sum(dim=1, keepdim=True) * u
    theirs = rotated.golden[f"{peer}.grad_e_f64"]
    torch.testing.assert_close(tangential[rows], theirs[rows], atol=1e-10, rtol=1e-8)
    missing = (rotated.gradient - theirs).norm(dim=1) / rotated.gradient.norm(dim=1)
    assert missing[rotated.rows("random")].mean() > 0.1


def test_exact_opposition_has_the_right_value_and_finite_gradient(rotated: Rotated) -> None:
    """Peers give NaN, -q or q; imtok gives q and reflects the gradient, as lucidrains."""
    rows = rotated.rows("exactly_opposite")
    assert len(rows) == 2
    u = F.normalize(rotated.latents, dim=1)
    scale = rotated.targets.norm(dim=1, keepdim=True) / rotated.latents.norm(dim=1, keepdim=True)
    reflected = scale * (rotated.grad - 2 * (rotated.grad * u).sum(dim=1, keepdim=True) * u)
    torch.testing.assert_close(rotated.gradient[rows], reflected[rows])
    assert rotated.golden["vqgan.grad_e_f64"][rows].isnan().any()


def test_a_zero_latent_takes_the_gradient_straight_through(rotated: Rotated) -> None:
    """Deliberate: peers divide by |e| + 1e-6 and send back a gradient a million times too long."""
    (row,) = rotated.rows("zero_e")
    assert torch.equal(rotated.gradient[row], rotated.grad[row])
    assert rotated.golden["lucidrains.grad_e_f64"][row].norm() > 1e5 * rotated.grad[row].norm()


def test_two_rotations_of_lucidrains_in_figures() -> None:
    latents = torch.tensor(
        [
            [
                -0.236722559,
                0.607733786,
                -0.974000812,
                -0.287303448,
                0.854856431,
                -1.160543919,
                -0.757260919,
                -0.371470124,
            ],
            [0.220734715, 1.057242990, 0.355391741, 0.226475239, 0.613535821, 1.104434609, 0.182741195, 0.736797929],
        ],
        requires_grad=True,
    )
    targets = torch.tensor(
        [
            [-1.142051578, -0.583442509, 0.509125590, 0.200131491, -1.550030589, 0.069827184, 0.541928828, 0.768226981],
            [0.507748187, 0.440602154, 0.886802793, 0.141231090, -0.389170349, 1.101512432, -0.532620311, -1.280678034],
        ]
    )
    grad = torch.tensor(
        [
            [
                0.980223298,
                0.814581096,
                -0.623464346,
                -0.935032010,
                -1.068818331,
                0.531988323,
                -0.824274719,
                0.003832974,
            ],
            [
                0.116959780,
                -0.571681798,
                -0.021717759,
                -0.621029079,
                0.485736787,
                -1.332139850,
                -0.798722684,
                -1.416186571,
            ],
        ]
    )
    rotate_to(latents, targets).backward(grad)
    expected = torch.tensor(
        [
            [
                0.761278562,
                0.688890168,
                -0.474606247,
                -0.959079160,
                -1.709233642,
                0.688952517,
                -0.702169184,
                0.259678988,
            ],
            [0.672757300, 0.611920237, 0.890399906, -0.404709226, 0.856156731, 0.229653651, -1.094647701, -1.785958551],
        ]
    )
    assert latents.grad is not None
    torch.testing.assert_close(latents.grad, expected, atol=2e-6, rtol=2e-6)


# --- finite scalars

FSQ_FILES = ["8x5x5x5", "8x6x5", "8x8x8x6x5", "7x5x5x5x5", "5x5x5", "4x4", "27x4"]


def bounded_rows(latents: Tensor, levels: list[int]) -> Tensor:
    """(N, D) -> (N, D)."""
    return torch.stack([finite_scalar_bound(latents[:, i], level) for i, level in enumerate(levels)], dim=1)


def run_fsq(levels: list[int], rows: Tensor, grad: Tensor) -> Step:
    return run(FSQ(levels), as_grid(rows.unsqueeze(0)), as_grid(grad.unsqueeze(0)))


@pytest.mark.parametrize("name", FSQ_FILES)
def test_fsq_is_that_of_the_authors_notebook(name: str) -> None:
    golden = load(f"fsq_{name}")
    levels = golden.config["levels"]
    step = run_fsq(levels, golden["in.z"], golden["in.grad"])
    golden.check("google.bounded", bounded_rows(golden["in.z"], levels))
    golden.check("google.codes", as_rows(step.latents)[0])
    golden.check("google.indices", step.codes.flatten())
    golden.check("google.grad_z", as_rows(step.grad_latents)[0])
    quantizer = FSQ(levels)
    codebook = as_rows(quantizer.lookup(torch.arange(quantizer.num_codes).view(1, 1, -1)))[0]
    golden.check("google.codebook", codebook)
    digits = ((as_rows(step.latents)[0] + 1) * (torch.tensor(levels) // 2)).round()
    golden.check("google.digits", digits)


def to_nearest_edge(latents: Tensor, levels: list[int]) -> Tensor:
    """How far the bounded latents are from the edge between two digits, in digits: the shape of `latents`."""
    bounded = bounded_rows(latents, levels)
    return (bounded - bounded.floor() - 0.5).abs()


@pytest.mark.parametrize("peer", ["lucidrains", "cosmos"])
@pytest.mark.parametrize("name", FSQ_FILES)
def test_the_ports_of_fsq_differ_at_bin_edges_alone(name: str, peer: str) -> None:
    """Deliberate: they widen the bound by (1 + eps) where the notebook narrows it, and shift by atanh, not tan.

    That moves the bound by up to eps (L - 1), a thousandth of its width: digits change at an edge or not at all.
    """
    golden = load(f"fsq_{name}")
    levels = torch.tensor(golden.config["levels"], dtype=torch.float32)
    z = golden["in.z"]
    step = run_fsq(golden.config["levels"], z, golden["in.grad"])
    ours = as_rows(step.latents)[0]
    differs = (ours - golden[f"{peer}.codes"]).abs() > 1e-6
    assert (to_nearest_edge(z, golden.config["levels"]) <= 1e-3 * levels)[differs].all()
    assert differs.any(dim=1).double().mean() < 0.04
    one_digit = 1 / (levels // 2)
    assert ((ours - golden[f"{peer}.codes"]).abs() <= one_digit * 1.001).all()
    if peer == "lucidrains":
        same = ~differs.any(dim=1)
        assert torch.equal(step.codes.flatten()[same], golden["lucidrains.indices"].long()[same])


@pytest.mark.parametrize("level", [3, 4, 5, 6, 7, 8, 9, 16, 32])
def test_a_sweep_gives_the_notebooks_digits(level: int) -> None:
    golden = load("fsq_sweep")
    out = FSQ([level])(golden["in.z"].view(1, 1, 1, -1))
    golden.check(f"google.digit_L{level}", out.codes.flatten())


def test_fsq_of_the_notebook_in_figures() -> None:
    z = torch.tensor(
        [
            [0.7821516991, 0.1104059964, 1.1561325788],
            [-0.6765850186, 0.0309535693, -1.3696267605],
            [-0.2562917471, -1.5380626917, 0.8286654353],
            [0.0, 0.0, 0.0],
            [20.0, 20.0, 20.0],
            [-20.0, -20.0, -20.0],
        ]
    )
    grad = torch.tensor(
        [
            [-0.3396672904, 1.2398728132, -0.0214458462],
            [-2.1777963638, -0.7102319002, -1.1290340424],
            [0.4387551844, -0.4019976258, 1.2674556971],
            [-0.2805621326, -0.2904989719, 0.1697255373],
            [0.0106156617, -0.6375726461, 0.4071888328],
            [-0.1256183535, -0.9399759173, -0.0207083023],
        ]
    )
    step = run_fsq([8, 6, 5], z, grad)
    assert step.codes.flatten().tolist() == [222, 26, 147, 124, 239, 0]
    expected_codes = [[0.5, 0, 1], [-0.5, 0, -1], [-0.25, -1, 0.5], [0, 0, 0], [0.75, 2 / 3, 1], [-1, -1, -1]]
    torch.testing.assert_close(as_rows(step.latents)[0], torch.tensor(expected_codes))
    expected_grad = torch.tensor(
        [
            [-0.1392130107, 0.9371424317, -0.0070265196],
            [-1.4514938593, -0.5600717068, -0.2572181225],
            [0.3787297606, -0.0810647607, 0.6811181307],
            [-0.2402316183, -0.2321494967, 0.1695558131],
            [0.0, 0.0, 0.0],
            [0.0, 0.0, 0.0],
        ]
    )
    torch.testing.assert_close(as_rows(step.grad_latents)[0], expected_grad, atol=1e-6, rtol=1e-5)
