"""Conversions between levels 0 to 255 and floats where -1 is black and 1 white, as each family computes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def floats_of_adm(levels: Tensor) -> Tensor:
    """Divide by 255, subtract 1/2 and divide by 1/2: torchvision's ToTensor and Normalize in float32."""
    return levels.float().div(255).sub(0.5).div(0.5)


def floats_of_taming(levels: Tensor) -> Tensor:
    """Divide by 127.5 and subtract 1 in float64, then round to float32: NumPy's arithmetic on a uint8 array."""
    return levels.double().div(127.5).sub(1).float()


def floats_of_titok(levels: Tensor) -> Tensor:
    """Divide by 255, then map [0, 1] to [-1, 1]; the family's networks take [0, 1]."""
    return levels.float().div(255).mul(2).sub(1)


def floats_of_var(levels: Tensor) -> Tensor:
    """Divide by 255, double and subtract 1: VAR, utils/data.py (`normalize_01_into_pm1`)."""
    unit = levels.float().div(255)
    return unit.add(unit).sub(1)


def levels_of_adm(decoded: Tensor) -> Tensor:
    """Truncate 127.5 x + 128: LlamaGen, tokenizer/tokenizer_image/reconstruction_vq_ddp.py."""
    return _as_levels((127.5 * decoded.float() + 128).clamp(0, 255))


def levels_of_taming(decoded: Tensor) -> Tensor:
    """Truncate 255 (x + 1) / 2: SEED-Voken, evaluation_image.py. Half a level is lost on average."""
    return _as_levels((decoded.float().clamp(-1, 1) + 1) / 2 * 255)


def levels_of_titok(decoded: Tensor) -> Tensor:
    """Round 255 (x + 1) / 2: 1d-tokenizer, utils/train_utils.py (`eval_reconstruction`)."""
    return _as_levels(((decoded.float() + 1) / 2).clamp(0, 1).mul(255).round())


def levels_of_var(decoded: Tensor) -> Tensor:
    """Round 127.5 (x + 1) and make 128 of what is no number: UniTok, utils/eval_fid.py (`save_img_tensor`)."""
    clamped = decoded.float().clamp(-1, 1)
    return _as_levels(clamped.add(1).mul(127.5).round().nan_to_num(128, 255, 0).clamp(0, 255))


def unclamped(decoded: Tensor) -> Tensor:
    """Return the decoded floats as they are."""
    return decoded


def clamped(decoded: Tensor) -> Tensor:
    """Clamp decoded floats to [-1, 1]."""
    return decoded.clamp(-1, 1)


def rounded_of_titok(decoded: Tensor) -> Tensor:
    """Return floats in [-1, 1] of the rounded levels."""
    return floats_of_titok(levels_of_titok(decoded))


def _as_levels(values: Tensor) -> Tensor:
    import torch

    return values.to(torch.uint8)
