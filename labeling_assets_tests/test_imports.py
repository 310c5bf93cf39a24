"""The arrows between the parts of the package point down, and what is heavy loads where it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import labeling_assets

PACKAGE = Path(labeling_assets.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
MAY_IMPORT_DAGSTER = {
    "abandoned_runs",
    "daemon",
    "resources",
    "definitions",
    "failures",
    "metadata",
    "instance",
    "runs",
    "run_logs",
    "metrics",
    "pool_waits",
}
HEAVY = {"torch", "transformers", "onnxruntime", "pymilvus", "ollama", "ray", "rapidocr", "sklearn", "cv2", "imagehash"}
# What each part may import of the package; what is not named may import everything.
ALLOWED = {
    "errors": set[str](),
    "settings": {"errors", "products"},
    "products": {"errors", "products"},
    "migrations": {"services"},
    "services": {"errors", "settings", "products", "services", "migrations"},
    "embedded": {"errors", "settings", "products", "services", "embedded"},
    "abandoned_runs": {"embedded"},
    "failures": {"errors"},
    "metadata": {"products"},
    "resources": {"errors", "settings", "products", "services", "failures"},
    "defs": {
        "errors",
        "settings",
        "products",
        "services",
        "resources",
        "failures",
        "metadata",
        "abandoned_runs",
        "defs",
    },
}


def part(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(module: Path) -> Iterator[str]:
    """Every module that is imported, also inside functions; blocks for the type checker alone count too."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_arrows_point_down(module: Path) -> None:
    used = {name.split(".")[1] for name in imports(module) if name.startswith("labeling_assets.")}
    forbidden = used - ALLOWED.get(part(module), used)
    assert not forbidden, f"{module} must not import {forbidden}"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_only_the_dagster_layer_imports_dagster(module: Path) -> None:
    uses_dagster = any(name.split(".")[0] == "dagster" for name in imports(module))
    is_layer = part(module) in MAY_IMPORT_DAGSTER | {"defs"}
    # Commands that run Dagster load it when they are called.
    assert not uses_dagster or is_layer or (part(module) == "cli" and "\nimport dagster" not in module.read_text())


@pytest.mark.parametrize("module", ["labeling_assets.definitions", "labeling_assets.cli"])
def test_what_is_heavy_is_not_loaded_with_the_code_location(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


def test_the_command_line_starts_without_dagster() -> None:
    code = "import sys, labeling_assets.cli; print('dagster' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_the_package_itself_imports_nothing() -> None:
    assert list(imports(PACKAGE / "__init__.py")) == []
