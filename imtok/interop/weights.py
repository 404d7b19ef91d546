"""Files of weights of any published format, as tensors by name: safetensors and torch.save, one file or several.

The first bytes decide the format, not the name. A folder may be given in place of a file: it holds one file of
weights, an index of several (`*.index.json`), or the two files `encoder.*` and `decoder.*`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from imtok.errors import TokenizerError
from imtok.interop.inert import Inert, StoredTensor, UnreadableError
from imtok.interop.torch_files import TorchFile, open_torch_file

Reader = Callable[[], Tensor]
BytesRead = Callable[[int, int | None], None]  # (done, total), both in MiB

SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".pkl")
USUAL = (
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "pytorch_model.bin",
    "model.pt",
)  # names of weights
_INDEX = ".index.json"
_MOST_NAMES = 2**20  # in an index
_BLOCK = 2**20
_DEEPEST = 64  # modules inside modules

# Containers of weights in the order in which they are looked for, after those of moving averages.
_AVERAGES = ("ema", "model_ema", "ema_state_dict", "state_dict_ema")
_CONTAINERS = ("state_dict", "model", "model_state_dict", "module", "net", "vae", "vqvae", "weights")
_SHADOW = "model_ema."  # the moving average among the weights, under their names without dots


@dataclass
class Weights:
    """The tensors of one or several files, not yet read, and what else the files hold."""

    readers: dict[str, Reader] = field(default_factory=dict)
    entries: dict[str, Any] = field(default_factory=dict)
    averaged: bool = False
    set_aside: dict[str, int] = field(default_factory=dict)


def weight_files(path: Path) -> list[Path]:
    """Return the files of weights that a path stands for; raises TokenizerError where there is not one answer."""
    index = index_of(path)
    if index is not None:
        return [_beside(index, name) for name in shard_names(index)]
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise TokenizerError(f"{path}: no such file or folder; give a checkpoint, or the folder that holds it")
    found = _weights_in(path)
    if len(found) == 1 or {file.stem for file in found} == {"encoder", "decoder"}:
        return found
    for usual in USUAL:
        if path / usual in found:
            return [path / usual]
    names = ", ".join(file.name for file in found[:4])
    problem = f"holds {len(found)} files of weights ({names})" if found else "holds no file of weights"
    raise TokenizerError(f"{path}: {problem}; name the one to import")


def index_of(path: Path) -> Path | None:
    """Return the index of several files of weights that a path is or holds; None where one file has them all."""
    if path.is_file():
        return path if path.name.endswith(_INDEX) else None
    whole = any((path / usual).is_file() for usual in USUAL)
    return None if whole else next(iter(sorted(path.glob(f"*{_INDEX}"))), None)


def shard_names(index: Path) -> list[str]:
    """Return the names of the files that an index lists; raises TokenizerError where they are not beside it."""
    try:
        names = sorted({str(name) for name in json.loads(index.read_bytes())["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TokenizerError(f"{index}: is no index of weights ({type(error).__name__}); copy it again") from error
    if not names or len(names) > _MOST_NAMES:
        raise TokenizerError(f"{index}: names {len(names)} files of weights; copy it again")
    for name in names:
        if Path(name).name != name or name in ("", ".", ".."):
            raise TokenizerError(f"{index}: names {name!r}, which is not a file beside it; take it from its publisher")
    return names


def _weights_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES and file.is_file())


def _beside(index: Path, name: str) -> Path:
    path = index.parent / name
    if not path.is_file():
        raise TokenizerError(f"{path}: is missing, and {index.name} names it; download it as well")
    return path


def read_weights(files: list[Path], *, ema: bool = True) -> Weights:
    """Open files of weights; of two, `encoder.*` and `decoder.*`, the names get `encoder.` and `decoder.` before them.

    `ema` takes the moving average of the weights where the files have one. Raises TokenizerError where a file cannot
    be read or holds anything but data; nothing in a file is run.
    """
    whole = Weights()
    both = {file.stem for file in files} == {"encoder", "decoder"}
    for file in files:
        part = _opened(file, ema)
        lead = f"{file.stem}." if both else ""
        whole.readers |= {f"{lead}{name}": reader for name, reader in part.readers.items()}
        whole.entries |= part.entries
        whole.set_aside |= part.set_aside
        whole.averaged = whole.averaged or part.averaged
    if not whole.readers:
        raise TokenizerError(f"{files[0]}: holds no tensors under names; give a file of weights")
    return _without_shadow(whole, ema)


def sha256_of(files: list[Path], progress: BytesRead | None = None) -> str:
    """Return the SHA-256 of a file in hex; of several files that of the lines `HASH  NAME` of each."""
    total = sum(file.stat().st_size for file in files) // _BLOCK
    hashes, done = [], 0
    for file in files:
        digest = hashlib.sha256()
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
                done += 1
                if progress is not None:
                    progress(min(done, total), total)
        hashes.append(digest.hexdigest())
    if len(files) == 1:
        return hashes[0]
    lines = "".join(f"{each}  {file.name}\n" for each, file in zip(hashes, files, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


def _opened(path: Path, ema: bool) -> Weights:
    try:
        with path.open("rb") as file:
            head = file.read(9)
        if head.startswith((b"PK", b"\x80")) and head[8:9] != b"{":
            return _of_torch(open_torch_file(path), ema)
        return _of_safetensors(path)
    except UnreadableError as error:
        raise TokenizerError(f"{path}: cannot be read: {error}; imtok runs nothing that a checkpoint holds") from error


def _of_safetensors(path: Path) -> Weights:
    try:
        file = safe_open(path, framework="pt")
        names: list[str] = file.keys()  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise UnreadableError(f"it is no whole file of safetensors or torch.save ({error})") from error
    return Weights({name: partial(_safetensor, file, path, name) for name in names})


def _safetensor(file: Any, path: Path, name: str) -> Tensor:
    try:
        tensor: Tensor = file.get_tensor(name)
    except SafetensorError as error:
        raise TokenizerError(f"{path}: {name} cannot be read ({error}); copy the file again") from error
    return tensor


def _of_torch(file: TorchFile, ema: bool) -> Weights:
    content = file.content
    if isinstance(content, Inert):
        return Weights({name: _reader(file, name, stored) for name, stored in _of_module(content)})
    if not isinstance(content, dict):
        raise UnreadableError(f"it holds a {type(content).__name__}, expected tensors under names")
    if any(isinstance(value, StoredTensor) for value in content.values()):
        return Weights({name: _reader(file, name, stored) for name, stored in _tensors(content).items()})
    chosen = _container(content, ema)
    aside = {f"`{key[:60]}`": 1 for key in content if isinstance(key, str) and key != chosen}
    inner = content[chosen]
    deeper = _container(inner, ema) if not _tensors(inner) else None
    stored = _tensors(inner if deeper is None else inner[deeper])
    entries = {key: _plain(value) for key, value in content.items() if isinstance(key, str) and key != chosen}
    readers = {name: _reader(file, name, each) for name, each in stored.items()}
    return Weights(readers, entries, chosen in _AVERAGES, aside)


def _container(content: Mapping[Any, Any], ema: bool) -> str:
    """Return the name of the mapping that holds the weights; raises UnreadableError where there is none."""
    full = {key for key, value in content.items() if isinstance(key, str) and isinstance(value, dict) and value}
    averages = [name for name in _AVERAGES if name in full and ema]
    for name in (*averages, *_CONTAINERS):
        if name in full:
            return name
    names = ", ".join(repr(key)[:40] for key in list(content)[:6]) or "nothing"
    raise UnreadableError(f"it holds {names}, and no tensors under a name such as state_dict or model")


def _tensors(content: Any) -> dict[str, StoredTensor]:
    pairs = content.items() if isinstance(content, dict) else ()
    return {name: value for name, value in pairs if isinstance(name, str) and isinstance(value, StoredTensor)}


def _of_module(module: Inert) -> list[tuple[str, StoredTensor]]:
    """List the tensors of a module that was saved whole, under the names that its state dict would have."""
    found: list[tuple[str, StoredTensor]] = []
    waiting: list[tuple[str, Any]] = [("", module)]
    names = 0
    while waiting and names <= _MOST_NAMES:  # modules may hold each other, and then there is no end
        lead, each = waiting.pop()
        state = each.state if isinstance(each, Inert) and isinstance(each.state, dict) else {}
        tensors, buffers, parts = (state.get(kind) for kind in ("_parameters", "_buffers", "_modules"))
        names += 1 + sum(len(part) for part in (tensors, buffers, parts) if isinstance(part, dict))
        found += [(f"{lead}{name}", stored) for part in (tensors, buffers) for name, stored in _tensors(part).items()]
        if isinstance(parts, dict) and lead.count(".") < _DEEPEST:
            waiting += [(f"{lead}{name}.", part) for name, part in parts.items() if isinstance(name, str)]
    if not waiting:
        return found
    raise UnreadableError("it holds modules inside modules without an end")


def _plain(value: Any) -> Any:
    """Return options of argparse as a mapping; everything else as it is."""
    if isinstance(value, Inert) and str(value.of) == "argparse.Namespace" and isinstance(value.state, dict):
        return value.state
    return value


def _reader(file: TorchFile, name: str, stored: StoredTensor) -> Reader:
    def read() -> Tensor:
        try:
            return file.tensor(stored)
        except UnreadableError as error:
            raise TokenizerError(f"{file.path}: {name} cannot be read: {error}") from error

    return read


def _without_shadow(weights: Weights, ema: bool) -> Weights:
    """Put the moving averages of `model_ema.*` in the places of the weights, and drop their own names."""
    shadow = {name: reader for name, reader in weights.readers.items() if name.startswith(_SHADOW)}
    if not shadow:
        return weights
    readers = {}
    for name, reader in weights.readers.items():
        if name not in shadow:
            average = shadow.get(_SHADOW + name.replace(".", "")) if ema else None
            readers[name] = average or reader
            weights.averaged = weights.averaged or average is not None
    weights.readers = readers
    weights.set_aside[f"`{_SHADOW}*`" if not weights.averaged else "weights before averaging"] = len(shadow)
    return weights
