"""The formats that token sets are exported to, one module each."""

from __future__ import annotations

from imtok.export.format import Format
from imtok.export.formats.automodel import Automodel
from imtok.export.formats.datatrove import Datatrove
from imtok.export.formats.emu3 import Emu3
from imtok.export.formats.four_m import FourM
from imtok.export.formats.litdata import LitData
from imtok.export.formats.llamagen import LlamaGen
from imtok.export.formats.llmc import LlmC
from imtok.export.formats.mds import Mds
from imtok.export.formats.megatron import Megatron
from imtok.export.formats.nanogpt import NanoGPT
from imtok.export.formats.npy import Npy
from imtok.export.formats.olmo import Olmo
from imtok.export.formats.parquet import Parquet
from imtok.export.formats.rar_jsonl import RarJsonl
from imtok.export.formats.torchtitan import Torchtitan
from imtok.export.formats.webdataset import WebDataset

_CLASSES: tuple[type[Format], ...] = (
    Npy,
    Megatron,
    NanoGPT,
    LlmC,
    Automodel,
    Torchtitan,
    Datatrove,
    Olmo,
    LitData,
    Mds,
    LlamaGen,
    WebDataset,
    RarJsonl,
    Parquet,
    FourM,
    Emu3,
)

FORMATS: dict[str, type[Format]] = {found.name: found for found in _CLASSES}
"""Classes of formats by the names that `imtok export --to` takes."""
