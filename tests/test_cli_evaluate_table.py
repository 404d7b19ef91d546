"""Tables of `imtok eval`: what stands in them, and that they fit the terminal."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from imtok.cli.evaluate import _facts
from imtok.cli.evaluate_table import print_tables
from imtok.evaluation.result import Result
from imtok.usage import CodebookUsage


def result(tokenizer: str, protocol: str = "imtok", **others: Any) -> Result:
    usage = CodebookUsage.of_codebooks(np.array([[3, 1, 0, 4]]), 2).as_dict()
    facts: dict[str, Any] = {
        "metrics": {"psnr": 25.941, "ssim": 0.72846},
        "intervals": {"psnr": (25.0, 27.0)},
        "usage": usage,
        "bits_per_image": 16.0,
        "coded_bits_per_image": 11.264,
        "exact": 0,
        "size": 8,
    }
    return Result(
        tokenizer=tokenizer,
        protocol_name=protocol,
        protocol=f"{protocol}: as it is",
        images=2,
        skipped=0,
        precision="fp32",
        **{**facts, **others},
    )


def printed(results: list[Result], *, width: int | None = None, by_protocol: bool = False) -> list[list[str]]:
    """Return the words of each line that is not a rule, as a terminal of this width shows them or a pipe."""
    stream = io.StringIO()
    console = Console(file=stream, width=width or 80, height=50, force_terminal=width is not None, color_system=None)
    print_tables(console, results, by_protocol=by_protocol)
    lines = stream.getvalue().splitlines()
    assert all(len(line.rstrip()) <= (width or 1000) for line in lines)
    return [line.split() for line in lines if line.strip() and "─" not in line]


def test_tokenizers_stand_below_each_other_with_their_codes() -> None:
    rows = printed([result("one"), result("two", metrics={"psnr": None, "ssim": 1.0}, intervals={})])
    assert rows[0] == ["bytes/image", "PSNR", "dB", "SSIM"]
    assert rows[1] == ["one", "2", "25.94", "±1.00", "0.7285"]
    assert rows[2] == ["two", "2", "exact", "1.0000"]
    assert rows[4][:6] == ["one", "0.250", "0.176", "3", "of", "4"]


def test_a_codec_has_no_codes_and_a_dash_without_value() -> None:
    rows = printed([result("one"), result("WebP", usage={}, metrics={"psnr": 20.0}, intervals={}, bits_per_image=15.2)])
    assert rows[2] == ["WebP", "2", "20.00", "-"]
    assert [row[0] for row in rows[3:]] == ["bits/pixel", "one"]


def test_protocols_of_one_tokenizer_end_with_the_range() -> None:
    rows = printed(
        [result("one", name, metrics={"psnr": value}) for name, value in (("imtok", 25.0), ("adm", 26.5))],
        by_protocol=True,
    )
    assert [row[0] for row in rows[:4]] == ["protocol", "imtok", "adm", "range"]
    assert rows[3] == ["range", "1.50"]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_table_is_cut_where_the_terminal_is_narrow(width: int) -> None:
    metrics = dict.fromkeys(["psnr", "ssim", "ms_ssim", "lpips", "lpips_alex", "rfid"], 0.5)
    wide = [result(name, metrics=metrics) for name in ("one", "two")]
    words = [word for row in printed(wide, width=width) for word in row]
    assert {"MS-SSIM", "rFID", "perplexity", "SSIM"} <= set(words)
    assert (words.count("one") > 2) == (width <= 60)


def test_a_pipe_receives_every_character_of_a_wide_table() -> None:
    metrics = dict.fromkeys(["psnr", "ssim", "ms_ssim", "lpips", "lpips_alex", "rfid"], 0.5)
    rows = printed([result("runs/a_long_name/of_a_tokenizer", metrics=metrics), result("two")])
    assert not any("…" in word for row in rows for word in row)
    assert rows[3] == ["bits/pixel", "coded", "codes", "used", "perplexity", "encode/s", "decode/s"]
    assert len(rows) == 6


def test_intervals_give_way_before_a_table_is_cut() -> None:
    both = [result("one"), result("two")]
    assert any("±1.00" in row for row in printed(both, width=80))
    assert not any("±1.00" in row for row in printed(both, width=32))


def test_a_long_name_keeps_its_ends() -> None:
    rows = printed([result("runs/" + "x" * 60 + "/best"), result("two")], width=100)
    assert rows[1][0].startswith("runs/xx")
    assert rows[1][0].endswith("xx/best")
    assert len(rows[1][0]) == 32


def test_a_result_that_all_metrics_refuse_still_has_its_codes() -> None:
    facts = _facts(result("a", metrics={}, intervals={}, refused={"rfid": "needs 2,048 images"}, exact=1))
    assert list(facts) == ["images", "bits per image", "codes used", "perplexity"]
    assert _facts(result("a", exact=1))["PSNR"].endswith("1 image exact")
