"""Pickles of strangers: data comes out as it went in, and nothing else ever happens."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import pickletools
import re
import zlib
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imtok.interop.inert import ALLOWED, Inert, Named, UnreadableError
from imtok.interop.unpickling import unpickled


def read(data: bytes) -> Any:
    return unpickled(io.BytesIO(data), len(data)).content


class Runs:
    """An object whose pickle calls a function when it is read."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def touches(path: Path) -> dict[str, bytes]:
    """Pickles that would make the file `path` in one way or another, by the way."""
    command = f"touch {path}"
    text = command.encode()
    named = b"cposix\nsystem\n"
    setstate = b"cargparse\nNamespace\n)\x81}(U\x0c__setstate__" + named + b"ub" + _string(command) + b"b"
    return {
        "os.system": pickle.dumps(Runs(os.system, command), protocol=2),
        "protocol 4": pickle.dumps(Runs(os.system, command), protocol=4),
        "protocol 0": pickle.dumps(Runs(os.system, command), protocol=0),
        "eval": pickle.dumps(Runs(eval, f"open({str(path)!r}, 'w')"), protocol=2),
        "an open file": pickle.dumps(Runs(open, str(path), "w"), protocol=2),
        "inside a tensor's arguments": b"ctorch._utils\n_rebuild_tensor_v2\n(" + named + b"(V" + text + b"\ntRtR.",
        "getattr": b"c__builtin__\ngetattr\n(c__builtin__\n__import__\n(Vos\ntRVsystem\ntR(V" + text + b"\ntR.",
        "INST": b"(V" + text + b"\niposix\nsystem\n.",
        "OBJ": b"(" + named + b"V" + text + b"\no.",
        "NEWOBJ": b"cposix\nsystem\n(V" + text + b"\nt\x81.",
        "a state with __setstate__": setstate + b".",
        "a name with dots": b"\x80\x04\x8c\x05torch\x8c\x0fos.system.\x93.",
        "an extension code": b"\x82\x01.",
        "a module inside torch": b"ctorch.serialization\nos.system\n(V" + text + b"\ntR.",
        "a list of names, extended": b"cargparse\nNamespace\n)\x81(" + named + b"V" + text + b"\ne.",
    }


def _string(text: str) -> bytes:
    return b"V" + text.encode() + b"\n"


@pytest.mark.parametrize("way", touches(Path("x")))
def test_a_hostile_pickle_does_not_run(way: str, tmp_path: Path) -> None:
    target = tmp_path / "ran"
    with pytest.raises(UnreadableError):
        read(touches(target)[way])
    assert not target.exists()


def test_the_finding_names_what_a_hostile_pickle_asks_for() -> None:
    with pytest.raises(UnreadableError, match=r"names (posix|nt)\.system, which no weights need"):
        read(touches(Path("x"))["os.system"])


def test_a_state_is_kept_and_no_attribute_is_set() -> None:
    """BUILD would call `__setstate__` or fill `__dict__`; here it does neither."""
    data = b"cargparse\nNamespace\n)\x81}(V__class__\nI1\nV__setstate__\nI2\nub."
    value = read(data)
    assert type(value) is Inert
    assert value.state == {"__class__": 1, "__setstate__": 2}
    assert "__setstate__" not in vars(value)


def test_allowed_names_are_read_as_names_and_called_never() -> None:
    value = read(b"cfunctools\npartial\n(c_codecs\nencode\nVx\nVlatin1\ntR.")
    assert value == value
    assert value.of == Named("functools", "partial")
    assert value.arguments == (Named("_codecs", "encode"), "x", "latin1")


def test_no_allowed_name_reaches_the_system_or_the_interpreter() -> None:
    """A second fence: even a reader that called these names could do no harm with the modules that are dangerous."""
    dangerous = re.compile(r"^(os|posix|nt|subprocess|sys|shutil|socket|importlib|runpy|pickle|code|ctypes)(\.|$)")
    assert not [module for module, _ in ALLOWED if dangerous.match(module)]
    builtin = {name for module, name in ALLOWED if module in ("builtins", "__builtin__")}
    assert not builtin & {"eval", "exec", "compile", "open", "getattr", "setattr", "__import__", "globals", "input"}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_plain_data_comes_back_in_every_protocol(protocol: int) -> None:
    data = {
        "a": [1, -(2**40), 2**70, 1.5, None, True, False],
        "b": ("x", "ä" * 300, ()),
        3: {"c": []},
        "d": [[1, 2]] * 2,
    }
    assert read(pickle.dumps(data, protocol)) == data


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
        max_leaves=20,
    ),
    st.sampled_from([2, 4]),
)
def test_any_plain_data_comes_back(data: object, protocol: int) -> None:
    assert read(pickle.dumps(data, protocol)) == data


@given(st.binary(max_size=80), st.integers(0, 200))
def test_damaged_bytes_are_refused_or_read_as_data(noise: bytes, place: int) -> None:
    whole = pickle.dumps({"a": [1, 2, 3], "b": OrderedDict(c="d")}, protocol=2)
    for data in (noise, whole[:place], whole[:place] + noise + whole[place:]):
        with suppress(UnreadableError):  # and no other error
            read(data)


def test_containers_of_the_standard_library_become_plain_ones() -> None:
    assert read(pickle.dumps(OrderedDict(a=1, b=2), 2)) == {"a": 1, "b": 2}
    assert sorted(read(pickle.dumps({3, 1}, 2))) == [1, 3]
    assert sorted(read(pickle.dumps({3, 1}, 4))) == [1, 3]
    namespace = read(pickle.dumps(argparse.Namespace(size=256, name="x"), 2))
    assert namespace.state == {"size": 256, "name": "x"}


def test_lengths_in_a_pickle_reserve_no_memory() -> None:
    for opcode in ("BINBYTES8", "BINUNICODE8", "LONG4", "BINBYTES", "BINSTRING"):
        code = next(each for each in pickletools.opcodes if each.name == opcode).code.encode("latin-1")
        width = 8 if opcode.endswith("8") else 4
        with pytest.raises(UnreadableError):
            read(code + (2 ** (8 * width - 1) - 1).to_bytes(width, "little") + b"abc.")


def test_a_giant_memo_index_reserves_no_memory() -> None:
    assert read(b"I1\nr\xff\xff\xff\x7f.") == 1


def test_keys_that_would_hash_without_end_are_refused() -> None:
    nested = b")" + b"\x85" * 200_000
    with pytest.raises(UnreadableError, match="mapping with a tuple as a key"):
        read(b"}" + nested + b"I1\ns.")


@pytest.mark.parametrize("place", ["module", "name"])
def test_a_name_that_would_hash_without_end_is_refused(place: str) -> None:
    nested, text = b")" + b"2\x86" * 200, b"\x8c\x01x"  # a pair of one pair of one pair ...
    with pytest.raises(UnreadableError, match="name that is no text"):
        read((nested + text if place == "module" else text + nested) + b"\x93.")


def test_keys_of_one_hash_are_refused() -> None:
    """Every multiple of 2^61 - 1 has the hash 0, so that a mapping of many of them would take hours."""
    keys = b"".join(b"\x8a\x0b" + (number * (2**61 - 1)).to_bytes(11, "little") + b"N" for number in range(9, 99))
    with pytest.raises(UnreadableError, match="beyond 64 bits as a key"):
        read(b"}(" + keys + b"u.")


@pytest.mark.parametrize("name", ["collections OrderedDict", "builtins list", "torch Size", "argparse Namespace"])
def test_a_list_is_not_copied_without_end(name: str) -> None:
    values = b"](" + b"K\x01K\x02\x86" * 3000 + b"e\x94"
    of = b"c" + name.replace(" ", "\n").encode() + b"\n\x94"
    with pytest.raises(UnreadableError, match="copies more than"):
        read(values + of + b"](" + b"h\x01h\x00\x85R" * 3000 + b"e.")


def test_a_number_that_no_message_could_show_is_refused() -> None:
    for number in (2**30_000, -(2**30_000)):
        data = number.to_bytes(4000, "little", signed=True)
        with pytest.raises(UnreadableError, match="whole number that no weights need"):
            read(b"\x8b" + len(data).to_bytes(4, "little") + data + b".")


@pytest.mark.parametrize(
    ("data", "finding"),
    [
        (b"(lp0\nVx\n.", "damaged"),
        (b"0.", "damaged"),
        (b"I1\nQ.", "persistent id"),
        (b"Pmodule\n.", "opcode PERSID"),
        (b"I1\nI2\nb.", "sets the state of a int"),
        (b"I1\nI2\na.", "appends to a int"),
        (b"](I1\nI2\nu.", "sets entries of a list"),
        (b"I1\n)R.", "calls what is no name"),
        (b"cargparse\nNamespace\nI1\nR.", "calls what is no name"),
        (b"\x80\x05\x97.", "opcode NEXT_BUFFER"),
        (zlib.compress(b"x"), "damaged"),
    ],
)
def test_what_is_no_data_is_named(data: bytes, finding: str) -> None:
    with pytest.raises(UnreadableError, match=finding):
        read(data)
