"""imtok: images to discrete tokens and back, and a look at the codebook in between.

Names are handed out lazily: `import imtok` loads no torch, so `imtok --help` stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imtok.lazy import lazy_names
from imtok.version import __version__

if TYPE_CHECKING:
    from imtok import analysis, evaluation, kernels, losses, networks, quantizers, tokens
    from imtok.batch_encoder import BatchEncoder
    from imtok.tokenizer import Tokenizer, load

__all__ = [
    "BatchEncoder",
    "Tokenizer",
    "__version__",
    "analysis",
    "evaluation",
    "kernels",
    "load",
    "losses",
    "networks",
    "quantizers",
    "tokens",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {"BatchEncoder": "imtok.batch_encoder", "Tokenizer": "imtok.tokenizer", "load": "imtok.tokenizer"},
    ("analysis", "evaluation", "kernels", "losses", "networks", "quantizers", "tokens"),
)
