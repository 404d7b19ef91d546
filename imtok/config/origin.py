"""The origin of weights that were not trained here: the published checkpoint they were read from."""

from __future__ import annotations

from pydantic import Field

from imtok.records import Record


class Origin(Record):
    """The published checkpoint that a tokenizer was imported from; empty fields are not known."""

    family: str = Field("", description="published family, as `imtok import --family` names it")
    source: str = Field("", description="name of the file, or the address, that the weights were read from")
    revision: str = Field("", description="commit of the repository it was read from")
    sha256: str = Field("", description="SHA-256 of the weights file, in hex")
    license: str = Field("", description="licence that the weights are under")
    hub: str = Field("", description="address on the Hugging Face Hub, with its commit, that it was loaded from")
