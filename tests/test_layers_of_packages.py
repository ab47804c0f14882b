"""Which package may import which, read from the source; and what importing them must not load."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("hw_models", "search_spaces", "nas", "experiments")
# What each package may import of the others. `search_spaces` describes what can be built; of the cost models below it
# it needs only the description of layers, not the devices.
ALLOWED = {
    "hw_models": (),
    "search_spaces": ("hw_models.workload", "hw_models.formats", "hw_models.errors", "hw_models.discover"),
    "nas": ("hw_models", "search_spaces"),
    "experiments": ("hw_models", "search_spaces", "nas"),
}
# Slow to import, or needed by few commands: imported inside the functions that use them.
LAZY = ("matplotlib", "onnx", "onnxruntime", "orbax", "pandas", "pyarrow", "ray", "sklearn")
FORBIDDEN_NAMES = {"utils", "common", "core", "helpers"}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported_modules(file: Path, top_level_only: bool = False) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import in `file`; `from a import b` is the name `a.b`, which may be an attribute."""
    tree = ast.parse(file.read_text(), str(file))
    package = file.relative_to(ROOT).parent.parts
    for node in _outside_functions(tree) if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not typing_only:
            yield child
            yield from _outside_functions(child)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way_only(package: str) -> None:
    wrong = []
    for file in sources(package):
        for line, name in imported_modules(file):
            top = name.split(".")[0]
            if top in (*PACKAGES, "scripts", "tests") and top != package:
                allowed = any(name == each or name.startswith(each + ".") for each in ALLOWED[package])
                if not allowed:
                    wrong.append(f"{file.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", PACKAGES[:3])
def test_heavy_packages_are_imported_inside_functions(package: str) -> None:
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in sources(package)
        for line, name in imported_modules(file, top_level_only=True)
        if name.split(".")[0] in LAZY
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_catch_all_modules(package: str) -> None:
    assert not [file for file in sources(package) if FORBIDDEN_NAMES & {file.stem, file.parent.name}]


@pytest.mark.parametrize("package", PACKAGES)
def test_sub_packages_hold_only_a_docstring(package: str) -> None:
    for file in (ROOT / package).rglob("__init__.py"):
        body = ast.parse(file.read_text()).body
        assert body and ast.get_docstring(ast.parse(file.read_text())), f"{file.relative_to(ROOT)} has no docstring"
        if file.parent != ROOT / package:
            assert len(body) == 1, f"{file.relative_to(ROOT)} holds more than a docstring"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_with_modules_is_a_package(package: str) -> None:
    """A folder without `__init__.py` would be missing from the installed package."""
    for file in sources(package):
        assert (file.parent / "__init__.py").is_file(), f"{file.parent.relative_to(ROOT)} has no __init__.py"


def test_importing_the_packages_loads_nothing_heavy() -> None:
    """Every module below `experiments`, in a fresh process, so that other tests' imports do not count."""
    program = f"""
import importlib, pkgutil, sys
for name in {PACKAGES}:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + ".") if name != "experiments" else ():
        if module.name != "search_spaces.kernels._depthwise":  # the kernel: a plain library, not a Python module
            importlib.import_module(module.name)
print(*sorted({{name.split(".")[0] for name in sys.modules}} & set({LAZY})))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert not run.stdout.split()
