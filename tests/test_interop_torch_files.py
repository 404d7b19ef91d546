"""Files of torch.save: tensors come out bit for bit, and a hostile or damaged file ends in a finding."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from imtok.cli import app
from imtok.errors import TokenizerError
from imtok.interop.inert import StoredTensor, UnreadableError
from imtok.interop.torch_files import open_torch_file
from imtok.interop.weights import _of_module, read_weights, weight_files

DTYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]


class Runs:
    """An object whose pickle calls os.system when it is read."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, (self.command,)


def saved(path: Path, content: Any, legacy: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def tensors_of(path: Path) -> dict[str, Tensor]:
    return {name: reader() for name, reader in read_weights([path]).readers.items()}


def rewritten(path: Path, change: Callable[[str, bytes], tuple[str, bytes]], compression: int = 0) -> Path:
    """Write the members of a zip file again, each as `change` returns it."""
    with zipfile.ZipFile(path) as archive:
        members = [change(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_of_every_type_come_back_bit_for_bit(dtype: str, legacy: bool, tmp_path: Path) -> None:
    whole = torch.arange(24).reshape(2, 3, 4).to(getattr(torch, dtype))
    content = {
        "whole": whole,
        "a view": whole[:, 1:, ::2],
        "transposed": whole.transpose(0, 2),
        "channels last": torch.rand(2, 3, 4, 5).to(getattr(torch, dtype)).to(memory_format=torch.channels_last),
        "a scalar": whole[1, 2, 3],
        "empty": whole[:0],
        "tied": whole,
    }
    found = tensors_of(saved(tmp_path / "x.pt", content, legacy))
    assert list(found) == list(content)
    for name, value in content.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("legacy", [False, True])
def test_parameters_and_gradients_are_plain_tensors(legacy: bool, tmp_path: Path) -> None:
    content = {"w": nn.Parameter(torch.ones(2, 3)), "b": torch.zeros(2, requires_grad=True)}
    found = tensors_of(saved(tmp_path / "x.pt", content, legacy))
    assert torch.equal(found["w"], torch.ones(2, 3))
    assert not found["b"].requires_grad


@pytest.mark.parametrize("legacy", [False, True])
def test_a_hostile_checkpoint_does_not_run(legacy: bool, tmp_path: Path) -> None:
    """Beside good tensors, inside a tensor's hooks, and as a key; by the command, with one line."""
    target = tmp_path / "ran"
    hostile = Runs(f"touch {target}")
    for number, content in enumerate(
        ({"state_dict": {"w": torch.ones(2)}, "callbacks": hostile}, {"model": hostile}, hostile, {"w": [hostile]})
    ):
        path = saved(tmp_path / f"{number}.ckpt", content, legacy)
        result = CliRunner().invoke(app, ["import", str(path), "-o", str(tmp_path / "out")])
        assert result.exit_code == 1
        assert re.fullmatch(
            r"error: .*: cannot be read: its pickle names (posix|nt)\.system, which no weights need; "
            r"imtok runs nothing that a checkpoint holds\n",
            result.stderr,
        )
    assert not target.exists()
    assert not (tmp_path / "out").exists()


def test_a_compressed_zip_file_is_not_unpacked(tmp_path: Path) -> None:
    """Four kilobytes that would become four megabytes; a bomb has more zeros."""
    path = saved(tmp_path / "x.pt", {"w": torch.zeros(2**20)})
    rewritten(path, lambda name, data: (name, data), zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**14
    with pytest.raises(UnreadableError, match="compressed or encrypted members"):
        open_torch_file(path)


def test_paths_in_a_zip_file_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = saved(tmp_path / "in/x.pt", {"w": torch.ones(3)})
    rewritten(path, lambda name, data: (name.replace("x/", "../../x/", 1), data))
    with pytest.raises(UnreadableError, match=r"not one that torch\.save writes"):
        open_torch_file(path)
    rewritten(
        path, lambda name, data: (name.replace("../../x/data/", "x/data/../../../").replace("../../x/", "x/"), data)
    )
    with pytest.raises(TokenizerError, match=r"w cannot be read: a tensor of .* lies outside the file"):
        tensors_of(path)
    assert sorted(file.name for file in tmp_path.rglob("*") if file.is_file()) == ["x.pt"]


def test_a_storage_that_claims_too_much_takes_no_memory(tmp_path: Path) -> None:
    """The count of the pickle says 2^40 values, the file holds 3."""
    path = saved(tmp_path / "x.pt", {"w": torch.ones(3)})
    giant = b"\x8a\x06" + (2**40).to_bytes(6, "little")

    def enlarged(name: str, data: bytes) -> tuple[str, bytes]:
        return name, data.replace(b"K\x03tq", giant + b"tq").replace(b"K\x03\x85", giant + b"\x85")

    rewritten(path, enlarged)
    with pytest.raises(TokenizerError, match=r"w cannot be read: a tensor of \(1099511627776,\) lies outside the file"):
        tensors_of(path)


def test_a_tensor_larger_than_its_storage_is_refused(tmp_path: Path) -> None:
    expanded = saved(tmp_path / "x.pt", {"w": torch.ones(1).expand(2**40), "v": torch.ones(2)})
    readers = read_weights([expanded]).readers
    assert torch.equal(readers["v"](), torch.ones(2))
    with pytest.raises(TokenizerError, match="same values more than once"):
        readers["w"]()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_cut_off_anywhere_is_a_finding(legacy: bool, tmp_path: Path) -> None:
    data = saved(tmp_path / "x.pt", {"w": torch.arange(64.0), "v": torch.ones(3)}, legacy).read_bytes()
    for length in range(0, len(data), 97):
        (tmp_path / "cut.pt").write_bytes(data[:length])
        with pytest.raises(TokenizerError, match=r"cut\.pt"):
            tensors_of(tmp_path / "cut.pt")


def test_noise_in_a_file_never_ends_in_another_error(tmp_path: Path) -> None:
    for legacy in (False, True):
        data = saved(tmp_path / "x.pt", {"w": torch.arange(8.0)}, legacy).read_bytes()
        for place in range(0, len(data), 31):
            broken = bytearray(data)
            broken[place] ^= 0xFF
            (tmp_path / "noise.pt").write_bytes(bytes(broken))
            try:
                tensors_of(tmp_path / "noise.pt")
            except TokenizerError:
                continue


@pytest.mark.parametrize(
    ("data", "finding"),
    [
        (b"", "no whole file"),
        (b"not weights at all", "no whole file"),
        (pickle.dumps({"w": 1}, protocol=2), "a pickle, but not one that torch.save wrote"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02K\x01.", "a pickle, but not one that torch.save wrote"),
        (struct.pack("<Q", 2**62) + b"{}", "no whole file"),
    ],
)
def test_files_of_another_kind_are_named(data: bytes, finding: str, tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(data)
    with pytest.raises(TokenizerError, match=finding):
        read_weights([tmp_path / "x.ckpt"])


def test_a_program_of_torchscript_is_no_checkpoint(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt", {"w": torch.ones(1)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x/constants.pkl", b"")
    with pytest.raises(UnreadableError, match="TorchScript program"):
        open_torch_file(path)


def test_big_endian_numbers_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt", {"w": torch.ones(1)})
    rewritten(path, lambda name, data: (name, b"big" if name.endswith("byteorder") else data))
    with pytest.raises(UnreadableError, match="big-endian"):
        open_torch_file(path)


def test_a_module_saved_whole_is_read_as_its_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of classes that are on the list alone, without any of them being imported or built."""
    module = nn.Sequential(nn.Sequential(nn.ReLU(), nn.Sequential()))
    module[0][1].register_parameter("w", nn.Parameter(torch.arange(3.0)))
    module.register_buffer("b", torch.ones(2))
    path = saved(tmp_path / "x.pkl", module)
    monkeypatch.setattr(nn.Sequential, "__setstate__", lambda *_: pytest.fail("built"), raising=False)
    found = tensors_of(path)
    assert {name: value.tolist() for name, value in found.items()} == {"b": [1, 1], "0.1.w": [0, 1, 2]}
    with pytest.raises(TokenizerError, match=r"names torch\.nn\.modules\.linear\.Linear, which no weights need"):
        tensors_of(saved(tmp_path / "y.pkl", nn.Linear(2, 2)))


def test_modules_that_hold_each_other_take_no_memory(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Sequential())
    for number in range(100):
        module.register_parameter(f"w{number}", nn.Parameter(torch.ones(1)))
    path = saved(tmp_path / "x.pkl", module)
    file = open_torch_file(path)
    for number in range(50):
        file.content.state["_modules"][str(number)] = file.content
    with pytest.raises(UnreadableError, match="modules inside modules without an end"):
        _of_module(file.content)


def test_an_empty_tensor_of_a_giant_shape_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt", {"w": torch.empty(3, 3, 0)})
    giant = b"\x8a\x08" + (2**62).to_bytes(8, "little")
    rewritten(path, lambda name, data: (name, data.replace(b"K\x03K\x03K\x00\x87", giant + giant + b"K\x00\x87")))
    with pytest.raises(TokenizerError, match="a shape or strides"):
        tensors_of(path)


def test_an_index_that_leads_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "secret.bin", {"w": torch.ones(1)})
    (tmp_path / "model").mkdir()
    index = tmp_path / "model/model.safetensors.index.json"
    for name in ("../secret.bin", "/etc/passwd", "a/b.bin", "..", ""):
        index.write_text(json.dumps({"weight_map": {"w": name}}))
        with pytest.raises(TokenizerError, match="which is not a file beside it"):
            weight_files(tmp_path / "model")
    index.write_text('{"weight_map": {"w": "missing.bin"}}')
    with pytest.raises(TokenizerError, match=r"missing\.bin: is missing"):
        weight_files(tmp_path / "model")
    index.write_text("[1]")
    with pytest.raises(TokenizerError, match="is no index of weights"):
        weight_files(tmp_path / "model")


def test_a_tensor_is_a_place_until_it_is_read(tmp_path: Path) -> None:
    file = open_torch_file(saved(tmp_path / "x.pt", {"a": {"w": torch.ones(2, 3)}}))
    place = file.content["a"]["w"]
    assert isinstance(place, StoredTensor)
    assert (place.shape, place.stride, place.storage.count) == ((2, 3), (3, 1), 6)
    assert io.BytesIO(file.tensor(place).numpy().tobytes()).read() == torch.ones(2, 3).numpy().tobytes()
