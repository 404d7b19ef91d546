"""Imports point down: the floors of ARCHITECTURE.md, and the list of modules there, held against the code."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import imtok

ROOT = Path(imtok.__file__).parent
PAGE = ROOT.parent / "ARCHITECTURE.md"
TESTS = Path(__file__).parent
# Tests of more than one module: of whole commands, of the documents, of all kernels or quantizers at once.
WHOLE = {
    *("architecture", "benchmarks", "end_to_end", "examples", "extending", "goldens", "gpu", "hostile", "installed"),
    *("pretrained", "properties", "readme"),
}
MODULES = sorted(
    path.relative_to(ROOT) for path in ROOT.rglob("*.py") if path.name != "__init__.py" or path.parent != ROOT
)
PARTS = sorted({module.parts[0].removesuffix(".py") for module in MODULES})  # packages, and modules beside them


@pytest.fixture(scope="module")
def page() -> str:
    """The text of ARCHITECTURE.md."""
    if not PAGE.exists():
        pytest.skip("the package is installed without its ARCHITECTURE.md")
    return PAGE.read_text()


@pytest.fixture(scope="module")
def floors(page: str) -> dict[str, int]:
    """The floor of each part, as the first table of ARCHITECTURE.md has it."""
    rows = re.findall(r"^\| (\d) \| (.*?) \|", page, flags=re.MULTILINE)
    return {part: int(number) for number, names in rows for part in re.findall(r"`(?:imtok/)?(\w+)(?:/|\.py)`", names)}


def imported(path: Path) -> set[str]:
    """First-level parts of imtok that a module imports, those for type checking and inside functions included."""
    parts = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names]
                if node.module == "imtok"
                else [node.module or ""]
            )
        parts |= {name.split(".")[1] for name in names if name.startswith("imtok.")}
    return parts & set(PARTS)


def imports_between_parts() -> dict[str, set[str]]:
    """For each part the other parts that its modules import."""
    imports: dict[str, set[str]] = {part: set() for part in PARTS}
    for module in MODULES:
        part = module.parts[0].removesuffix(".py")
        imports[part] |= imported(ROOT / module) - {part}
    return imports


def layers() -> list[list[str]]:
    """The parts by the longest chain of imports below each, the parts that import no other first."""
    imports, levels = imports_between_parts(), dict[str, int]()
    for part in TopologicalSorter(imports).static_order():
        levels[part] = 1 + max((levels[other] for other in imports[part]), default=0)
    return [sorted(part for part in levels if levels[part] == level) for level in sorted(set(levels.values()))]


def test_every_part_stands_on_one_floor(floors: dict[str, int]) -> None:
    assert sorted(floors) == PARTS


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_point_down(module: Path, floors: dict[str, int]) -> None:
    own = floors[module.parts[0].removesuffix(".py")]
    above = {part for part in imported(ROOT / module) if floors[part] > own}
    assert not above, f"{module} (floor {own}) imports {sorted(above)} from above"


def test_no_circle_joins_packages() -> None:
    try:
        list(TopologicalSorter(imports_between_parts()).static_order())
    except CycleError as error:
        pytest.fail(f"packages import each other: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_every_module_opens_with_what_it_holds(module: Path) -> None:
    assert ast.get_docstring(ast.parse((ROOT / module).read_text()))


def test_architecture_states_the_layers_that_imports_make(page: str) -> None:
    stated = re.findall(r"^\d+\. (`.*`)$", page, flags=re.MULTILINE)
    assert [re.findall(r"`(\w+)`", line) for line in stated] == layers()


def test_architecture_lists_every_module_and_no_other(page: str) -> None:
    listed = re.findall(r"^- `([\w/]+\.py)`", page, flags=re.MULTILINE)
    assert sorted(listed) == sorted(module.as_posix() for module in MODULES if module.name != "__init__.py")


def test_no_test_file_imports_another() -> None:
    for path in TESTS.glob("*.py"):
        nodes = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        names = [node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name for node in nodes]
        assert not [name for name in names if name.startswith("test_")], path.name


def test_the_name_of_a_test_has_ten_words_at_most() -> None:
    names = [
        name for path in TESTS.glob("test_*.py") for name in re.findall(r"^def test_(\w+)", path.read_text(), re.M)
    ]
    assert not [name for name in names if name.count("_") > 9]


def test_every_test_file_is_named_after_a_module() -> None:
    """`test_nearest.py` or `test_kernels_nearest.py` tests `kernels/nearest.py`; more words may follow."""
    known = WHOLE | {part for module in MODULES for part in module.with_suffix("").parts}
    names = [path.stem.removeprefix("test_").split("_") for path in TESTS.glob("test_*.py")]
    strange = [name for name in names if not any("_".join(name[:end]) in known for end in range(1, len(name) + 1))]
    assert not strange


def test_what_is_public_can_be_had_and_is_listed() -> None:
    for name in imtok.__all__:
        assert getattr(imtok, name) is not None
    assert set(imtok.__all__) <= set(dir(imtok))
    with pytest.raises(AttributeError):
        _ = imtok.nothing
