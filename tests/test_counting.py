"""Counting token sets: all statistics equal a plain numpy reference, for any number of units and processes."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import token_folder

from imtok.analysis import CodebookUsage, analyze, codebook_usage
from imtok.analysis.counting import count_tokens
from imtok.analysis.neighbours import PairTable
from imtok.analysis.sampling import Sampling, grid_hashes
from imtok.analysis.statistics import Neighbours
from imtok.analysis.tally import Tally
from imtok.errors import Interrupted, TokensError
from imtok.tokens import open_tokens

Units = list[npt.NDArray[np.int64]]

LN2 = math.log(2)


@st.composite
def token_sets(draw: st.DrawFn) -> tuple[Units, int]:
    """Units of (N, h, w, Q) codes, and K: few codes and many, even and very uneven use."""
    size = draw(st.sampled_from([1, 2, 7, 300, 5000, 70000]))
    shape = (draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 3)))
    lengths = draw(st.lists(st.sampled_from([0, 1, 3, 255, 256, 600]), min_size=1, max_size=4))
    values = np.random.default_rng(draw(st.integers(0, 2**32)))
    if draw(st.booleans()):
        return [values.integers(0, size, (length, *shape)) for length in lengths], size
    return [values.zipf(1.5, (length, *shape)).clip(max=size) - 1 for length in lengths], size


def written(folder: Path, units: Units, size: int) -> Path:
    """Q = 1 has no axis on disk."""
    return token_folder(folder, [unit[..., 0] if unit.shape[-1] == 1 else unit for unit in units], size)


def plug_in(values: npt.NDArray[Any]) -> float:
    _, counts = np.unique(values, return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def corrected(values: npt.NDArray[Any], size: int) -> float:
    return min(math.log2(size), plug_in(values) + (len(np.unique(values)) - 1) / (2 * values.size * LN2))


def close(found: float, expected: float) -> bool:
    return found == pytest.approx(expected, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(token_sets(), st.integers(1, 4))
def test_statistics_equal_the_reference(drawn: tuple[Units, int], workers: int) -> None:
    units, size = drawn
    codes = np.concatenate(units)
    with tempfile.TemporaryDirectory() as place:
        analysis = analyze(written(Path(place), units, size), workers=workers)
    statistics, codebooks = analysis.statistics, range(codes.shape[-1])
    assert np.array_equal(analysis.usage.counts, np.bincount(codes.reshape(-1), minlength=size))
    assert (statistics.images, statistics.tokens) == (len(codes), codes.size)
    assert statistics.used == len(np.unique(codes))
    if not codes.size:
        return
    assert close(statistics.entropy_bits, plug_in(codes))
    assert close(statistics.entropy_corrected_bits, corrected(codes, size))
    for number, each in zip(codebooks, statistics.codebooks, strict=True):
        assert close(each.entropy_bits, plug_in(codes[..., number]))
    assert statistics.growth == reference_growth(codes, [seen for seen, _ in statistics.growth])
    assert statistics.growth[-1] == (len(codes), statistics.used)
    reference_runs = [
        sum(len(np.unique(unit[begin : begin + 256, ..., number])) for number in codebooks) / size / codes.shape[-1]
        for unit in units
        for begin in range(0, len(unit) - 255, 256)
    ]
    runs = statistics.per_256_images
    assert (runs is None) == (not reference_runs)
    if runs is not None:
        assert runs.runs == len(reference_runs)
        assert close(runs.usage, float(np.mean(reference_runs)))
        assert close(runs.least, min(reference_runs))
        assert close(runs.most, max(reference_runs))
    check_map(analysis.statistics, codes, size)
    check_neighbours(statistics.horizontal, codes[:, :, :-1], codes[:, :, 1:], size)
    check_neighbours(statistics.vertical, codes[:, :-1], codes[:, 1:], size)
    same = Counter(image.tobytes() for image in codes)
    assert statistics.duplicates.duplicates == len(codes) - len(same)
    assert statistics.duplicates.groups == sum(number > 1 for number in same.values())


def reference_growth(codes: npt.NDArray[np.int64], at: list[int]) -> list[tuple[int, int]]:
    return [(seen, len(np.unique(codes[:seen]))) for seen in at]


def check_map(statistics: Any, codes: npt.NDArray[np.int64], size: int) -> None:
    limit = math.log2(min(size, len(codes)))
    shares = [
        np.bincount(codes[..., q].reshape(-1), minlength=size) / codes[..., q].size for q in range(codes.shape[-1])
    ]
    for row in range(codes.shape[1]):
        for column in range(codes.shape[2]):
            place = codes[:, row, column]
            entropy = np.mean([min(limit, corrected(each, size)) for each in place.T])
            surprisal = np.mean([-np.log2(shares[q][place[:, q]]) for q in range(codes.shape[-1])])
            assert close(statistics.positions.entropy_bits[row][column], float(entropy))
            assert close(statistics.positions.surprisal_bits[row][column], float(surprisal))


def check_neighbours(
    found: Neighbours | None, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64], size: int
) -> None:
    assert (found is None) == (first.size == 0)
    if found is None:
        return
    joint = first * size + second
    number = first.shape[-1]
    planes = [(first[..., q], second[..., q], joint[..., q]) for q in range(number)]
    information = np.mean([plug_in(x) + plug_in(y) - plug_in(xy) for x, y, xy in planes])
    assert (found.images, found.pairs) == (len(first), joint.size)
    assert found.distinct == sum(len(np.unique(xy)) for _, _, xy in planes)
    assert close(found.mutual_information_bits, float(information))
    assert close(found.conditional_entropy_bits, float(np.mean([plug_in(xy) - plug_in(x) for x, _, xy in planes])))
    assert found.mutual_information_corrected_bits >= -1e-9
    left = []
    for x, y, xy in planes:
        bias = (len(np.unique(xy)) - len(np.unique(x))) / (2 * x.size * LN2)
        left.append(min(corrected(y, size), plug_in(xy) - plug_in(x) + bias))
    assert close(found.conditional_entropy_corrected_bits, float(np.mean(left)))


@pytest.fixture
def always_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count small sets in several processes too."""
    monkeypatch.setattr("imtok.analysis.counting._MANY", 0)


def test_the_number_of_processes_changes_no_statistic(always_processes: None, tmp_path: Path) -> None:
    values = np.random.default_rng(0)
    units = [values.zipf(1.3, (90, 3, 5)).clip(max=400) - 1 for _ in range(5)]
    folder = token_folder(tmp_path, units, 400, labels=[values.integers(0, 3, 90) for _ in units])
    steps: list[tuple[str, int, int]] = []
    one, three = (
        analyze(folder, workers=workers, progress=lambda *step: steps.append(step)).statistics for workers in (1, 3)
    )
    assert one == three
    assert steps[-1] == ("counting", 5, 5)
    assert np.array_equal(codebook_usage(open_tokens(folder)).counts, analyze(folder, workers=1).usage.counts)


def test_an_error_in_a_process_is_raised(always_processes: None, tmp_path: Path) -> None:
    units = [np.full((3, 2, 2), code) for code in (4, 200, 5)]
    with pytest.raises(TokensError, match=r"00000001\.safetensors: code 200 is outside"):
        analyze(token_folder(tmp_path, units, 100), workers=2)


def test_a_stop_ends_every_process(always_processes: None, tmp_path: Path) -> None:
    seen: list[int] = []

    def should_stop() -> bool:
        seen.append(len(multiprocessing.active_children()))
        return seen[-1] == 2

    with pytest.raises(Interrupted):
        analyze(token_folder(tmp_path, [np.zeros((2, 2, 2), np.int64)] * 9, 4), workers=3, should_stop=should_stop)
    assert seen[-1] == 2
    assert multiprocessing.active_children() == []


def test_a_killed_process_is_an_error(always_processes: None, tmp_path: Path) -> None:
    def kill() -> bool:
        for process in multiprocessing.active_children():
            process.kill()
        return False

    with pytest.raises(TokensError, match="ended from outside"):
        analyze(token_folder(tmp_path, [np.zeros((2, 2, 2), np.int64)] * 9, 4), workers=3, should_stop=kill)
    assert multiprocessing.active_children() == []


SCRIPT = """
import os, sys, time
import imtok.analysis.counting as counting
from imtok.analysis import analyze

counting._MANY = 0
slow = lambda *_: time.sleep(60) if len(sys.argv) > 2 else None
print(os.getpid(), analyze(sys.argv[1], workers=3, progress=slow).statistics.tokens)
"""


def test_a_script_without_a_main_guard_counts_in_processes(tmp_path: Path) -> None:
    folder = token_folder(tmp_path / "tokens", [np.zeros((2, 2, 2), np.int64)] * 4, 4)
    (tmp_path / "script.py").write_text(SCRIPT)
    for script in ([str(tmp_path / "script.py")], ["-c", SCRIPT]):
        done = subprocess.run([sys.executable, *script, str(folder)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert [line.split()[1] for line in done.stdout.splitlines()] == ["32"]  # once


COMMAND = """
import time
import imtok.analysis.counting as counting
from imtok.cli import main

counting._MANY, add = 0, counting.Tally.add

def slowly(self, *unit):
    time.sleep(0.05)
    add(self, *unit)

counting.Tally.add = slowly
main()
"""


def children_of(process: int) -> set[int]:
    """Return the processes that `process` started."""
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return {int(child) for task in tasks for child in task.read_text().split()}


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds processes in /proc")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 75), (signal.SIGTERM, 75), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_signal_ends_stats_and_its_processes(number: signal.Signals, code: int, tmp_path: Path) -> None:
    folder = token_folder(tmp_path, [np.zeros((2, 2, 2), np.int64)] * 2000, 4)
    command = [sys.executable, "-c", COMMAND, "stats", str(folder), "--workers", "3"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as stats:
        assert stats.stderr is not None
        children: set[int] = set()
        wait_until(lambda: children.update(children_of(stats.pid)) or len(children) == 3)  # and a resource tracker
        wait_until(lambda: all("python" in name_of(child) for child in children))
        started = time.monotonic()
        if number == signal.SIGINT:
            os.killpg(stats.pid, number)  # as Ctrl-C does
        else:
            stats.send_signal(number)
        error = stats.stderr.read() if number != signal.SIGKILL else ""
        assert stats.wait(30) == code
        assert time.monotonic() - started < 10
        assert "Traceback" not in error
    wait_until(lambda: not any(is_alive(child) for child in children))


def name_of(process: int) -> str:
    return Path(f"/proc/{process}/cmdline").read_text()


def wait_until(holds: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


# Where not everything is looked at


def test_pairs_of_chosen_codes_are_all_counted_and_no_others(tmp_path: Path) -> None:
    values = np.random.default_rng(1)
    units = [values.integers(0, 2000, (50, 4, 4)) for _ in range(4)]
    tokens = open_tokens(token_folder(tmp_path, units, 2000))
    sampling = Sampling.of(tokens, pairs=1600)
    paired = sampling.paired
    assert paired is not None
    assert 0.4 < paired.mean() < 0.6
    again = Sampling.of(tokens, pairs=1600)
    assert again.pair_stride == sampling.pair_stride
    assert np.array_equal(again.paired, paired)
    assert Sampling.of(tokens).paired is None
    tally = count_tokens(tokens, workers=2, sampling=sampling)
    codes = np.concatenate(units)[:: sampling.pair_stride]
    for table, first, second in (
        (tally.pairs[0][0], codes[:, :, :-1], codes[:, :, 1:]),
        (tally.pairs[1][0], codes[:, :-1], codes[:, 1:]),
    ):
        expected = np.unique((first * 2000 + second)[paired[0][first]], return_counts=True)
        keys, counts = table.entries()
        assert np.array_equal(keys, expected[0])
        assert np.array_equal(counts, expected[1])


def test_a_sample_of_pairs_gives_nearly_the_statistics_of_all(tmp_path: Path) -> None:
    values = np.random.default_rng(2)
    first = values.zipf(1.4, (400, 16, 1)).clip(max=1500) - 1
    steps = values.integers(0, 4, (400, 16, 16)).cumsum(axis=2)  # a code is its left neighbour's plus 0 to 3
    codes = (first + steps) % 1500
    tokens = open_tokens(token_folder(tmp_path, [codes], 1500))
    whole = neighbours_of(count_tokens(tokens, workers=1, sampling=Sampling.of(tokens)))
    sampled = count_tokens(tokens, workers=1, sampling=Sampling.of(tokens, pairs=40_000))
    assert sampled.sampling is not None
    assert sampled.sampling.paired is not None
    assert 30_000 < sampled.pairs[0][0].entries()[1].sum() < 50_000
    assert neighbours_of(sampled) == pytest.approx(whole, abs=0.1)
    assert whole == pytest.approx(2.0, abs=0.1)


def test_all_used_codes_of_a_collapsed_set_are_sampled(tmp_path: Path) -> None:
    codes = np.random.default_rng(11).choice([7, 300, 4000, 9000, 65535], (300, 8, 8))
    tokens = open_tokens(token_folder(tmp_path, [codes[:100], codes[100:]], 65536))
    sampling = Sampling.of(tokens, pairs=5000)
    assert sampling.paired is not None
    assert sampling.paired[0][[7, 300, 4000, 9000, 65535]].all()
    assert sampling.pair_stride == 4
    tally = count_tokens(tokens, workers=2, sampling=sampling)
    assert int(tally.pairs[0][0].entries()[1].sum()) == 75 * 8 * 7
    assert neighbours_of(tally) == pytest.approx(np.log2(5), abs=0.02)


def neighbours_of(tally: Tally) -> float:
    """H(Y | X) of right-hand neighbours."""
    from imtok.analysis.neighbours import neighbours

    assert tally.sampling is not None
    found = neighbours(tally.pairs[0], tally.counts, tally.images, tally.sampling)
    assert found is not None
    return found.conditional_entropy_corrected_bits


@pytest.mark.parametrize("empty", [1, 200])  # all 64 units of the pilot among them
def test_units_without_images_are_no_hindrance_to_a_sample(empty: int, tmp_path: Path) -> None:
    codes = np.random.default_rng(15).integers(0, 3000, (60, 4, 4))
    nothing = np.zeros((0, 4, 4), np.int64)
    tokens = open_tokens(token_folder(tmp_path, [*[nothing] * empty, codes, *[nothing] * empty], 3000))
    sampling = Sampling.of(tokens, pairs=500)
    assert sampling.paired is not None
    tally = count_tokens(tokens, workers=1, sampling=sampling)
    first = codes[:: sampling.pair_stride, :, :-1]
    assert int(tally.pairs[0][0].entries()[1].sum()) == int(sampling.paired[0][first].sum()) > 0


def test_images_and_grids_are_left_out_evenly_beyond_the_limits(tmp_path: Path) -> None:
    units = [np.random.default_rng(unit).integers(0, 9, (30, 2, 2)) for unit in range(5)]
    tokens = open_tokens(token_folder(tmp_path, units, 9))
    sampling = Sampling.of(tokens, pairs=100, codes=100, grids=50)
    assert (sampling.map_stride, sampling.pair_stride) == (6, 6)
    tally = count_tokens(tokens, workers=2, sampling=sampling)
    assert tally.kept_images()[0].tolist() == list(range(0, 150, 6))
    assert tally.pairs[0][0].entries()[1].sum() == 25 * 2
    assert 20 < sum(len(hashes) for hashes, _ in tally.hashes) < 90
    assert int(tally.counts.sum()) == 600


# What coders need


def test_the_code_length_equals_coding_token_by_token() -> None:
    from imtok.entropy import coded_bits, log_rising

    draws = np.random.default_rng(3).zipf(1.6, 500).clip(max=40) - 1
    lengths = []
    for prior in 2.0 ** np.arange(-10, 2):
        seen, bits = np.full(40, prior), 0.0
        for code in draws:
            bits -= math.log2(seen[code] / seen.sum())
            seen[code] += 1
        lengths.append(bits)
    counts = np.bincount(draws, minlength=40)
    assert coded_bits(counts) == pytest.approx(min(lengths) + math.log2(12), rel=1e-9)
    assert log_rising(0.5, 3) == pytest.approx(math.log(0.5 * 1.5 * 2.5))
    starts, steps = np.geomspace(1e-3, 1e12, 500), np.arange(500)
    ends, begins = ([math.lgamma(each) for each in values] for values in (starts + steps, starts))
    errors = log_rising(starts, steps) - np.subtract(ends, begins)
    assert (np.abs(errors) < 1e-14 * (1 + np.abs(ends) + np.abs(begins))).all()


def test_the_code_length_given_a_neighbour_can_be_reached(tmp_path: Path) -> None:
    independent = np.random.default_rng(4).integers(0, 5000, (100, 4, 4))
    statistics = analyze(token_folder(tmp_path / "a", [independent], 5000)).statistics
    assert statistics.horizontal is not None
    assert statistics.horizontal.mutual_information_bits > 5  # which is not there
    assert statistics.horizontal.coded_bits > 12.0
    assert statistics.bits.coder == "fixed"
    repeated = np.repeat(np.random.default_rng(5).integers(0, 64, (500, 4, 1)), 8, axis=2)
    statistics = analyze(token_folder(tmp_path / "b", [repeated], 64)).statistics
    assert statistics.horizontal is not None
    assert statistics.horizontal.coded_bits < 0.1
    assert statistics.bits.coder == "left neighbour"
    assert statistics.bits.coded_per_token == pytest.approx(6 / 8, abs=0.1)


@pytest.mark.parametrize(("size", "images"), [(64000, 600), (2000, 8), (2**18, 40)])
def test_an_independent_neighbour_costs_nothing(size: int, images: int, tmp_path: Path) -> None:
    from imtok.entropy import coded_bits

    codes = np.random.default_rng(14).zipf(1.4, (images, 16, 16)).clip(max=size) - 1
    statistics = analyze(token_folder(tmp_path, [codes], size)).statistics
    marginal = np.bincount(codes[:, :, 1:].reshape(-1), minlength=size)
    assert statistics.horizontal is not None
    assert statistics.horizontal.coded_bits == pytest.approx(coded_bits(marginal) / marginal.sum(), abs=0.01)


def test_several_codebooks_cost_what_each_costs(tmp_path: Path) -> None:
    values = np.random.default_rng(6)
    codes = np.stack([values.integers(0, 16, (200, 4, 4)), np.zeros((200, 4, 4), np.int64)], axis=-1)
    bits = analyze(token_folder(tmp_path, [codes], 16)).statistics.bits
    assert bits.raw_per_image == 4 * 32
    assert bits.coded_per_token == pytest.approx(2, abs=0.05)


# Classes, duplicates, errors


def test_classes_differ_by_their_own_codes(tmp_path: Path) -> None:
    values = np.random.default_rng(7)
    labels = np.array([0, 1] * 60)
    codes = values.integers(0, 8, (120, 4, 4)) + 8 * labels[:, None, None]
    codes[:, 0, 0] = 31
    folder = token_folder(tmp_path, [codes], 32, labels=[labels], class_names=("cat", "dog"))
    cat, dog = analyze(folder).statistics.classes
    assert (cat.name, dog.name, cat.images, cat.used) == ("cat", "dog", 60, 9)
    assert cat.divergence_bits == pytest.approx(15 / 16, abs=0.02)  # all but one code in sixteen are its own
    assert {code for code, _ in cat.own} < set(range(8))
    assert all(lift == pytest.approx(2) for _, lift in cat.own)


def test_duplicates_are_named(tmp_path: Path) -> None:
    codes = np.random.default_rng(8).integers(0, 99, (10, 3, 3))
    codes[7] = codes[2]
    codes[9] = codes[2]
    found = analyze(token_folder(tmp_path, [codes[:5], codes[5:]], 99)).statistics.duplicates
    assert (found.duplicates, found.groups, found.largest) == (2, 1, [["0/2", "1/2", "1/4"]])


def test_hashes_of_grids_tell_neighbours_apart() -> None:
    grids = np.zeros((64 * 9, 8, 8), np.uint16)
    for number in range(64 * 9):
        grids[number].reshape(-1)[number % 64] = 2 ** (number // 64)
    assert len(np.unique(grid_hashes(grids))) == 64 * 9


def test_what_classes_share_is_not_taken_for_a_difference(tmp_path: Path) -> None:
    values = np.random.default_rng(12)
    labels = np.array([0, 1] * 100)
    found = []
    for number in range(20):  # both use all codes evenly; the plug-in figure is 0.03
        folder = token_folder(tmp_path / f"{number}", [values.integers(0, 128, (200, 4, 4))], 128, labels=[labels])
        found.append(analyze(folder).statistics.classes[0].divergence_bits)
    assert np.mean(found) < 0.005
    apart = []
    for number in range(20):
        codes = values.integers(0, 128, (200, 4, 4)) // (1 + labels)[:, None, None]  # the second uses half of them
        folder = token_folder(tmp_path / f"apart-{number}", [codes], 128, labels=[labels])
        apart.append(analyze(folder).statistics.classes[1].divergence_bits)
    assert np.mean(apart) == pytest.approx(np.log2(4 / 3), abs=0.005)  # its codes have 2/128, in both 3/256


@pytest.mark.parametrize(("shape", "size"), [((24, 24), 2**19), ((20, 20), 2**19), ((1, 3), 9000)])
def test_blocks_hold_whole_runs(shape: tuple[int, int], size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imtok.analysis.tally._BLOCK", 700 * shape[0] * shape[1])
    codes = np.random.default_rng(13).integers(0, size, (2048, *shape)).astype(np.uint32)
    tally = Tally(shape, size, 1, Sampling(1, 1.0, 1, None))
    tally.add(0, codes[:1500], None)
    tally.add(1500, codes[1500:], None)
    expected = [len(np.unique(run)) for unit in (codes[:1500], codes[1500:]) for run in whole_runs(unit)]
    assert np.concatenate(tally.runs).tolist() == expected
    assert np.array_equal(tally.counts[0], np.bincount(codes.reshape(-1), minlength=size))


def whole_runs(unit: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    return [unit[begin : begin + 256] for begin in range(0, len(unit) - 255, 256)]


def test_a_code_out_of_range_names_its_shard(tmp_path: Path) -> None:
    units = [np.full((3, 2, 2), code) for code in (4, 200)]
    with pytest.raises(TokensError, match=r"00000001\.safetensors: code 200 is outside \[0, 100\)"):
        analyze(token_folder(tmp_path, units, 100))


def test_a_code_far_out_of_range_allocates_no_long_table(tmp_path: Path) -> None:
    units = [np.array([[[5, 2**32 - 1]]])]
    with pytest.raises(TokensError, match="code 4294967295 is outside"):
        analyze(token_folder(tmp_path, units, 70000))


def test_a_request_to_stop_ends_the_count(tmp_path: Path) -> None:
    folder = token_folder(tmp_path, [np.zeros((2, 2, 2), np.int64)], 4)
    with pytest.raises(Interrupted):
        analyze(folder, should_stop=lambda: True)


def test_a_table_of_pairs_counts_what_numpy_counts() -> None:
    values = np.random.default_rng(10)
    for size in (7, 65536, 70000, 2**31):
        first, second = (values.integers(max(0, size - 50), size, 5000) for _ in range(2))
        table = PairTable(size)
        for begin in range(0, 5000, 1000):
            table.add(first[begin : begin + 1000], second[begin : begin + 1000])
            table.entries()
        keys, counts = np.unique(
            first.astype(np.uint64) * np.uint64(size) + second.astype(np.uint64), return_counts=True
        )
        assert np.array_equal(table.entries()[0], keys)
        assert np.array_equal(table.entries()[1], counts)


def test_usage_has_textbook_values() -> None:
    usage = CodebookUsage(np.array([4, 4, 4, 4]), 0)
    assert (usage.gini, usage.perplexity, usage.normalized_perplexity, usage.expected_used) == (0, 4, 1, 4)
    assert usage.zipf_slope == pytest.approx(0)
    alone = CodebookUsage(np.array([0, 0, 0, 9]), 0)
    assert (alone.gini, alone.zipf_slope, alone.nearly_dead) == (0.75, None, 0)
    ranks = np.arange(1, 1001)
    assert CodebookUsage(10**7 // ranks, 0).zipf_slope == pytest.approx(-1, abs=0.01)
    assert CodebookUsage(np.array([1, 1, 1, 2, *[0] * 96]), 0).expected_used == 4 + 3 * 2 / (2 * 2)
    assert CodebookUsage(np.array([5, 996] + [0] * 8), 0).nearly_dead == 0
    assert CodebookUsage(np.array([1, 999]), 0).nearly_dead == 1
