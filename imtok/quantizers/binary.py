"""Lookup-free and binary spherical quantization (Yu et al., 2023; Zhao et al., 2024): a code is the latent's signs.

Nothing is learned here and nothing searched: with D dimensions there are 2^D codes, and bit i of a code, counted from
the most significant or from the least, is 1 where dimension i is above zero. Two losses shape the encoder instead:
`commitment`, and `entropy`, which is small where each choice is certain and the batch uses all codes.
"""

# Axes: B batch, D latent channels, H x W latent grid.

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from imtok.distributed import joint_mean
from imtok.kernels import SignEntropies, codes_to_signs, reverse_bits, sign_codes, sign_entropies, to_sphere
from imtok.kernels.entropy import JointMean
from imtok.kernels.sphere import directions
from imtok.quantizers.base import Quantizer, mean_square
from imtok.quantizers.binary_config import BSQConfig, FirstBit, LFQConfig, SignConfig
from imtok.quantizers.record import signature
from imtok.quantizers.refusal import refuse_missing


class _SignQuantizer(Quantizer):
    """The common part of LFQ and BSQ; they differ in the magnitude of a sign and the points that stand for latents."""

    record: ClassVar[type[SignConfig]]
    sample_entropy_weight: float
    batch_entropy_weight: float
    temperature: float
    entropy_group: int
    first_bit: FirstBit

    def __init__(self, dim: int, **options: Any) -> None:
        super().__init__()
        checked = self.record.checked(dim=dim, **options)
        vars(self).update(checked.model_dump(exclude={"kind"}))  # each option is an attribute
        self.num_codes = checked.num_codes
        self.loss_weights = {"commitment": checked.commitment_weight}
        if checked.entropy_weight > 0:
            self.loss_weights["entropy"] = checked.entropy_weight

    @property
    def residual_ratio(self) -> float:
        """1/2: codes have a fixed size, whatever is left to describe."""
        return 0.5

    @property
    @abstractmethod
    def magnitude(self) -> float:
        """The factor that makes a sign a latent."""

    @abstractmethod
    def _points(self, latents: Tensor) -> Tensor:
        """Return the points that stand for latents beside the codes: (B, D, H, W) -> (B, D, H, W)."""

    def quantize(self, latents: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """See `Quantizer.quantize`; the gradient passes straight through to the point that stands for the latent."""
        points = self._points(latents)
        chosen, codes = sign_codes(points, self.magnitude)
        refuse_missing(codes, together=self.refuses_together)
        if self.first_bit == "least significant":
            codes = torch.where(codes < 0, codes, reverse_bits(codes, self.dim))
        losses = {"commitment": mean_square(points, chosen.detach())}
        if "entropy" in self.loss_weights and self.training:
            sample, batch = self._entropies_of(points, joint_mean)
            losses["entropy"] = self.sample_entropy_weight * sample - self.batch_entropy_weight * batch
        return chosen, codes, losses

    def lookup(self, codes: Tensor) -> Tensor:
        """Look up codes (B, H, W) as latents (B, D, H, W), each value +-`magnitude`."""
        codes = self._check_codes(codes)
        if self.first_bit == "least significant":
            codes = reverse_bits(codes, self.dim)
        # Contiguous as `forward` gives them, since a convolution's last bits depend on the memory layout.
        return (codes_to_signs(codes, self.dim).contiguous() * self.magnitude).to(self.dtype)

    def entropies(self, latents: Tensor) -> SignEntropies:
        """Return the two terms of the `entropy` loss, unweighted, of this rank's latents: (B, D, H, W) -> two scalars.

        They are in nats, and for logs.
        """
        with torch.autocast(latents.device.type, enabled=False):
            return self._entropies_of(self._points(latents.to(torch.promote_types(latents.dtype, self.dtype))))

    def code_tensors(self) -> dict[str, Tensor]:
        """Return none: the signs alone decide."""
        return {}

    def extra_repr(self) -> str:
        """Return the sizes and the options of the entropies, for `print(model)`."""
        return (
            f"dim={self.dim}, num_codes={self.num_codes}, temperature={self.temperature}, "
            f"entropy_group={self.entropy_group}"
        )

    def _entropies_of(self, points: Tensor, joint: JointMean | None = None) -> SignEntropies:
        return sign_entropies(points, self.magnitude, self.temperature, self.entropy_group, joint)


class LFQ(_SignQuantizer):
    """Lookup-free quantization (Yu et al., 2023, "Language Model Beats Diffusion", MAGVIT-v2): codes of +-1.

    dim
        1 to 31 latent channels; K = 2^dim.
    commitment_weight
        Weight of the mean of (z - sg[c])^2 over all values, which draws the latents to +-1.
    entropy_weight
        Weight of `entropy` = sample_entropy_weight * H(choice of one latent) - batch_entropy_weight * H(mean choice
        of the batch), in nats (equation 5); it may be negative. 0 leaves the loss out and saves its cost, as does
        evaluation.
    temperature
        Of the soft choice softmax(-|z - c|^2 / temperature), whose entropies are taken: 1 in the code of BSQ's
        authors. At the 0.01 of Open-MAGVIT2 and others a dimension is certain once |z| exceeds about 0.01, and the
        entropies have next to no gradient beyond.
    entropy_group
        Number of dimensions whose joint distribution the batch entropy takes exactly; groups count as independent. It
        divides dim. 1 costs next to nothing (BSQ, analytic); dim is exact over the codebook, up to 20.
    first_bit
        Bit of a code that the first dimension decides: the most significant one, or the least significant one as in
        Yu et al. (equation 4) and Open-MAGVIT2. It decides codes, and so the fingerprint of a tokenizer.

    With several ranks H(mean choice) is that of the joint batch, so every rank must take every training step. Its
    gradient is joint where the ranks' gradients are weighed by their shares of the rows and added, or averaged where
    the shares are equal (DistributedDataParallel).
    """

    record: ClassVar[type[SignConfig]] = LFQConfig
    __signature__ = signature(LFQConfig, "dim")

    @property
    def magnitude(self) -> float:
        """1: a code is its signs."""
        return 1.0

    def _points(self, latents: Tensor) -> Tensor:
        return latents


class BSQ(_SignQuantizer):
    """Binary spherical quantization (Zhao et al., 2024): z / |z| on the unit sphere, codes of +-1 / sqrt(dim).

    The arguments are those of `LFQ`; both losses compare z / |z| with the codes, so the error of a code is bounded.
    The gradient at the codes reaches z / |z| as it is, as with every other quantizer here. The authors' code scales
    it by 1 / sqrt(dim) beside, having quantized to +-1 first.

    A zero latent gets code 0 and a finite gradient (`to_sphere`). With dim 1 the sphere is two points and no gradient
    passes z / |z|; `LFQ` learns there.
    """

    record: ClassVar[type[SignConfig]] = BSQConfig
    __signature__ = signature(BSQConfig, "dim")

    @property
    def magnitude(self) -> float:
        """1 / sqrt(dim): codes have unit length."""
        return 1 / math.sqrt(self.dim)

    def comparable_latents(self, latents: Tensor) -> Tensor:
        """Return latents at unit length: (B, D, H, W) -> the same shape."""
        return directions(latents)[0]

    def _points(self, latents: Tensor) -> Tensor:
        return to_sphere(latents)
