"""What stands first in a report: the verdict, the advice, and the main figures as tiles."""

# Axes: K codes, Q codebooks, h x w grid of an image's codes.

from __future__ import annotations

import re

from imtok.analysis.figures import Figures
from imtok.analysis.shown import headline, several, unseen, worst
from imtok.analysis.verdict import by_grade, verdict
from imtok.report.markup import Markup, element, joined
from imtok.report.style import number, percent


def facts(figures: Figures) -> list[str]:
    """What the tokens are, each fact in a few words."""
    rows, columns = figures.grid
    several = f" × {figures.num_codebooks} codebooks" if figures.num_codebooks > 1 else ""
    return [
        *([figures.quantizer] if figures.quantizer else []),
        f"{counted(figures.images, 'image')} of {figures.size} px",
        *([f"{number(figures.skipped)} skipped"] if figures.skipped else []),
        f"{rows} × {columns} grid{several}",
        f"{number(figures.codebook_size)} codes",
        f"{counted(figures.tokens, 'token')}",
    ]


def header(figures: Figures) -> Markup:
    """Name, facts and verdict."""
    judged = verdict(figures)
    page = element("small", "More in ", element("code", judged.finding.page)) if judged.finding is not None else None
    return joined(
        element("p", "imtok stats", class_="eyebrow"),
        element("h1", figures.name),
        element("p", *(element("span", fact) for fact in facts(figures)), class_="facts"),
        element(
            "p",
            element("strong", judged.word),
            element("span", _advice(judged.text), page),
            class_=f"verdict {judged.grade}",
        ),
    )


def findings(figures: Figures) -> Markup | None:
    """The advice beside that of the verdict, the worst first; None where there is none."""
    rest = [each for each in by_grade(figures.findings) if each is not verdict(figures).finding]
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


def tiles(figures: Figures) -> Markup:
    """The main figures, eight of them."""
    bits, size, head = figures.bits, number(figures.codebook_size), headline(figures)
    expected = f"of {number(figures.max_bits, 2)}; {number(head.entropy_corrected_bits, 2)} bias-corrected"
    made = [
        _tile(
            "Usage",
            percent(head.usage),
            "",
            f"{number(head.used)} of {size} codes{_several(figures)}{_worst(figures, 'usage', 'least')}",
            head.usage,
        ),
        _tile(
            "Perplexity",
            number(head.perplexity, 0 if head.perplexity >= 100 else 1),
            "",
            f"{percent(head.normalized_perplexity)} of {size}{_worst(figures, 'normalized_perplexity', 'least')}",
            head.normalized_perplexity,
        ),
        _tile(
            "Entropy",
            number(head.entropy_bits, 2),
            "bits",
            expected + _worst(figures, "entropy_bits", "least"),
            head.entropy_bits / figures.max_bits if figures.max_bits else 0.0,
        ),
        _tile(
            "Dead codes",
            number(head.dead),
            "",
            unseen(figures)
            or f"and {number(head.nearly_dead)} nearly dead{_several(figures)}{_worst(figures, 'dead', 'most')}",
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
    made += [_runs(figures), _quality(figures)]
    return element("div", *made, class_="tiles")


def _several(figures: Figures) -> str:
    return f", mean of {len(figures.codebooks)} codebooks" if several(figures) else ""


def _worst(figures: Figures, name: str, which: str) -> str:
    """Which codebook has the least or the most of a figure, where there are several."""
    found = worst(figures, name)
    if found is None:
        return ""
    share, count = name in ("usage", "normalized_perplexity"), name == "dead"
    return f"; {which}: {found.place}, {percent(found.value) if share else number(found.value, 0 if count else 2)}"


def _runs(figures: Figures) -> Markup:
    runs = figures.per_256_images
    if runs is None or not runs.runs:
        beside = f"0: even use; 1: one code has all{_worst(figures, 'gini', 'most')}"
        return _tile("Gini", number(headline(figures).gini, 2), "", beside)
    beside = f"{percent(runs.least)} to {percent(runs.most)} in {counted(runs.runs, 'run')}"
    return _tile(f"Usage by {runs.images} images", percent(runs.usage), "", beside, runs.usage)


def _quality(figures: Figures) -> Markup:
    shown = figures.tokenizer.reconstruction if figures.tokenizer is not None else None
    if shown is None:
        return _tile("Duplicates", number(figures.duplicates.duplicates), "", "images with the codes of an earlier one")
    beside = f"SSIM {number(shown.ssim, 3)}, {counted(shown.images, 'image')} of {shown.size} px"
    if shown.psnr is None:
        return _tile("PSNR", "exact", "", beside)
    return _tile("PSNR", number(shown.psnr, 2), "dB", beside)


def _tile(name: str, value: str, unit: str, beside: str, share: float | None = None) -> Markup:
    meter = None
    if share is not None:
        filled = element("span", style=f"width: {100 * min(max(share, 0.0), 1.0):.1f}%")
        meter = element("div", filled, class_="meter", aria_hidden="true")
    shown = element("dd", value, element("small", f" {unit}") if unit else None, class_="value")
    return element("dl", element("dt", name), shown, element("dd", meter, beside, class_="beside"), class_="tile")


def _coder(coder: str) -> str:
    return {"fixed": "fixed codes", "frequencies": "frequencies"}.get(coder, f"the {coder}")


def counted(count: int, noun: str) -> str:
    """1 image, 2 images."""
    return f"{number(count)} {noun}" if count == 1 else f"{number(count)} {noun}s"
