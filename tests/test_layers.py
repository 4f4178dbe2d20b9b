"""Folders are floors: a file imports from lower floors, or from its own, never in circles."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "qwen_edge"
# From the ground up. A name is a folder or a file of the package; the package itself, that is its
# version, is below all of them.
FLOORS = (
    "", "errors", "demo", "native", "host", "text", "quant", "model", "engine", "session", "api",
    "server", "cli", "__main__",
)  # fmt: skip
# Modules that print: what the user sees is the command line's business. The build scripts of the
# native library are programs of their own.
PRINTING = {"cli", "native.build", "native.build_hook", "native.generate_unicode"}

MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def floor(module: str) -> int:
    """Number of a module's floor."""
    name = module.split(".")[1] if "." in module else ""
    assert name in FLOORS, f"{module} is on no floor"
    return FLOORS.index(name)


def imports(module: str) -> Iterator[str]:
    """The package's modules that a module imports anywhere, in functions too."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            origin = node.module or ""
            inner = [f"{origin}.{alias.name}" for alias in node.names]
            # ``from package import module`` imports the module, other names their module.
            names = [name if name in MODULES else origin for name in inner]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "qwen_edge")


def test_imports_are_absolute() -> None:
    relative = [
        f"{module}:{node.lineno}"
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not relative


def test_imported_modules_exist() -> None:
    unknown = {(module, name) for module in MODULES for name in imports(module)} - {
        (module, name) for module in MODULES for name in MODULES
    }
    assert not unknown


@pytest.mark.parametrize("module", [name for name in MODULES if name != "qwen_edge"])
def test_imports_go_down(module: str) -> None:
    up = {name for name in imports(module) if floor(name) > floor(module)}
    assert not up, f"{module} imports from a higher floor"


def test_the_package_itself_loads_the_api_lazily() -> None:
    tree = ast.parse(MODULES["qwen_edge"].read_text())
    at_once = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {getattr(node, "module", None) for node in at_once}
    assert names <= {"__future__", "typing"}


def test_imports_have_no_circles() -> None:
    edges = {module: set(imports(module)) - {module} for module in MODULES}
    edges["qwen_edge"] = set()
    done: set[str] = set()
    while len(done) < len(edges):
        ready = {name for name in edges.keys() - done if edges[name] <= done}
        assert ready, f"a circle among {sorted(edges.keys() - done)}"
        done |= ready


def test_only_the_command_line_prints() -> None:
    printing = []
    for module, path in MODULES.items():
        inner = module.removeprefix("qwen_edge.")
        if inner in PRINTING or inner.split(".")[0] in PRINTING:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            is_print = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
            is_stream = (
                isinstance(node, ast.Attribute)
                and node.attr in ("stdout", "stderr", "stdin")
                and getattr(node.value, "id", "") == "sys"
            )
            if is_print or is_stream:
                printing.append(f"{module}:{node.lineno}")
    assert not printing
