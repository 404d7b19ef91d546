"""A reader of pickles that runs nothing: an interpreter of the opcodes that data needs, over stand-ins.

Python's unpickler imports what a pickle names and calls it, so a file of weights can run any program. This reader has
no import and no call. A global becomes a `Named` (two strings), a call becomes an `Inert` (a record of name and
arguments), and an attribute of an object is never set. Tensors become places in their file. The opcodes and their
arguments are parsed by `pickletools` of the standard library, which only describes pickles.

The reader has no extension codes, no out-of-band buffers, and no persistent ids but those of torch's storages.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import torch

from imtok.interop.inert import STORAGES, Inert, Named, StoredValues, UnreadableError, filled, made, named

_LONGEST = 16 * 2**20  # bytes of a pickle, without its tensors: that of a model of 7 B parameters has less than 2^20
_MOST_COPIED = 2**20  # values that calls such as `list(values)` copy, the same ones counted each time
_WIDEST = 128  # bits of a whole number; the magic number of torch has 77


@dataclass(frozen=True)
class Unpickled:
    """The content of a pickle, and the type of the values in each storage that it names."""

    content: Any
    storages: dict[str, torch.dtype]


def unpickled(stream: BinaryIO, limit: int) -> Unpickled:
    """Read one pickle from a binary stream, and leave the stream after it; `limit` is the bytes there are.

    Raises UnreadableError on anything that is not data.
    """
    reader = _Reader()
    try:
        bounded = cast(BinaryIO, _Bounded(stream, min(limit, _LONGEST)))
        for opcode, argument, _ in pickletools.genops(bounded):
            reader.take(opcode.name, argument)
    except UnreadableError:
        raise
    except Exception as error:  # whatever damaged bytes meet in the parser; nothing of it is a fault of imtok
        raise UnreadableError(f"its pickle is damaged ({type(error).__name__})") from error
    return Unpickled(reader.content, reader.storages)


class _Bounded:
    """A stream that hands out at most as many bytes as there are: a length in a pickle reserves no memory."""

    def __init__(self, stream: BinaryIO, limit: int) -> None:
        self._stream, self._left = stream, limit

    def read(self, size: int) -> bytes:
        return self._count(self._stream.read(max(0, min(size, self._left))))

    def readline(self) -> bytes:
        return self._count(self._stream.readline(self._left))

    def tell(self) -> int:
        return 0

    def _count(self, data: bytes) -> bytes:
        self._left -= len(data)
        return data


class _Reader:
    """The state of one pickle: a stack, the stacks below its marks, and a memo."""

    def __init__(self) -> None:
        self.content: Any = None
        self.storages: dict[str, torch.dtype] = {}
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._copied = 0

    def take(self, opcode: str, argument: Any) -> None:
        """Follow one opcode; raises UnreadableError where it is none of data."""
        if opcode in _VALUES:
            if type(argument) is int and argument.bit_length() > _WIDEST:  # no message could show it
                raise UnreadableError("its pickle has a whole number that no weights need")
            self._stack.append(argument)
        elif opcode in _CONSTANTS:
            self._stack.append(_CONSTANTS[opcode]())
        elif opcode in _ACTIONS:
            _ACTIONS[opcode](self, argument)
        elif opcode not in _IGNORED:
            raise UnreadableError(f"its pickle has the opcode {opcode}, which no weights need")

    def _pop(self) -> Any:
        return self._stack.pop()

    def _to_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _mark(self, _: Any) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _pop_mark(self, _: Any) -> None:
        self._to_mark()

    def _discard(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._to_mark()

    def _duplicate(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def _put(self, index: Any) -> None:
        self._memo[len(self._memo) if index is None else int(index)] = self._stack[-1]

    def _get(self, index: Any) -> None:
        self._stack.append(self._memo[int(index)])

    def _tuple(self, _: Any) -> None:
        items = self._to_mark()
        self._stack.append(tuple(items))

    def _last(self, count: int) -> None:
        """Make a tuple of the last values of the stack."""
        if len(self._stack) < count:
            raise UnreadableError("its pickle is damaged (an empty stack)")
        self._stack[-count:] = [tuple(self._stack[-count:])]

    def _list(self, _: Any) -> None:
        items = self._to_mark()
        self._stack.append(items)

    def _dict(self, _: Any) -> None:
        items = self._to_mark()
        self._stack.append(filled({}, zip(items[::2], items[1::2], strict=True)))

    def _append(self, _: Any) -> None:
        self._extend([self._pop()])

    def _appends(self, _: Any) -> None:
        self._extend(self._to_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Inert):
            target = target.items
        if not isinstance(target, list):
            raise UnreadableError(f"its pickle appends to a {type(target).__name__}")
        target.extend(items)

    def _set_item(self, _: Any) -> None:
        value, key = self._pop(), self._pop()
        self._set([(key, value)])

    def _set_items(self, _: Any) -> None:
        items = self._to_mark()
        self._set(list(zip(items[::2], items[1::2], strict=True)))

    def _set(self, pairs: list[tuple[Any, Any]]) -> None:
        target = self._stack[-1]
        if isinstance(target, Inert):
            target = target.entries
        if not isinstance(target, dict):
            raise UnreadableError(f"its pickle sets entries of a {type(target).__name__}")
        filled(target, pairs)

    def _global(self, argument: str) -> None:
        self._stack.append(named(*argument.split(" ", 1)))

    def _stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        self._stack.append(named(module, name))

    def _call(self, _: Any) -> None:
        arguments, of = self._pop(), self._pop()
        self._make(of, arguments)

    def _make(self, of: Any, arguments: Any) -> None:
        """Put what stands for a call; a few bytes can copy one long list again and again, so copies are counted."""
        if isinstance(arguments, tuple):
            self._copied += sum(len(each) for each in arguments if isinstance(each, list | tuple | dict))
        if self._copied > _MOST_COPIED:
            raise UnreadableError(f"its pickle copies more than {_MOST_COPIED:,} values, which no weights need")
        self._stack.append(made(of, arguments))

    def _call_with_keywords(self, _: Any) -> None:
        keywords, arguments, of = self._pop(), self._pop(), self._pop()
        if keywords:
            raise UnreadableError("its pickle calls a class with keywords")
        self._make(of, arguments)

    def _build(self, _: Any) -> None:
        """Keep the state of an object beside it; that of a mapping, such as torch's `_metadata`, is dropped."""
        state, target = self._pop(), self._stack[-1]
        if isinstance(target, Inert):
            target.state = state
        elif not isinstance(target, dict):
            raise UnreadableError(f"its pickle sets the state of a {type(target).__name__}")

    def _persistent(self, _: Any) -> None:
        value = _storage(self._pop())
        if isinstance(value, StoredValues) and self.storages.setdefault(value.key, value.dtype) != value.dtype:
            raise UnreadableError("its pickle gives one storage two types")
        self._stack.append(value)

    def _stop(self, _: Any) -> None:
        (self.content,) = self._stack


def _storage(identity: Any) -> Any:
    """Return the storage that torch's persistent id names, or the class of a module saved with its source."""
    match identity:
        case ("module", Named() as of, *_):
            return of
        case ("storage", Named(module="torch", name=name), str(key), _, int(count), *view) if name in STORAGES:
            if view not in ([], [None]):
                raise UnreadableError("its pickle has a storage inside another, as torch of 2017 wrote them")
            return StoredValues(key, STORAGES[name], count)
    raise UnreadableError("its pickle has a persistent id that is no storage of torch")


_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,
}
_IGNORED = {"PROTO", "FRAME"}
_ACTIONS: dict[str, Callable[[_Reader, Any], None]] = {
    "MARK": _Reader._mark,
    "POP": _Reader._discard,
    "POP_MARK": _Reader._pop_mark,
    "DUP": _Reader._duplicate,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Reader._put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Reader._get),
    "TUPLE": _Reader._tuple,
    "TUPLE1": lambda reader, _: reader._last(1),
    "TUPLE2": lambda reader, _: reader._last(2),
    "TUPLE3": lambda reader, _: reader._last(3),
    "LIST": _Reader._list,
    "FROZENSET": _Reader._list,
    "DICT": _Reader._dict,
    "APPEND": _Reader._append,
    "APPENDS": _Reader._appends,
    "ADDITEMS": _Reader._appends,
    "SETITEM": _Reader._set_item,
    "SETITEMS": _Reader._set_items,
    "GLOBAL": _Reader._global,
    "STACK_GLOBAL": _Reader._stack_global,
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _Reader._call),
    "NEWOBJ_EX": _Reader._call_with_keywords,
    "BUILD": _Reader._build,
    "BINPERSID": _Reader._persistent,
    "STOP": _Reader._stop,
}
