"""Imports point down: the floors of ARCHITECTURE.md, and the list of modules there, held against the code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import imtok

ROOT = Path(imtok.__file__).parent
FLOORS = [
    {
        "kernels",
        "distributed",
        "usage",
        "entropy",
        "records",
        "cores",
        "devices",
        "parallel",
        "files",
        "errors",
        "version",
    },
    {"quantizers", "networks", "losses", "quantizer_config", "config"},
    {"tokenizer", "tokens", "data", "evaluation"},
    {"training", "encoding", "decoding", "analysis", "report", "demo", "description"},
    {"cli", "__main__"},
]
TESTS = Path(__file__).parent
# Tests of more than one module: of whole commands, of the documents, of all kernels or quantizers at once.
WHOLE = {
    "architecture",
    "benchmarks",
    "end_to_end",
    "goldens",
    "gpu",
    "hostile",
    "installed",
    "pretrained",
    "properties",
}
WHOLE |= {"extending", "readme"}
MODULES = sorted(
    path.relative_to(ROOT) for path in ROOT.rglob("*.py") if path.name != "__init__.py" or path.parent != ROOT
)


def floor(part: str) -> int:
    found = [number for number, parts in enumerate(FLOORS) if part in parts]
    assert found, f"imtok/{part} stands on no floor; add it to ARCHITECTURE.md and here"
    return found[0]


def imported(path: Path) -> set[str]:
    """First-level parts of imtok that a module imports, those for type checking included."""
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
    return parts


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_point_down(module: Path) -> None:
    own = module.parts[0].removesuffix(".py")
    above = {part for part in imported(ROOT / module) if part != own and floor(part) > floor(own)}
    assert not above, f"{module} (floor {floor(own) + 1}) imports {sorted(above)} from above"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_every_module_opens_with_what_it_holds(module: Path) -> None:
    assert ast.get_docstring(ast.parse((ROOT / module).read_text()))


def test_architecture_lists_every_module() -> None:
    page = ROOT.parent / "ARCHITECTURE.md"
    if not page.exists():
        pytest.skip("the package is installed without its ARCHITECTURE.md")
    text = page.read_text()
    missing = [
        str(module) for module in MODULES if f"`{module.as_posix()}`" not in text and module.name != "__init__.py"
    ]
    assert not missing


def test_no_test_file_imports_another() -> None:
    for path in TESTS.glob("*.py"):
        nodes = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        names = [node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name for node in nodes]
        assert not [name for name in names if name.startswith("test_")], path.name


def test_every_test_file_is_named_after_a_module_or_a_package() -> None:
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
