"""The report in a real browser: its width on phones, its colours in the dark, and that it asks for nothing.

Chromium of the system, without a window. The pages stand in frames of several widths, side by side in one page that
measures them and writes what it found into itself.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest
from matplotlib.colors import to_rgb
from PIL import Image
from statistics_example import example, example_pictures

from imtok.analysis.visualisations import Visualisations
from imtok.report import comparison_page, report_page
from imtok.report.style import COLOURS

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDTHS = (360, 768, 1280)
LIGHT, DARK = 1, 0  # as Chromium numbers what a reader prefers
LONG = "a/path/that-goes-on/" + "x" * 200

MEASURE = """
addEventListener("load", () => {
  const found = {};
  for (const frame of document.querySelectorAll("iframe")) {
    const inner = frame.contentDocument, root = inner.documentElement;
    const style = element => frame.contentWindow.getComputedStyle(element);
    const outside = [], colours = new Set();
    for (const image of inner.querySelectorAll(".plot")) {
      const holder = document.querySelector("div");
      const bytes = Uint8Array.from(atob(image.currentSrc.split(",")[1]), letter => letter.charCodeAt(0));
      holder.innerHTML = new TextDecoder().decode(bytes);
      const edges = holder.firstChild.getBoundingClientRect();
      for (const text of holder.querySelectorAll("text")) {
        const own = text.getBoundingClientRect();
        if (own.left < edges.left - 1 || own.right > edges.right + 1) outside.push(text.textContent);
        colours.add(getComputedStyle(text).fill);
      }
      holder.replaceChildren();
    }
    found[frame.name] = {
      width: frame.contentWindow.innerWidth,
      needed: root.scrollWidth,
      ground: style(inner.body).backgroundColor,
      ink: style(inner.body).color,
      colours: [...colours],
      outside: outside,
      pictures: [...inner.images].length,
      unseen: [...inner.images].filter(image => !image.complete || !image.naturalWidth).length,
      asked: frame.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name)
        .filter(name => !name.startsWith("data:")),
      columns: [...inner.querySelectorAll(".side-by-side thead th")]
        .map(head => Math.round(head.getBoundingClientRect().width)),
      plots: inner.querySelectorAll(".plot").length,
    };
  }
  document.querySelector("pre").textContent = JSON.stringify(found);
});
"""


def hardly_anything() -> str:
    none: dict[str, Any] = dict.fromkeys(("positions", "horizontal", "vertical", "per_256_images", "quantizer"))
    lists: dict[str, Any] = {name: [] for name in ("top", "rank_frequency", "growth", "dimensions", "classes")}
    return report_page(example(tokenizer=False, grid=(1, 1), findings=[], **none, **lists))


def long_names() -> str:
    classes = [each.model_copy(update={"name": LONG}) for each in example().classes]
    pictures = Visualisations(**{**vars(example_pictures()), "keys": (LONG,) * 6})
    return report_page(example(name=LONG, classes=classes, quantizer=LONG), pictures)


def pages() -> dict[str, str]:
    sets = [(example(name=name), example_pictures()) for name in ("a", LONG, "c", "d")]
    return {
        "whole": report_page(example(), example_pictures()),
        "bare": hardly_anything(),
        "long": long_names(),
        "comparison": comparison_page(sets),
    }


def chromium(folder: Path, page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """One run of the browser; what it says of errors is in `stderr`."""
    assert BROWSER is not None
    fixed = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"]
    command = [BROWSER, *fixed, f"--user-data-dir={folder / 'profile'}", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)


@pytest.fixture(scope="module", params=[LIGHT, DARK], ids=["light", "dark"])
def measured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each page measures at each width, by "page width"; the mode's number under "mode"."""
    if BROWSER is None:
        pytest.skip("no chromium here to look at pages with")
    folder = tmp_path_factory.mktemp("browser")
    frames = [
        f'<iframe name="{name} {width}" style="width: {width}px; height: 800px; border: 0" srcdoc="{escape(page)}">'
        f"</iframe>"
        for name, page in pages().items()
        for width in WIDTHS
    ]
    outer = folder / "outer.html"
    outer.write_text(
        f'<!DOCTYPE html><meta charset="utf-8"><pre></pre><div></div><script>{MEASURE}</script>{"".join(frames)}',
        "utf-8",
    )
    run = chromium(folder, outer, f"--blink-settings=preferredColorScheme={request.param}", "--dump-dom")
    said = [line for line in run.stderr.splitlines() if "CONSOLE" in line]
    assert said == []
    written = re.search("<pre>(.*?)</pre>", run.stdout, re.DOTALL)
    assert written is not None
    found: dict[str, Any] = json.loads(unescape(written[1]))
    assert len(found) == len(frames)
    return {"mode": request.param, "frames": found}


def rgb(role: str, mode: int) -> str:
    """A colour of the page as browsers write it."""
    channels = to_rgb(COLOURS[role][0 if mode == LIGHT else 1])
    return f"rgb({', '.join(str(round(255 * channel)) for channel in channels)})"


def test_no_page_is_wider_than_its_screen(measured: dict[str, Any]) -> None:
    too_wide = {name: each["needed"] for name, each in measured["frames"].items() if each["needed"] > each["width"]}
    assert not too_wide
    assert {each["width"] for each in measured["frames"].values()} == set(WIDTHS)


def test_words_of_plots_stay_inside_their_images(measured: dict[str, Any]) -> None:
    assert not {name: each["outside"] for name, each in measured["frames"].items() if each["outside"]}


def test_page_and_plots_have_the_colours_the_reader_prefers(measured: dict[str, Any]) -> None:
    for each in measured["frames"].values():
        assert each["ground"] == rgb("page", measured["mode"])
        assert each["ink"] == rgb("ink", measured["mode"])
        assert {rgb("soft", measured["mode"]), rgb("ink", measured["mode"])} <= set(each["colours"])


def test_nothing_is_requested_and_every_image_is_visible(measured: dict[str, Any]) -> None:
    for each in measured["frames"].values():
        assert each["asked"] == []
        assert each["unseen"] == 0
    assert measured["frames"]["whole 360"]["pictures"] > 64
    assert measured["frames"]["whole 360"]["plots"] == 14


def test_the_columns_of_a_comparison_are_equally_wide(measured: dict[str, Any]) -> None:
    for width in WIDTHS:
        columns = measured["frames"][f"comparison {width}"]["columns"]
        assert len(columns) == 5
        assert max(columns) - min(columns) <= 1


def test_a_screenshot_in_the_dark_is_dark(tmp_path: Path) -> None:
    if BROWSER is None:
        pytest.skip("no chromium here to look at pages with")
    page, shot = tmp_path / "page.html", tmp_path / "shot.png"
    page.write_text(hardly_anything(), "utf-8")
    chromium(tmp_path, page, "--blink-settings=preferredColorScheme=0", "--window-size=800,600", f"--screenshot={shot}")
    with Image.open(shot) as image:
        assert image.convert("RGB").getpixel((2, 2)) == tuple(round(255 * each) for each in to_rgb(COLOURS["page"][1]))
