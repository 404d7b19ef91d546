"""The protocols by name: imtok's own, and those of the families of published tokenizers."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from imtok.errors import ConfigError
from imtok.evaluation.features import PytorchFID
from imtok.evaluation.protocols import levels, squares
from imtok.evaluation.protocols.contract import Protocol
from imtok.evaluation.protocols.similarity import UniformSSIM, UniformSSIMOfRange2

if TYPE_CHECKING:
    from torch import Tensor


def _to_float(originals: Tensor) -> Tensor:
    from imtok.tokenizer import to_float

    return to_float(originals)


def _to_uint8(decoded: Tensor) -> Tensor:
    from imtok.tokenizer import to_uint8

    return to_uint8(decoded)


IMTOK = Protocol(
    name="imtok",
    used_by="imtok",
    square="Pillow bicubic to shorter side S, central S x S",
    rounding="rounded to 8 bits",
    to_square=squares.square_of_imtok,
    to_floats=_to_float,
    to_levels=_to_uint8,
    restored_floats=levels.clamped,
)

# LlamaGen, tokenizer/tokenizer_image/reconstruction_vq_ddp.py; GigaTok's reconstruction_ddp.py adds LPIPS on floats.
ADM = Protocol(
    name="adm",
    used_by="LlamaGen, GigaTok, XQ-GAN, FVQ",
    square="box halving to below 2S, Pillow bicubic to shorter side S, central S x S",
    rounding="truncated after 127.5 x + 128",
    to_square=squares.square_of_adm,
    to_floats=levels.floats_of_adm,
    to_levels=levels.levels_of_adm,
    restored_floats=levels.unclamped,
    forms={"lpips": "floats", "lpips_alex": "floats"},
    metrics={"ssim": UniformSSIMOfRange2},
    notes={"LPIPS": "on floats, not clamped"},
    repeats=True,
)

# SEED-Voken, evaluation_image.py: Inception of pytorch-fid and LPIPS on floats, the rest on truncated levels. Originals
# are truncated from floats as well, and 95 of 256 levels lose 1, by rounding in float32.
TAMING = Protocol(
    name="taming",
    used_by="taming-transformers, SEED-Voken (Open-MAGVIT2, IBQ), WeTok",
    square="OpenCV bilinear without antialiasing to shorter side S, central S x S",
    rounding="truncated to 8 bits",
    to_square=squares.square_of_taming,
    to_floats=levels.floats_of_taming,
    to_levels=levels.levels_of_taming,
    restored_floats=levels.clamped,
    forms={"lpips": "floats", "lpips_alex": "floats", "rfid": "floats", "rfid_pytorch": "floats"},
    metrics={"ssim": UniformSSIM, "rfid": PytorchFID},
    notes={
        "LPIPS and rFID": "on floats",
        "PSNR and SSIM": "originals truncated too, means of batches of 4 averaged",
    },
    rounds_originals=True,
    batch=4,
)

# 1d-tokenizer, utils/train_utils.py (`eval_reconstruction`) and evaluator/evaluator.py, which has rFID and no PSNR or
# SSIM. MaskBit's evaluator/evaluator.py adds both, with the SSIM that torchmetrics has. MaskBit's own tokenizers are
# resized by the bilinear filter (configs/tokenizer/*.yaml), and its PSNR is of floats that nobody rounds.
TITOK = Protocol(
    name="titok",
    used_by="1d-tokenizer (TiTok, TA-TiTok), SFTok, BAR; the metrics of MaskBit",
    square="Pillow bicubic to shorter side S by torchvision, central S x S",
    rounding="rounded to 8 bits",
    to_square=squares.square_of_titok,
    to_floats=levels.floats_of_titok,
    to_levels=levels.levels_of_titok,
    restored_floats=levels.rounded_of_titok,
    forms={"lpips": "floats", "lpips_alex": "floats"},
    notes={"PSNR and SSIM": "as MaskBit"},
)

# UniTok, utils/eval_fid.py: rFID alone. VAR, utils/data.py, resizes to 1.125 S for training.
VAR = Protocol(
    name="var",
    used_by="VAR, UniTok",
    square="Pillow Lanczos to shorter side S by torchvision, central S x S",
    rounding="rounded to 8 bits",
    to_square=squares.square_of_var,
    to_floats=levels.floats_of_var,
    to_levels=levels.levels_of_var,
    restored_floats=levels.clamped,
    notes={"all but rFID": "as imtok, since this family publishes rFID alone"},
)

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {protocol.name: protocol for protocol in (IMTOK, ADM, TAMING, TITOK, VAR)}
)
DEFAULT_PROTOCOL = IMTOK.name


def find_protocol(name: str) -> Protocol:
    """Return the protocol of this name; raises ConfigError where there is none."""
    if name not in PROTOCOLS:
        raise ConfigError(f"protocol {name}: unknown, expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
