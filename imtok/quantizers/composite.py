"""The common part of residual and product quantizers: several quantizers, or one used several times, as one."""

# Axes: B batch, D latent channels, H x W latent grid, K codes, Q codebooks.

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from imtok.quantizers.base import Quantizer, whole_number


class CompositeQuantizer(Quantizer):
    """Quantizers of equal `dim`, `code_dim` and `num_codes`, or one quantizer used `times` times over.

    A part that is used several times is held once, so that a saved state has its tensors once. The composite's
    losses are means over all uses, a part without some loss counting as zero there; its weights are the parts' own.
    """

    parts: nn.ModuleList  # each quantizer once
    part_name: ClassVar[str]  # what one part is called, in errors
    times_name: ClassVar[str]  # the option that says how often one quantizer is used

    def __init__(self, parts: Quantizer | Sequence[Quantizer], times: int | None) -> None:
        super().__init__()
        if isinstance(parts, Quantizer):
            times = None if times is None else whole_number(self.times_name, times)
            if times is None or times < 1:
                raise ValueError(
                    f"{self.times_name} is {times}; one {self.part_name} given alone is shared, so say how often it is "
                    f"used, 1 or more, or give a list of {self.part_name}s"
                )
            parts = [parts]
        elif times is not None:
            raise ValueError(
                f"{self.times_name} is {times} beside a list of {len(parts)} {self.part_name}s; leave it out, or give "
                f"one {self.part_name}, to be shared"
            )
        self._times = len(parts) if times is None else times
        self._check_alike(parts)
        self.parts = nn.ModuleList(parts)
        self.num_codes = parts[0].num_codes
        self.num_codebooks = sum(part.num_codebooks for part in self.uses)
        self.loss_weights = {name: weight for part in parts for name, weight in part.loss_weights.items()}
        for base, times in Counter(self.base_quantizers).items():
            base.uses_a_step = times

    @property
    def uses(self) -> list[Quantizer]:
        """The quantizers in the order of their use; a shared one appears every time."""
        # Divided with remainder: a shared part is the only one, others have as many parts as uses.
        return [cast(Quantizer, self.parts[use % len(self.parts)]) for use in range(self._times)]

    @property
    def base_quantizers(self) -> list[Quantizer]:
        """See `Quantizer.base_quantizers`."""
        return [base for part in self.uses for base in part.base_quantizers]

    def code_tensors(self) -> dict[str, Tensor]:
        """Return those of each part, a shared one once."""
        return {
            f"parts.{index}.{name}": tensor
            for index, part in enumerate(self.parts)
            for name, tensor in cast(Quantizer, part).code_tensors().items()
        }

    def anneal(self, progress: float) -> None:
        """Pass the share of the run on to each part, a shared one once."""
        for part in self.parts:
            cast(Quantizer, part).anneal(progress)

    def extra_repr(self) -> str:
        """Return the sizes and the number of uses, for `print(model)`."""
        return f"dim={self.dim}, num_codes={self.num_codes}, {self.times_name}={self._times}"

    def _check_alike(self, parts: Sequence[Quantizer]) -> None:
        if not parts:
            raise ValueError(f"there are no {self.part_name}s, expected 1 or more")
        modules = [module for part in parts for module in part.modules()]
        if len({id(module) for module in modules}) < len(modules):
            raise ValueError(
                f"one quantizer stands in the list of {self.part_name}s twice, so a saved state would hold it twice; "
                f"to share it, give it alone with {self.times_name}"
            )
        for name in ("dim", "code_dim", "num_codes"):
            found = [getattr(part, name) for part in parts]
            if len(set(found)) > 1:
                raise ValueError(f"the {self.part_name}s have {name} {found}, expected the same in all")
        weights: dict[str, float] = {}
        for part in parts:
            for name, weight in part.loss_weights.items():
                if weights.setdefault(name, weight) != weight:
                    raise ValueError(
                        f"the {self.part_name}s weigh the {name} loss by {weights[name]} and {weight}; one weight "
                        "serves its mean over all of them, so give all the same"
                    )


def join_codes(codes: Iterable[Tensor]) -> Tensor:
    """Join codes of the parts, each (B, H, W) or (B, H, W, q), to (B, H, W, Q); (B, H, W) where Q is 1."""
    joined = torch.cat([part if part.ndim == 4 else part.unsqueeze(-1) for part in codes], dim=-1)
    return joined.squeeze(-1) if joined.shape[-1] == 1 else joined


def split_codes(codes: Tensor, parts: Sequence[Quantizer]) -> list[Tensor]:
    """Invert `join_codes`: return the codes of each part, in the shape that part looks up."""
    if codes.ndim == 3:
        return [codes]
    pieces = torch.split(codes, [part.num_codebooks for part in parts], dim=-1)
    return [piece.squeeze(-1) if part.num_codebooks == 1 else piece for part, piece in zip(parts, pieces, strict=True)]


def mean_losses(losses: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of each loss over the parts, scalars by name; a part that lacks one counts as zero."""
    names = dict.fromkeys(name for part in losses for name in part)
    return {name: torch.stack([part[name] for part in losses if name in part]).sum() / len(losses) for name in names}
