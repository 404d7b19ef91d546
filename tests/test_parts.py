"""Parts of a count: they add up to the whole, and what was changed, is of something else or is missing is refused."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from making import token_folder
from safetensors import safe_open

import imtok.analysis.parts as parts_module
from imtok.analysis import Statistics, analyze, count_part
from imtok.analysis.sampling import Sampling
from imtok.errors import ConfigError, ImtokError, Interrupted, TokensError
from imtok.tokens import TokenDataset

Arrays = dict[str, npt.NDArray[Any]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four units of a few images."""
    values = np.random.default_rng(0)
    return token_folder(tmp_path / "tokens", [values.integers(0, 9, (4, 2, 2)) for _ in range(4)], 9)


@pytest.fixture
def parts(folder: Path, tmp_path: Path) -> list[Path]:
    """The two parts of that folder."""
    files = [tmp_path / f"part-{index}" for index in range(2)]
    for index, file in enumerate(files):
        count_part(folder, index, 2, file)
    return files


def rewrite(part: Path, change: Callable[[dict[str, Any], Arrays], None]) -> None:
    """The part with other facts or arrays, under the hash it had."""
    with safe_open(part, framework="numpy") as file:
        header = json.loads(file.metadata()["imtok"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no dictionary)
    change(header, arrays)
    part.write_bytes(safetensors.numpy.save(arrays, metadata={"imtok": json.dumps(header)}))


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.sampled_from([0, 1, 3, 255, 256, 600]), min_size=1, max_size=4),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3)),
    size=st.sampled_from([1, 2, 7, 300, 5000, 70000]),
    of=st.integers(1, 5),
    seed=st.integers(0, 2**32),
)
def test_merged_parts_say_what_the_whole_says(
    lengths: list[int], shape: tuple[int, int, int], size: int, of: int, seed: int
) -> None:
    values = np.random.default_rng(seed)
    units = [values.zipf(1.3, (length, *shape)).clip(max=size) - 1 for length in lengths]
    with tempfile.TemporaryDirectory() as place:
        folder = token_folder(Path(place) / "t", [unit[..., 0] if shape[2] == 1 else unit for unit in units], size)
        files = [Path(place) / f"part-{index}" for index in range(of)]
        assert sum(count_part(folder, index, of, file) for index, file in enumerate(files)) == sum(lengths)
        assert analyze(folder, parts=files[::-1]).statistics == analyze(folder).statistics


@pytest.mark.parametrize(("index", "of"), [(5, 3), (3, 3), (-1, 3), (0, 0), (0, -1)])
def test_there_are_parts_0_to_n_alone(index: int, of: int, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"part {index} of {of}: expected"):
        count_part(folder, index, of, tmp_path / "part")
    assert not (tmp_path / "part").exists()


def test_a_part_is_not_counted_where_it_cannot_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("imtok.analysis.job.count_tokens")
    with pytest.raises(IsADirectoryError) as caught:
        count_part(folder, 0, 2, folder)
    assert caught.value.filename == str(folder)


def test_parts_that_do_not_fit_are_refused_by_name(folder: Path, parts: list[Path], tmp_path: Path) -> None:
    other = token_folder(tmp_path / "b", [np.zeros((4, 2, 2), np.int64) for _ in range(3)], 9)
    count_part(other, 0, 2, tmp_path / "foreign")
    count_part(folder, 2, 3, tmp_path / "third")
    (tmp_path / "junk").write_bytes(b"junk")
    safetensors.numpy.save_file({"counts": np.zeros(3)}, tmp_path / "tensors")
    safetensors.numpy.save_file({"counts": np.zeros(3)}, tmp_path / "deep", metadata={"imtok": "[" * 100_000})
    for given_parts, words in (
        (parts[:1], "part 1 of 2 is missing"),
        ([*parts, parts[0]], "part 0 is also in"),
        ([parts[0], tmp_path / "foreign"], "foreign: counted from other tokens"),
        ([parts[0], tmp_path / "third"], "third: part of 3, where .* is one of 2"),
        ([tmp_path / "junk"], "junk: no part of a count"),
        ([tmp_path / "tensors"], "tensors: no part of a count"),
        ([tmp_path / "deep"], "deep: no part of a count"),
        ([tmp_path / "nowhere"], "nowhere: cannot be read"),
    ):
        with pytest.raises(TokensError, match=words):
            analyze(folder, parts=given_parts)


def negate(header: dict[str, Any], arrays: Arrays) -> None:
    arrays["counts"] = -arrays["counts"]


def unsort(header: dict[str, Any], arrays: Arrays) -> None:
    arrays["right.0.keys"] = arrays["right.0.keys"][::-1].copy()


def widen(header: dict[str, Any], arrays: Arrays) -> None:
    arrays["runs"] = arrays["runs"].astype(np.float64)


def flatten(header: dict[str, Any], arrays: Arrays) -> None:
    arrays["counts"] = arrays["counts"].reshape(-1)


def omit(header: dict[str, Any], arrays: Arrays) -> None:
    del arrays["below.0.counts"]


def add(header: dict[str, Any], arrays: Arrays) -> None:
    arrays["surplus"] = arrays["counts"]


def many_images(header: dict[str, Any], arrays: Arrays) -> None:
    header["images"] = 10**9


def another_part(header: dict[str, Any], arrays: Arrays) -> None:
    header["index"] = 0


def no_part(header: dict[str, Any], arrays: Arrays) -> None:
    header["index"], header["of"] = 2, 2


def negative(header: dict[str, Any], arrays: Arrays) -> None:
    header["images"] = -1


@pytest.mark.parametrize(
    "change", [negate, unsort, widen, flatten, omit, add, many_images, another_part, no_part, negative]
)
def test_a_changed_part_is_refused(
    change: Callable[[dict[str, Any], Arrays], None], folder: Path, parts: list[Path]
) -> None:
    rewrite(parts[1], change)
    with pytest.raises(TokensError, match=r"part-1: damaged.*make the part again"):
        analyze(folder, parts=parts)


def test_every_changed_byte_is_told_or_changes_nothing(folder: Path, parts: list[Path]) -> None:
    data, whole = parts[1].read_bytes(), analyze(folder, parts=parts).statistics
    for place in range(0, len(data), 11):
        parts[1].write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert told(folder, parts) in (None, whole)
    parts[1].write_bytes(data[:-8])
    assert told(folder, parts) is None


def told(folder: Path, parts: list[Path]) -> Statistics | None:
    """The figures, None where the parts are refused."""
    try:
        return analyze(folder, parts=parts).statistics
    except ImtokError:
        return None


def test_the_account_of_a_part_is_held_against_its_counts(
    folder: Path, parts: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(parts[1], negate)
    monkeypatch.setattr(parts_module.PartHeader, "digest", lambda header, _: header.sha256)  # as if made so
    with pytest.raises(TokensError, match=r"part-1: damaged \(counts that are not those of 8 images\)"):
        analyze(folder, parts=parts)


def test_a_part_of_another_version_is_refused_by_name(folder: Path, parts: list[Path]) -> None:
    def older(header: dict[str, Any], arrays: Arrays) -> None:
        header["version"] = 1
        del header["sha256"], header["sampling"]

    rewrite(parts[0], older)
    with pytest.raises(TokensError, match=r"part-0: a part of version 1, this imtok adds up 2; make the part again"):
        analyze(folder, parts=parts)


def test_a_part_counted_under_other_limits_is_refused_by_name(
    folder: Path, parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fewer(tokens: TokenDataset) -> Sampling:
        return whole(tokens, codes=8)

    whole = Sampling.of
    with monkeypatch.context() as patch:
        patch.setattr(Sampling, "of", fewer)
        count_part(folder, 1, 2, tmp_path / "older")
    with pytest.raises(TokensError, match=r"older: counted under other limits than this imtok's; make the part again"):
        analyze(folder, parts=[parts[0], tmp_path / "older"])


def test_adding_up_can_be_ended(folder: Path, parts: list[Path]) -> None:
    begun: list[tuple[str, int, int]] = []
    with pytest.raises(Interrupted):
        analyze(folder, parts=parts, progress=lambda *step: begun.append(step), should_stop=lambda: len(begun) == 2)
    assert begun == [("adding up parts", 0, 2), ("adding up parts", 1, 2)]
