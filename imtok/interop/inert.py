"""Values that stand for what a pickle names: nothing here imports, constructs or calls any of it.

The names that a checkpoint may hold are listed. The list is a second fence: a name outside it ends the reading with
its name in one line, and a name inside it becomes a `Named`, which is two strings.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Named:
    """A class or a function that a pickle names, as two strings; it is never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        """Return the dotted name."""
        return f"{self.module}.{self.name}"


@dataclass(eq=False)  # as the object that it stands for it is equal to itself alone
class Inert:
    """An object that a pickle describes: the class it names, and what it would give that class. Nothing is built."""

    of: Named
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)
    entries: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredValues:
    """The storage that a tensor lies in: `count` values of `dtype` under `key` in the same file."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor that still lies in its file: its place in a storage, counted in values."""

    storage: StoredValues
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def span(self) -> int:
        """The number of values from the first to the last; 0 where the tensor is empty."""
        if 0 in self.shape:
            return 0
        return 1 + sum((length - 1) * step for length, step in zip(self.shape, self.stride, strict=True))


STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def _names(module: str, names: str) -> list[tuple[str, str]]:
    return [(module, name) for name in names.split()]


_DTYPES = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool"

# By what published files hold: Lightning's checkpoints of 2020 have callbacks under their classes, later ones the type
# of their hyperparameters; argparse and omegaconf hold options; NumPy's scalars are metrics and steps.
ALLOWED = frozenset(
    [
        *_names("torch", " ".join(STORAGES)),
        *_names("torch", f"Size device {_DTYPES}"),
        *_names("torch._utils", "_rebuild_tensor _rebuild_tensor_v2 _rebuild_parameter"),
        *_names("collections", "OrderedDict defaultdict"),
        *[pair for module in ("builtins", "__builtin__") for pair in _names(module, "set frozenset dict list tuple")],
        *[
            pair
            for module in ("builtins", "__builtin__")
            for pair in _names(module, "int long float bool str bytes slice")
        ],
        ("argparse", "Namespace"),
        ("typing", "Any"),
        ("_codecs", "encode"),
        *_names("pathlib", "Path PosixPath WindowsPath PurePosixPath PureWindowsPath"),
        *_names("numpy", "dtype ndarray"),
        *_names("numpy.core.multiarray", "scalar _reconstruct"),
        *_names("numpy._core.multiarray", "scalar _reconstruct"),
        *_names("omegaconf.dictconfig", "DictConfig"),
        *_names("omegaconf.listconfig", "ListConfig"),
        *_names("omegaconf.base", "ContainerMetadata Metadata"),
        *_names("omegaconf.nodes", "AnyNode StringNode IntegerNode FloatNode BooleanNode"),
        *_names("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"),
        *_names("pytorch_lightning.callbacks.early_stopping", "EarlyStopping"),
        *_names("pytorch_lightning.utilities.parsing", "AttributeDict"),
        *_names("lightning.pytorch.callbacks.model_checkpoint", "ModelCheckpoint"),
        *_names("lightning.fabric.utilities.data", "AttributeDict"),
        *_names("lightning_fabric.utilities.data", "AttributeDict"),
        # DALL-E's two networks were published as whole modules; these are the classes in them.
        *_names("dall_e.encoder", "Encoder EncoderBlock"),
        *_names("dall_e.decoder", "Decoder DecoderBlock"),
        *_names("dall_e.utils", "Conv2d"),
        ("functools", "partial"),
        ("torch.nn.modules.activation", "ReLU"),
        ("torch.nn.modules.container", "Sequential"),
        ("torch.nn.modules.linear", "Identity"),
        ("torch.nn.modules.pooling", "MaxPool2d"),
        ("torch.nn.modules.upsampling", "Upsample"),
    ]
)

_MAPPINGS = {"collections.OrderedDict", "builtins.dict", "__builtin__.dict"}
_LISTS = {"builtins.list", "__builtin__.list", "builtins.set", "__builtin__.set", "builtins.frozenset"}
_REBUILT = {"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"}


class UnreadableError(ValueError):
    """Something in a file of weights that cannot be read; the text says what."""


def named(module: Any, name: Any) -> Named:
    """Return the stand-in of a class or function; raises UnreadableError where the list does not have its name."""
    if not isinstance(module, str) or not isinstance(name, str):  # nested tuples would hash without an end
        raise UnreadableError("its pickle has a name that is no text")
    if (module, name) in ALLOWED:
        return Named(module, name)
    raise UnreadableError(f"its pickle names {module[:80]}.{name[:80]}, which no weights need")


def made(of: Any, arguments: Any) -> Any:
    """Return what stands for a call of `of`: a tensor's place, a plain mapping or tuple, or an Inert.

    Raises UnreadableError where the arguments describe no tensor that a file can hold.
    """
    if not isinstance(of, Named) or not isinstance(arguments, tuple):
        raise UnreadableError("its pickle calls what is no name")
    name = str(of)
    if name in _REBUILT:
        return _tensor(*arguments[:4])
    if name == "torch._utils._rebuild_parameter":
        if not (arguments and isinstance(arguments[0], StoredTensor)):
            raise UnreadableError("its pickle has a parameter without a tensor")
        return arguments[0]
    if name in _MAPPINGS:
        return filled({}, _pairs(arguments[0])) if arguments else {}
    if name in _LISTS:
        return list(arguments[0]) if arguments and isinstance(arguments[0], list | tuple) else []
    if name == "torch.Size":
        return tuple(arguments[0]) if arguments and isinstance(arguments[0], list | tuple) else ()
    return Inert(of, arguments)


def filled(target: dict[Any, Any], pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """Set the pairs in a mapping; raises UnreadableError on a key that is neither a plain value nor a name."""
    for key, value in pairs:
        if not isinstance(key, str | int | float | bytes | Named | None):  # nested tuples would hash without an end
            raise UnreadableError(f"its pickle has a mapping with a {type(key).__name__} as a key")
        if isinstance(key, int) and key.bit_length() > 64:  # any number of such keys can have the same hash
            raise UnreadableError("its pickle has a mapping with a whole number beyond 64 bits as a key")
        target[key] = value
    return target


def _pairs(content: Any) -> list[tuple[Any, Any]]:
    if isinstance(content, dict):
        return list(content.items())
    if isinstance(content, list) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in content):
        return [(pair[0], pair[1]) for pair in content]
    raise UnreadableError("its pickle has a mapping that is no list of pairs")


def _tensor(storage: Any = None, offset: Any = None, shape: Any = None, stride: Any = None) -> StoredTensor:
    """Return a tensor's place, checked: it lies in its storage."""
    whole = isinstance(storage, StoredValues) and _are_sizes((offset,)) and _are_sizes(shape) and _are_sizes(stride)
    if not whole or len(shape) != len(stride) or math.prod(max(length, 1) for length in shape) >= 2**60:
        raise UnreadableError("its pickle has a tensor without a storage, an offset, a shape or strides")
    tensor = StoredTensor(storage, offset, tuple(shape), tuple(stride))
    if offset + tensor.span > storage.count:
        raise UnreadableError(f"its pickle has a tensor of {tuple(shape)} in a storage of {storage.count} values")
    return tensor


def _are_sizes(values: Any) -> bool:
    """Say whether these are at most 16 whole numbers of at least 0 that fit 64 bits."""
    return (
        isinstance(values, list | tuple)
        and len(values) <= 16
        and all(type(value) is int and 0 <= value < 2**63 for value in values)
    )
