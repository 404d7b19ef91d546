"""datatrove's `.ds`: read back by its `DatatroveFileDataset`, and by a reader of the layout alone."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from exporting import export_and_read, random_tokens
from flat_exports import assert_read, export, ids_of, plan_of

from imtok.errors import TokensError
from imtok.export.formats.datatrove import Datatrove, metric
from imtok.export.verification import verify_export


@pytest.mark.parametrize(("dtype", "num_ids"), [("uint16", 1 << 16), ("uint32", 1 << 20)])
@pytest.mark.parametrize("crops", [1, 2])
def test_datatrove_reads_every_image(tmp_path: Path, dtype: str, num_ids: int, crops: int) -> None:
    pytest.importorskip("datatrove", reason="datatrove is not installed")
    plan = plan_of(7, 3, dtype=dtype, num_ids=num_ids, crops=crops, shard_size=4)
    pieces = export(Datatrove, plan, tmp_path)
    assert_read(Datatrove().read_by_library(pieces, plan, tmp_path), pieces, plan)


@pytest.fixture
def dataset() -> ModuleType:
    """The module of datatrove's data sets, where it has positions."""
    module = pytest.importorskip("datatrove.utils.dataset", reason="datatrove is not installed")
    if "return_positions" not in inspect.signature(module.DatatroveFileDataset).parameters:
        pytest.skip("datatrove before 0.5 has no positions, and takes patterns of whole paths")
    return module


def test_folder_of_a_split_is_read_in_order(tmp_path: Path, dataset: ModuleType) -> None:
    """A window holds seq + 1 ids: with seq = T - 1 each is an image."""
    plan = plan_of(7, 3, shard_size=4)
    pieces = export(Datatrove, plan, tmp_path)
    windows = dataset.DatatroveFolderDataset(str(tmp_path / "train"), plan.ids_per_image - 1, filename_pattern="*.ds")
    expected = np.concatenate([ids_of(piece, plan) for piece in pieces if piece.split == "train"])[:, 0]
    np.testing.assert_array_equal([windows[index]["input_ids"] for index in range(len(windows))], expected)


def test_index_gives_positions_within_images(tmp_path: Path, dataset: ModuleType) -> None:
    export(Datatrove, plan_of(5), tmp_path)
    windows = dataset.DatatroveFileDataset(str(tmp_path / "train/000000.ds"), 8, return_positions=True)  # 9 ids of 6
    assert windows[0]["positions"].tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2]


def test_images_come_back_without_the_library(tmp_path: Path) -> None:
    plan = plan_of(7, 3, crops=2, shard_size=4)
    pieces = export(Datatrove, plan, tmp_path)
    assert_read(Datatrove().read(pieces, plan, tmp_path), pieces, plan)


def test_index_holds_ends_of_images(tmp_path: Path) -> None:
    plan = plan_of(3, crops=2)
    export(Datatrove, plan, tmp_path)
    assert np.fromfile(tmp_path / "train/000000.ds.index", "<u8").tolist() == [6, 12, 18, 24, 30, 36]


def test_metadata_names_tokenizer_type_and_count(tmp_path: Path) -> None:
    """nanotron splits the first line at its only bar."""
    plan = plan_of(300, ids=64, dtype="uint32")
    export(Datatrove, plan, tmp_path)
    lines = (tmp_path / "train/000000.ds.metadata").read_text().split("\n")
    assert lines == [f"imtok:{plan.info.fingerprint}|4", "19200", "19.2 kT"]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0.00 T"), (7, "7.00 T"), (48, "48.0 T"), (999, "999 T"), (1234, "1.23 kT"), (999_999, "1.00 MT"),
     (25_600_000, "25.6 MT"), (123_456_789_012, "123 GT"), (3 * 10**15, "3.00 PT")],
)  # fmt: skip
def test_counts_are_written_as_datatrove_does(count: int, text: str) -> None:
    assert metric(count, "T") == text
    humanize = pytest.importorskip("humanize", reason="datatrove's humanize is not installed")
    assert humanize.metric(count, unit="T") == text


@pytest.mark.parametrize("suffix", [".ds", ".ds.index", ".ds.metadata"])
def test_damaged_files_are_refused(tmp_path: Path, suffix: str) -> None:
    plan = plan_of(5)
    pieces = export(Datatrove, plan, tmp_path)
    path = tmp_path / f"train/000000{suffix}"
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(TokensError, match=path.name.replace(".", r"\.")):
        list(Datatrove().read(pieces, plan, tmp_path))
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    if suffix != ".ds":  # other ids are found by comparing them with the token set
        with pytest.raises(TokensError, match=path.name.replace(".", r"\.")):
            list(Datatrove().read(pieces, plan, tmp_path))


def test_trainer_is_given_the_length_of_an_image() -> None:
    assert "seq_len=5, token_size=2)" in Datatrove().trainer_note(plan_of(5))


def test_order_of_inputs_is_pointed_out() -> None:
    """datatrove and nanotron read windows in the order of the files."""
    assert "--shuffle" in Datatrove().trainer_note(plan_of(5))
    assert "--shuffle" not in Datatrove().trainer_note(plan_of(5, shuffle=0))


def test_verification_compares_every_image(tmp_path: Path) -> None:
    tokens = random_tokens(tmp_path / "tokens", units=(9, 7), codebooks=2, classes=5)
    options = {"offset": 7, "boi": 1, "eol": 2, "eod": 3, "label": "before", "shuffle": 5, "val_fraction": 0.4}
    folder, plan, _, _ = export_and_read(tokens, "datatrove", tmp_path, shard_size=4, **options)
    assert set(plan.images) == {"train", "val"}
    result = verify_export(folder, tokens)
    assert (result.images, result.problems) == (16, [])
