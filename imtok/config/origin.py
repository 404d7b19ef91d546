"""The origin of weights that were not trained here: the published checkpoint they were read from."""

from __future__ import annotations

import warnings
from typing import Literal, Self

from pydantic import Field

from imtok.errors import ImtokWarning
from imtok.records import Record


class Origin(Record):
    """The published checkpoint that a tokenizer was imported from; empty fields are not known."""

    family: str = Field("", description="published family, as `imtok import --family` names it")
    source: str = Field("", description="name of the file, or the address, that the weights were read from")
    revision: str = Field("", description="commit of the repository it was read from")
    sha256: str = Field("", description="SHA-256 of the weights file, in hex")
    license: str = Field("", description="licence that the weights are under")
    hub: str = Field("", description="address on the Hugging Face Hub, with its commit, that it was loaded from")
    trained_further: Literal["", "decoder", "all"] = Field(
        "", description="part of the weights that imtok trained after the import; the decoder alone keeps all tokens"
    )
    no_decoder: bool = Field(
        False, description="the checkpoint has no decoder, and none has been trained: decoded images are gray"
    )

    def after_training(self, *, freeze_codes: bool) -> Self:
        """Return the origin of a tokenizer that was trained from one of this origin."""
        further = "decoder" if freeze_codes and self.trained_further != "all" else "all"
        return self.model_copy(update={"trained_further": further, "no_decoder": False})

    @property
    def summary(self) -> str:
        """A few words for a person."""
        texts = {
            "": "",
            "decoder": "its decoder was trained further by imtok",
            "all": "all of it was trained further by imtok",
        }
        revision = f" at {self.revision[:12]}" if self.revision else ""
        weights = f"{self.family} weights of {self.source}{revision}" if self.source else ""
        facts = [
            weights,
            f"from {self.hub}" if self.hub else "",
            f"licence {self.license}" if self.license else "licence not recorded",
            texts[self.trained_further],
            "it has no decoder, so decoded images are gray" if self.no_decoder else "",
        ]
        return "; ".join(filter(None, facts))


def gray_images_note(name: object) -> str:
    """Say that a tokenizer of this name decodes to gray images, and what trains its decoder."""
    return (
        f"{name}: its checkpoint has no decoder, so all decoded images are gray; "
        f"`imtok train SOURCE --start-from {name} --freeze-codes -o RUN` trains one"
    )


def warn_of_gray_images(origin: Origin | None, name: object) -> None:
    """Give an ImtokWarning where a tokenizer has no decoder of its own."""
    if origin is not None and origin.no_decoder:
        warnings.warn(gray_images_note(name), ImtokWarning, stacklevel=3)
