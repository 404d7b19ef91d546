"""Published families of tokenizers, one module each: from their keys and configuration to ours."""

from __future__ import annotations

from imtok.interop.families.dalle import DALLE
from imtok.interop.families.diffusers_vq import DiffusersVQ
from imtok.interop.families.emu3 import Emu3
from imtok.interop.families.ibq import IBQ
from imtok.interop.families.llamagen import LlamaGen
from imtok.interop.families.maskgit import MaskGIT
from imtok.interop.families.open_magvit2 import OpenMAGVIT2
from imtok.interop.families.rqvae import RQVAE
from imtok.interop.families.taming import Taming, TamingGumbel
from imtok.interop.families.titok import TiTok
from imtok.interop.families.transformers_vq import Chameleon, Janus
from imtok.interop.family import Family

# In the order in which they are offered; at most one of them recognises a checkpoint.
FAMILIES: list[Family] = [
    Taming(),
    TamingGumbel(),
    LlamaGen(),
    IBQ(),
    RQVAE(),
    DiffusersVQ(),
    Chameleon(),
    Janus(),
    MaskGIT(),
    OpenMAGVIT2(),
    Emu3(),
    DALLE(),
    TiTok(),
]
