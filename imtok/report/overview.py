"""What stands first in a report: the verdict, the advice, and the main figures as tiles."""

# Axes: K codes, Q codebooks, h x w grid of an image's codes.

from __future__ import annotations

import re

from imtok.analysis.formatting import headline, several, unseen, worst
from imtok.analysis.statistics import Statistics
from imtok.analysis.verdict import by_severity, verdict
from imtok.evaluation import METRICS
from imtok.report.markup import Markup, element, joined
from imtok.report.style import number, percent


def facts(statistics: Statistics) -> list[str]:
    """What the tokens are, each fact in a few words."""
    rows, columns = statistics.grid
    several = f" × {statistics.num_codebooks} codebooks" if statistics.num_codebooks > 1 else ""
    return [
        *([statistics.quantizer] if statistics.quantizer else []),
        f"{counted(statistics.images, 'image')} of {statistics.size} px",
        *([f"{number(statistics.skipped)} skipped"] if statistics.skipped else []),
        f"{rows} × {columns} grid{several}",
        f"{number(statistics.codebook_size)} codes",
        f"{counted(statistics.tokens, 'token')}",
    ]


def header(statistics: Statistics) -> Markup:
    """Name, facts and verdict."""
    judged = verdict(statistics)
    page = element("small", "More in ", element("code", judged.finding.page)) if judged.finding is not None else None
    return joined(
        element("p", "imtok stats", class_="eyebrow"),
        element("h1", statistics.name),
        element("p", *(element("span", fact) for fact in facts(statistics)), class_="facts"),
        element(
            "p",
            element("strong", judged.word),
            element("span", _advice(judged.text), page),
            class_=f"verdict {judged.grade}",
        ),
    )


def findings(statistics: Statistics) -> Markup | None:
    """The advice beside that of the verdict, the worst first; None where there is none."""
    rest = [each for each in by_severity(statistics.findings) if each is not verdict(statistics).finding]
    if not rest:
        return None
    return element(
        "ul",
        *(
            element(
                "li",
                element("h3", f"{each.grade.capitalize()}: {each.name.replace('-', ' ')}"),
                element("p", _advice(each.text)),
                element("p", "More in ", element("code", each.page)),
                class_=f"finding {each.grade}",
            )
            for each in rest
        ),
        class_="findings",
    )


def _advice(text: str) -> Markup:
    """A finding's text, in which a browser does not break `--set` after its hyphens."""
    words = re.split(r"(--set\b)", text)
    return joined(*(element("span", word, class_="command") if word == "--set" else word for word in words))


def tiles(statistics: Statistics) -> Markup:
    """The main figures, eight of them."""
    bits, size, head = statistics.bits, number(statistics.codebook_size), headline(statistics)
    expected = f"of {number(statistics.max_bits, 2)}; {number(head.entropy_corrected_bits, 2)} bias-corrected"
    made = [
        _tile(
            "Usage",
            percent(head.usage),
            "",
            f"{number(head.used)} of {size} codes{_several(statistics)}{_worst(statistics, 'usage', 'least')}",
            head.usage,
        ),
        _tile(
            "Perplexity",
            number(head.perplexity, 0 if head.perplexity >= 100 else 1),
            "",
            f"{percent(head.normalized_perplexity)} of {size}{_worst(statistics, 'normalized_perplexity', 'least')}",
            head.normalized_perplexity,
        ),
        _tile(
            "Entropy",
            number(head.entropy_bits, 2),
            "bits",
            expected + _worst(statistics, "entropy_bits", "least"),
            head.entropy_bits / statistics.max_bits if statistics.max_bits else 0.0,
        ),
        _tile(
            "Dead codes",
            number(head.dead),
            "",
            unseen(statistics)
            or f"and {number(head.nearly_dead)} nearly dead{_several(statistics)}{_worst(statistics, 'dead', 'most')}",
        ),
        _tile("Bits an image", number(bits.raw_per_image), "raw", f"{number(bits.raw_per_pixel, 3)} a pixel"),
        _tile(
            "Coded",
            number(bits.coded_per_image),
            "bits",
            f"{number(bits.coded_per_pixel, 3)} a pixel, by {_coder(bits.coder)}",
            bits.coded_per_image / bits.raw_per_image if bits.raw_per_image else 0.0,
        ),
    ]
    made += [_runs(statistics), _quality(statistics)]
    return element("div", *made, class_="tiles")


def _several(statistics: Statistics) -> str:
    return f", mean of {len(statistics.codebooks)} codebooks" if several(statistics) else ""


def _worst(statistics: Statistics, name: str, which: str) -> str:
    """Which codebook has the least or the most of a figure, where there are several."""
    found = worst(statistics, name)
    if found is None:
        return ""
    share, count = name in ("usage", "normalized_perplexity"), name == "dead"
    return f"; {which}: {found.place}, {percent(found.value) if share else number(found.value, 0 if count else 2)}"


def _runs(statistics: Statistics) -> Markup:
    runs = statistics.per_256_images
    if runs is None or not runs.runs:
        beside = f"0: even use; 1: one code has all{_worst(statistics, 'gini', 'most')}"
        return _tile("Gini", number(headline(statistics).gini, 2), "", beside)
    beside = f"{percent(runs.least)} to {percent(runs.most)} in {counted(runs.runs, 'run')}"
    return _tile(f"Usage by {runs.images} images", percent(runs.usage), "", beside, runs.usage)


def _quality(statistics: Statistics) -> Markup:
    shown = statistics.tokenizer.reconstruction if statistics.tokenizer is not None else None
    if shown is None:
        return _tile(
            "Duplicates", number(statistics.duplicates.duplicates), "", "images with the codes of an earlier one"
        )
    (first, value), *others = [(METRICS[name], value) for name, value in shown.metrics.items()]
    more = [f"{metric.label} {metric.format_briefly(value)}" for metric, value in others]
    beside = ", ".join([*more, f"{counted(shown.images, 'image')} of {shown.size} px"])
    if value is None:
        return _tile(first.label, "exact", "", beside)
    return _tile(first.label, number(value, first.digits), first.unit, beside)


def _tile(name: str, value: str, unit: str, beside: str, share: float | None = None) -> Markup:
    meter = None
    if share is not None:
        filled = element("span", style=f"width: {100 * min(max(share, 0.0), 1.0):.1f}%")
        meter = element("div", filled, class_="meter", aria_hidden="true")
    shown = element("dd", value, element("small", f" {unit}") if unit else None, class_="value")
    return element("dl", element("dt", name), shown, element("dd", meter, beside, class_="beside"), class_="tile")


def _coder(runner: str) -> str:
    return {"fixed": "fixed codes", "frequencies": "frequencies"}.get(runner, f"the {runner}")


def counted(count: int, noun: str) -> str:
    """1 image, 2 images."""
    return f"{number(count)} {noun}" if count == 1 else f"{number(count)} {noun}s"
