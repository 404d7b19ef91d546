"""Results of evaluations as records and JSON, and which of them may stand in one table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from imtok.errors import ConfigError
from imtok.evaluation.result import (
    Result,
    beside_each_other,
    check_comparable,
    is_saved,
    read_results,
    results_to_bytes,
    tables,
)

BASE: dict[str, Any] = {
    "tokenizer": "first",
    "files_sha256": "a" * 64,
    "protocol_name": "imtok",
    "protocol": "a line",
    "images": 8,
    "images_sha256": "c" * 64,
    "skipped": 0,
    "size": 16,
    "precision": "fp32",
    "metrics": {"psnr": 25.0, "ssim": 0.5, "lpips": 0.1},
    "intervals": {"psnr": (24.0, 26.0)},
    "weights": {"lpips": "d" * 64},
    "exact": 0,
    "bits_per_image": 128.0,
    "usage": {"codebook_size": 4, "used": 3, "usage": 0.75, "perplexity": 2.5},
}


def result(**changes: Any) -> Result:
    return Result(**{**BASE, **changes})


OTHER = {"tokenizer": "second", "files_sha256": "b" * 64}


def test_saved_results_come_back_as_they_were(tmp_path: Path) -> None:
    results = [result(), result(**OTHER, metrics={"psnr": None}, encode_images_per_second=3.0)]
    (tmp_path / "results.json").write_bytes(results_to_bytes(results))
    assert read_results(tmp_path) == read_results(tmp_path / "results.json") == results
    assert is_saved(tmp_path)
    assert not is_saved(tmp_path / "none")


def test_what_eval_prints_as_json_can_be_read_back(tmp_path: Path) -> None:
    (tmp_path / "printed.json").write_text(json.dumps(result().as_dict(times=False)))
    assert read_results(tmp_path / "printed.json") == [result()]


def test_json_keeps_its_keys_and_gains_others() -> None:
    content = result().as_dict(times=False)
    assert list(content)[:8] == ["images", "skipped", "size", "precision", "psnr", "exact", "ssim", "lpips"]
    assert list(content)[-1] == "protocol"
    assert (content["protocol"], content["protocol_name"], content["usage"]) == ("a line", "imtok", 0.75)
    assert "encode_images_per_second" not in content


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol_name": "adm"}, "first has protocol imtok, second has adm"),
        ({"size": 32}, "first has size 16, second has 32"),
        ({"precision": "bf16"}, "first has precision fp32, second has bf16"),
        ({"images": 9}, "first has number of images 8, second has 9"),
        ({"images_sha256": "e" * 64}, "first has images cccccccccccc, second has eeeeeeeeeeee"),
        ({"weights": {"lpips": "f" * 64}}, "first has weights of LPIPS dddddddddddd, second has ffffffffffff"),
        ({"ranks": 8}, "first has ranks 1, second has 8"),
    ],
)
def test_what_differs_is_refused_in_one_table_with_both_named(changes: dict[str, Any], message: str) -> None:
    check_comparable([result(), result(**OTHER)])
    with pytest.raises(ConfigError, match=message):
        check_comparable([result(), result(**OTHER, **changes)])


def test_one_tokenizer_under_several_protocols_is_one_table() -> None:
    several = [result(), result(protocol_name="adm"), result(protocol_name="var", size=16)]
    assert tables(several) == [several]


def test_several_tokenizers_have_a_table_for_each_protocol() -> None:
    results = [result(**tokenizer, protocol_name=name) for name in ("imtok", "adm") for tokenizer in ({}, OTHER)]
    assert tables(results) == [results[:2], results[2:]]


def test_a_saved_result_of_what_was_measured_stands_once() -> None:
    measured, other = result(exact=1), result(**OTHER)
    assert beside_each_other([measured], [result(), other]) == [measured, other]


def test_saved_results_of_another_protocol_are_refused(tmp_path: Path) -> None:
    saved = result(**OTHER, protocol_name="titok")
    with pytest.raises(ConfigError, match="first has protocol imtok, second has titok"):
        tables([result(), saved])


def test_a_file_that_holds_no_results_is_refused(tmp_path: Path) -> None:
    for content in (b"{", b"[]", b'{"a": 1}', b'{"results": [{"images": 1}]}'):
        (tmp_path / "x.json").write_bytes(content)
        with pytest.raises(ConfigError, match=r"x\.json: holds no results of imtok eval"):
            read_results(tmp_path / "x.json")
