"""Diagnostics: which statistics give which findings and suggestions; a healthy codebook has none."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from statistics_example import example

import imtok.analysis.diagnostics as diagnostics
from imtok.analysis.diagnostics import findings, suggest, usage_findings
from imtok.analysis.statistics import Duplicates, Finding, Pass, Perturbation, Statistics
from imtok.config import load_train_config, merge, parse_settings
from imtok.quantizer_config import (
    BSQConfig,
    FSQConfig,
    GumbelConfig,
    LFQConfig,
    ProductConfig,
    QuantizerConfig,
    ResidualConfig,
    VQConfig,
)
from imtok.usage import CodebookUsage

VQ = VQConfig(num_codes=1024)
FSQ = FSQConfig(levels=(8, 5, 5, 5))
PAGE = Path(__file__).parents[1] / "docs" / "collapse.md"


def usage(counts: Any, images: int = 0) -> CodebookUsage:
    return CodebookUsage(np.array(counts, dtype=np.int64), images)


def several(*counts: Any) -> CodebookUsage:
    return CodebookUsage.of_codebooks(np.array(counts, dtype=np.int64), 0)


def statistics_of(used: CodebookUsage, **changes: Any) -> Statistics:
    """The example's figures with the codes used so; coded in as many bits as they have."""
    use = used.as_use()
    bits = example().bits.model_copy(
        update={"raw_per_token": used.max_bits, "coded_per_token": used.max_bits, "coded_per_image": 1000.0}
    )
    values = use.model_dump() | {
        "codebook_size": used.codebook_size,
        "max_bits": used.max_bits,
        "num_codebooks": len(used.codebooks),
        "codebooks": [each.as_use() for each in used.codebooks],
        "top": used.top(8),
        "bits": bits,
    }
    return changed_example(**values | changes)


def changed_example(**changes: Any) -> Statistics:
    return example().model_copy(update=changes)


# Counts that fit the example's tokens, used, dead and nearly dead codes and its most used one.
EXAMPLE = [260] * 17 + [4100] + [260] * 494 + [261] * 456 + [2] * 12 + [0] * 44


def findings_of_example(statistics: Statistics, config: QuantizerConfig | None) -> list[Finding]:
    """Where only figures beyond the use of codes are changed."""
    return findings(statistics, several(*[EXAMPLE] * statistics.num_codebooks), config)


def names(found: list[Finding]) -> list[str]:
    return [finding.name for finding in found]


def drawn(shares: Any, tokens: int) -> Any:
    return np.random.default_rng(0).multinomial(tokens, np.array(shares) / np.sum(shares))


def test_counts_of_the_example_fit_its_statistics() -> None:
    statistics, counted = example(), usage(EXAMPLE)
    for name in ("tokens", "used", "dead", "nearly_dead", "codebook_size"):
        assert getattr(counted, name) == getattr(statistics, name)
    assert counted.top(1) == statistics.top[:1]


def test_a_healthy_codebook_has_no_findings() -> None:
    for config in (VQ, FSQ, None):
        assert findings_of_example(example(), config) == []
        assert findings_of_example(example(tokenizer=False), config) == []
        assert usage_findings(usage([10] * 1024), config) == []


def test_an_empty_or_tiny_set_has_no_diagnosis() -> None:
    assert usage_findings(usage([0] * 64), VQ) == []
    (few,) = usage_findings(usage([99] + [0] * 63), VQ)  # one picture of one colour
    assert (few.name, few.grade) == ("too-few-tokens", "hint")
    assert few.text == "99 tokens are too few to assess a codebook; 100 are needed"
    empty = usage([0] * 64)
    assert findings(statistics_of(empty, images=0, skipped=0, dimensions=[]), empty, VQ) == []


# Healthy ones use their codes as in the study of docs/quantizers.md.
USED: dict[str, tuple[Any, QuantizerConfig | None, list[str]]] = {
    "k-means and revival": ([125] * 1016 + [0] * 8, VQ, []),
    "a grid whose corners are not reached": ([40] * 3000 + [0] * 1096, FSQ, []),
    "58,000 of 64,000 codes on 600 photographs": (drawn(np.arange(64_000) ** 0.5, 614_400), FSQ, []),
    "uneven as words are": (1 + drawn(1 / np.arange(1, 1025), 100_000), VQ, []),
    "one code": ([5000] + [0] * 1023, VQ, ["collapsed-codebook"]),
    "one code of a grid": ([5000] + [0] * 999, FSQ, ["collapsed-codebook"]),
    "a young grid": ([100] * 6 + [0] * 94, FSQ, ["too-few-tokens"]),
    "one code, the others by accident": ([100_000] + [3] * 1023, VQ, ["collapsed-codebook"]),
    "as many as so few tokens can use": ([1] * 120 + [0] * 904, VQ, ["too-few-tokens"]),
    "few of what so few tokens can use": ([20] * 10 + [0] * 1014, VQ, ["collapsed-codebook"]),
    "without a configuration": ([100] * 86 + [0] * 938, None, ["collapsed-codebook"]),
    "a part is dead": ([40] * 612 + [0] * 412, VQ, ["dead-codes"]),
    "most of a grid is dead": ([40] * 400 + [0] * 600, FSQ, ["dead-codes"]),
    "codes that would come with more images": ([60] * 700 + [1] * 200 + [2] * 9 + [0] * 115, VQ, []),
    "many nearly dead": ([1000] * 800 + [2] * 224, VQ, ["nearly-dead-codes"]),
    "one code rules": ([500] + [1] * 1023, VQ, ["dominant-code"]),
    "somewhat uneven": ([10_000] * 30 + [120] * 994, VQ, []),
    "uneven": ([100_000] * 20 + [700] * 1004, VQ, ["uneven-use"]),
    "a small codebook, as even as can be": ([500] * 4, VQConfig(num_codes=4), []),
    "a small codebook, uneven": ([900, 300, 300, 300], VQConfig(num_codes=4), []),
}


@pytest.mark.parametrize("case", USED)
def test_counts_alone_give_the_findings_of_all_statistics(case: str) -> None:
    counts, config, expected = USED[case]
    assert names(usage_findings(usage(counts), config)) == expected
    used = usage(counts, 1000)
    of_figures = findings(statistics_of(used, tokenizer=None, dimensions=[]), used, config)
    assert names(of_figures) == expected
    assert [each.text for each in of_figures] == [each.text for each in usage_findings(used, config)]


def test_a_finding_names_number_threshold_and_suggestion() -> None:
    plain = VQConfig(num_codes=1024, kmeans_start=False, revival_threshold=0)
    (found,) = usage_findings(usage([67] * 603 + [1] * 8 + [2] + [0] * 412), plain)
    assert found.text == (
        "412 of 1,024 codes are never used at 39 tokens per code (10% or more is waste), and more images would add "
        "about 14; start a new run with --set quantizer.kmeans_start=true --set quantizer.revival_threshold=0.05; or "
        "with fewer codes (quantizer.num_codes); or with FSQ of 1000 codes: "
        '--set "quantizer={kind: fsq, levels: [8,5,5,5]}"'
    )
    assert (found.grade, found.page) == ("warning", "docs/collapse.md#dead-codes")
    (found,) = usage_findings(usage([900] + [0] * 1023), plain)
    assert found.text.startswith("collapsed to 1 of 1,024 codes in use (10% or less counts as collapse)")
    (found,) = usage_findings(usage([3] * 100 + [0] * 924, images=20), plain)
    assert found.text.endswith("; count about 683 images, for 10 tokens per code")
    (found,) = usage_findings(usage([1] * 17 + [500] + [1] * 1006), plain)
    assert found.text.startswith("code 17 alone makes up 32.8% of the tokens (reported above 20%)")


PART = VQConfig(num_codes=100)
EVEN, ONE = [10] * 100, [1000] + [0] * 99


def test_one_collapsed_codebook_of_several_is_found() -> None:
    used = several(EVEN, ONE, EVEN)
    for found in (usage_findings(used, ProductConfig(heads=3, part=PART)), usage_findings(used, None)):
        assert names(found) == ["collapsed-stage"]
        assert found[0].text.startswith("codebook 2 of 3: collapsed to 1 of 100 codes in use")
    config = ResidualConfig(depth=3, part=PART)
    (found,) = findings(statistics_of(used, tokenizer=None, dimensions=[]), used, config)
    assert '--set "quantizer.part={kind: fsq, levels: [8,6,5]}"' in found.text
    assert found.text.endswith("; or with fewer stages (quantizer.depth)")
    assert names(usage_findings(several(ONE, ONE), None)) == ["collapsed-codebook"]
    (found,) = usage_findings(several([50] * 80 + [0] * 20, EVEN, [50] * 60 + [0] * 40), config)
    assert found.text.startswith("2 of 3 codebooks, worst in codebook 3: 40 of 100 codes are never used")


def test_a_dominant_code_in_one_of_several_codebooks_is_found() -> None:
    used = several(EVEN, [10] * 40 + [500] + [10] * 59, EVEN)
    statistics = statistics_of(used, tokenizer=None, dimensions=[])
    assert statistics.top[0][1] < 0.2 * statistics.tokens  # over all codebooks it is not seen
    for config in (ProductConfig(heads=3, part=PART), ResidualConfig(depth=3, part=PART), None):
        (found,) = findings(statistics, used, config)
        assert (found.name, found.grade) == ("dominant-code", "warning")
        assert found.text.startswith("codebook 2 of 3: code 40 alone makes up 33.6% of the tokens (reported above 20%)")


def test_a_shared_codebook_is_diagnosed_on_all_its_uses() -> None:
    shared = ResidualConfig(depth=2, part=PART, shared=True)
    same_half = several(*[[60] * 50 + [0] * 50] * 2)
    found = findings(statistics_of(same_half, tokenizer=None, dimensions=[]), same_half, shared)
    assert names(found) == ["dead-codes"]
    assert found[0].text.startswith("50 of 100 codes are never used at 60 tokens per code")


def test_each_use_of_a_shared_codebook_may_be_partial() -> None:
    used = several([60] * 40 + [0] * 60, [0] * 60 + [60] * 40, [0] * 40 + [60] * 20 + [0] * 40)
    shared = ResidualConfig(depth=3, part=PART, shared=True)
    assert usage_findings(used, shared) == []
    assert findings(statistics_of(used, tokenizer=None, dimensions=[]), used, shared) == []
    assert names(usage_findings(used, shared.model_copy(update={"shared": False}))) == ["dead-codes"]
    nested = ProductConfig(heads=2, part=ResidualConfig(depth=2, part=PART, shared=True))
    halves = several(*[[30] * 50 + [0] * 50, [0] * 50 + [30] * 50] * 2)
    assert usage_findings(halves, nested) == []
    assert findings(statistics_of(halves, tokenizer=None, dimensions=[]), halves, nested) == []


@pytest.mark.parametrize(
    ("config", "expected", "not_expected"),
    [
        (FSQ, ["learning_rate", "quantizer.levels"], ["kmeans", "estimator", "num_codes"]),
        (LFQConfig(), ["quantizer.entropy_weight", "quantizer.dim"], ["kmeans", "num_codes"]),
        (BSQConfig(), ["quantizer.entropy_weight"], ["num_codes"]),
        (GumbelConfig(), ["quantizer.kl_weight", "quantizer.num_codes"], ["kmeans"]),
        (VQConfig(), ["num_codes", "fsq"], ["kmeans", "revival_threshold", "rotation", "steps"]),
        (VQConfig(kmeans_start=False), ["kmeans_start=true"], ["revival_threshold"]),
        (VQConfig(revival_threshold=0), ["revival_threshold=0.05"], ["kmeans", "steps"]),
        (VQConfig(codebook_update="projection"), ["entropy_weight=0.05", "fsq"], ["kmeans", "revival"]),
        (VQConfig(codebook_update="frozen"), ["codebook_update=projection"], ["kmeans", "entropy"]),
        (VQConfig(estimator="index_propagation"), ["entropy_weight"], ["rotation", "kmeans", "revival"]),
        (VQConfig(online_clustering=True), ["entropy_weight", "num_codes"], ["kmeans", "revival"]),
        (VQConfig(codebook_update="gradient", dim=64, entropy_weight=1), ["metric=cosine", "dim=8"], ["entropy"]),
        (ResidualConfig(part=VQConfig()), ["quantizer.part.num_codes"], ["quantizer.num_codes"]),
        (None, ["k-means", "revival"], ["--set"]),
    ],
)
def test_suggestions_are_settings_of_the_quantizer_not_yet_made(
    config: QuantizerConfig | None, expected: list[str], not_expected: list[str]
) -> None:
    counts = [[1000] + [0] * 1023] * (len(config.codebook_ids) if config else 1)
    (found,) = usage_findings(several(*counts), config)
    assert all(words in found.text for words in expected)
    assert not any(words in found.text for words in not_expected)


@pytest.mark.parametrize("codes", [64, 256, 1000, 1024, 4096, 16384, 65536])
@pytest.mark.parametrize("nested", [False, True])
def test_suggested_settings_can_be_pasted_into_a_shell(codes: int, nested: bool) -> None:
    part = VQConfig(num_codes=codes, kmeans_start=False, revival_threshold=0)
    quantizer = ResidualConfig(depth=2, part=part) if nested else part
    run = yaml.safe_load(load_train_config({"quantizer": quantizer.model_dump(mode="json")}).to_yaml())

    def taken(suggestion: str) -> Any:
        words = shlex.split(suggestion)
        settings = [value for word, value in pairwise(words) if word == "--set"]
        return load_train_config(merge(run, parse_settings(settings))).tokenizer.quantizer.base

    both, _, fsq = suggest("unused codes", quantizer).removeprefix("start a new run with ").split("; or with ")
    assert set(shlex.split(both)[::2]) == {"--set"}
    assert taken(both) == VQConfig(num_codes=codes)
    assert isinstance(taken(fsq), FSQConfig)
    assert f"FSQ of {taken(fsq).num_codes} codes" in fsq
    assert codes < 256 or 0.9 < taken(fsq).num_codes / codes < 1.1


def changed_tokenizer(field: str, **changes: Any) -> dict[str, Any]:
    """Keywords for `changed_example` that change parts of the tokenizer's figures."""
    statistics = example().tokenizer
    assert statistics is not None
    part = getattr(statistics, field)
    new = [part[0].model_copy(update=changes)] if isinstance(part, list) else part.model_copy(update=changes)
    return {"tokenizer": statistics.model_copy(update={field: new})}


def dimension(entropy: float) -> dict[str, Any]:
    first, *others = example().dimensions
    return {"dimensions": [*others, first.model_copy(update={"entropy_bits": entropy})]}


def bits(**changes: float) -> dict[str, Any]:
    return {"bits": example().bits.model_copy(update=changes)}


def same(count: int, of: int = 1000) -> dict[str, Any]:
    return {"duplicates": Duplicates(images=of, duplicates=count, groups=1, largest=[])}


def shifted(name: str, share: float) -> dict[str, Any]:
    return changed_tokenizer(
        "sensitivity",
        disturbances=[Perturbation(name=name, changed=share, psnr=30.0, most_changed=[], least_changed=[])],
    )


def first_pass(share: float) -> dict[str, Any]:
    return changed_tokenizer("idempotence", passes=[Pass(same_as_first=share, same_as_last=share, psnr=30.0)])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"skipped": 9}, []),
        ({"skipped": 30}, ["skipped-inputs"]),
        (dimension(0.31), []),
        (dimension(0.29), ["idle-dimension"]),
        (same(49), []),
        (same(60), ["duplicate-images"]),
        (same(60) | bits(coded_per_image=14.0), []),  # 1000 images of 14 bits have doubles by chance
        (bits(coded_per_token=6.1), []),
        (bits(coded_per_token=5.9), ["compressible-tokens"]),
        (changed_tokenizer("geometry", near_duplicates=51), []),
        (changed_tokenizer("geometry", near_duplicates=60), ["near-duplicate-codes"]),
        (changed_tokenizer("geometry", near_duplicates=600, effective_rank_used=1.0, fixed=True), []),
        (changed_tokenizer("geometry", effective_rank_used=4.1), []),
        (changed_tokenizer("geometry", effective_rank_used=3.9), ["low-rank-codebook"]),
        (changed_tokenizer("geometry", effective_rank_used=0.9, dim=8), []),
        (first_pass(0.51), []),
        (first_pass(0.49), ["unstable-tokens"]),
        (shifted("shift right by 1 pixel", 0.9), []),
        (shifted("shift right by 1 pixel", 0.96), ["sensitive-tokens"]),
        (shifted("JPEG quality 95", 0.6), ["sensitive-tokens"]),
        (shifted("JPEG quality 75", 0.6), []),
    ],
)
def test_statistics_beyond_counts_have_thresholds(changes: dict[str, Any], expected: list[str]) -> None:
    found = findings_of_example(changed_example(**changes), VQ)
    assert names(found) == expected
    assert all(finding.page.endswith(f"#{finding.name}") for finding in found)


def test_findings_beyond_counts_name_setting_and_codebook() -> None:
    narrow = changed_example(**changed_tokenizer("geometry", effective_rank_used=3.0))
    (found,) = findings_of_example(narrow, VQConfig(dim=32))
    assert "start a new run with --set quantizer.dim=8; it" in found.text
    two = {"num_codebooks": 2, "codebooks": example().codebooks * 2}
    (found,) = findings_of_example(changed_example(**dimension(0.1), **two), None)
    assert "1 of 4 dimensions nearly constant: dimension 1 of codebook 1 carries 0.10 of its 3.00 bits" in found.text
    assert found.text.endswith("start a new run with one dimension fewer")


def test_only_the_worst_of_several_codebooks_is_reported() -> None:
    statistics = example().tokenizer
    assert statistics is not None
    (one,) = statistics.geometry
    twins, ranks = [0, 60, 90, 60], [9.0, 3.0, 3.5, 9.0]
    tables = [
        one.model_copy(update={"codebook": number, "near_duplicates": near, "effective_rank_used": rank})
        for number, (near, rank) in enumerate(zip(twins, ranks, strict=True))
    ]
    changes = {"tokenizer": statistics.model_copy(update={"geometry": tables}), "num_codebooks": 4}
    found = findings_of_example(changed_example(**changes, codebooks=example().codebooks * 4), None)
    assert names(found) == ["near-duplicate-codes", "low-rank-codebook"]
    assert found[0].text.startswith("3 of 4 codebooks, worst in codebook 3: 90 of 1,024 codes nearly coincide")
    assert found[1].text.startswith(
        "2 of 4 codebooks, worst in codebook 2: the codes have 32 channels but an effective"
    )


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, "fewer codes"),
        (FSQ, "fewer codes (quantizer.levels)"),
        (LFQConfig(), "fewer codes (quantizer.dim)"),
        (ProductConfig(part=GumbelConfig()), "fewer codes (quantizer.part.num_codes)"),
    ],
)
def test_a_smaller_codebook_is_suggested_by_its_setting(config: QuantizerConfig | None, expected: str) -> None:
    one = {"num_codebooks": len(config.codebook_ids) if config else 1}
    statistics = changed_example(**bits(coded_per_token=4.0), **one)
    codebooks = {"codebooks": statistics.codebooks * statistics.num_codebooks}
    (found,) = findings_of_example(statistics.model_copy(update=codebooks), config)
    assert found.text == (
        f"an adaptive coder stores these tokens in 4.00 of 10 bits each (reported below 60%); a coarser grid or "
        f"{expected} would carry nearly as much"
    )


def test_the_worst_comes_first_and_a_collapse_hides_its_effects() -> None:
    broken = same(900) | dimension(0.0) | first_pass(0.1)
    collapsed, dead = usage([9000] + [0] * 999), usage([40] * 612 + [0] * 412)
    found = findings(statistics_of(collapsed, skipped=400, **broken), collapsed, FSQ)
    assert names(found) == ["collapsed-codebook", "skipped-inputs"]
    found = findings(statistics_of(dead, **first_pass(0.1)), dead, VQ)
    assert [(each.name, each.grade) for each in found] == [("dead-codes", "warning"), ("unstable-tokens", "hint")]


def test_findings_and_headings_in_the_docs_agree() -> None:
    source = Path(diagnostics.__file__).read_text()
    known = set(re.findall(r'(?:_finding|Diagnosis)\(\s*"([a-z-]+)"', source)) | {"collapsed-stage"}
    assert {"collapsed-codebook", "dead-codes", "idle-dimension", "sensitive-tokens"} < known
    headings = set(re.findall(r"^### ([a-z-]+)$", PAGE.read_text(), flags=re.MULTILINE))
    assert headings == known
