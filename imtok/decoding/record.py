"""The record of a decode in its output folder: which images lie there, made how, and how many of them are whole.

It is written before the first image. A folder with other files and without a record is refused, so that decoded images
are never mixed among originals. The same command finds its record and resumes after the images that are whole.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from imtok.errors import TokensError
from imtok.files import sweep_temporaries, write_atomically
from imtok.tokens.dataset import TokenDataset
from imtok.tokens.folder import INFO, MANIFEST

RECORD = ".imtok-decode.json"  # hidden, so that neither `ls` nor a later encode of the folder sees it
_IGNORED = (".tmp-",)  # what a killed decode leaves
_OWN = {
    "a token folder": (INFO,),
    "a run": ("config.yaml",),
    "a tokenizer folder": ("config.json", "model.safetensors"),
}


class DecodeRecord(BaseModel):
    """The content of the record; all but `images` and `written` decide the bytes of the images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["imtok-decode"] = "imtok-decode"
    version: Literal[1] = 1
    tokens: str  # what `token_set` returns
    tokenizer: str  # SHA-256 of its files: a fine-tuned decoder has the same fingerprint
    image_format: str
    limit: int | None
    crop: int = Field(0, ge=0)
    device: str
    precision: str
    batch_size: int = Field(ge=1)
    images: int = Field(ge=0)  # to write
    written: int = Field(0, ge=0)  # the first so many, in order, are whole

    @property
    def finished(self) -> bool:
        """True where every image has been written."""
        return self.written >= self.images

    def having(self, written: int) -> DecodeRecord:
        """Return the record with another number of written images."""
        return self.model_copy(update={"written": written})

    def save(self, folder: Path) -> None:
        """Write the record into the output folder."""
        content = self.model_dump(exclude=None if self.crop else {"crop"})  # as it was before sets had crops
        data = json.dumps(content, indent=2) + "\n"
        write_atomically(folder / RECORD, data.encode(), durable=self.finished)


def token_set(dataset: TokenDataset) -> str:
    """Name a token folder by what it holds: the hash of its manifest, or of its record and the units present."""
    manifest = dataset.store.file(MANIFEST)
    if manifest.exists():
        return hashlib.sha256(manifest.read_bytes()).hexdigest()
    units = json.dumps(dataset.units).encode()
    return hashlib.sha256(dataset.store.file(INFO).read_bytes() + units).hexdigest()


def begin(folder: Path, record: DecodeRecord, *, overwrite: bool) -> DecodeRecord:
    """Claim an output folder for a decode; return the record to resume from, which lies in the folder then.

    Raises TokensError for a folder of imtok's own; unless `overwrite`, also where the folder holds other files without
    a record, or the images of another decode.
    """
    refuse_own(folder)
    found = _read(folder)
    if found is not None and (changes := _changes(found, record)) and not overwrite:
        raise TokensError(
            f"{folder}: holds images of {changes[0]}, this decode has {changes[1]}; choose another -o, or write over "
            "them with --overwrite (overwrite=True)"
        )
    if found is not None and not changes:
        if not found.finished:
            sweep_temporaries(folder)
        return found.having(min(found.written, record.images)).model_copy(update={"images": record.images})
    if found is None and not overwrite and (other := _other(folder)):
        raise TokensError(
            f"{folder}: holds other files ({other}) and no {RECORD}, so the images would be mixed among them; choose "
            "another -o, or write there with --overwrite (overwrite=True), which removes nothing"
        )
    record.save(folder)
    return record


def refuse_own(folder: Path) -> None:
    """Raise TokensError for a token folder, a run or a tokenizer folder, into which nothing is ever decoded."""
    for kind, names in _OWN.items():
        if all((folder / name).exists() for name in names):
            raise TokensError(f"{folder}: {kind}, images would end up in it; choose another -o")


def _other(folder: Path) -> str | None:
    """Return the name of something in the folder, None where it is empty or does not exist."""
    if not folder.is_dir():
        return None
    names = sorted(item.name for item in folder.iterdir() if not item.name.startswith(_IGNORED))
    return names[0] if names else None


def _read(folder: Path) -> DecodeRecord | None:
    path = folder / RECORD
    try:
        return DecodeRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise TokensError(f"{path}: damaged, or of a newer imtok; delete it, or choose another -o") from error


def _changes(found: DecodeRecord, requested: DecodeRecord) -> tuple[str, str] | None:
    """Name the first difference of two decodes, as found and as requested; None where the images are the same."""
    for field, name in (
        ("tokens", "token set"),
        ("tokenizer", "tokenizer"),
        ("image_format", "--format"),
        ("limit", "--limit"),
        ("crop", "--crop"),
        ("device", "--device"),
        ("precision", "--precision"),
        ("batch_size", "--batch-size"),
    ):
        old, new = getattr(found, field), getattr(requested, field)
        if old != new:
            return f"{name} {_brief(old)}", _brief(new)
    return None


def _brief(value: Any) -> str:
    return "none" if value is None else value[:12] if isinstance(value, str) else str(value)
