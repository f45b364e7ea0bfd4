"""What a plain install brings is all that runs without an extra."""

import ast
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = {"pillow": "PIL", "orbax-checkpoint": "orbax"}
BRINGS = {"jaxlib", "tensorstore", "ml_dtypes"}
"""What JAX and Orbax bring themselves."""


def unguarded(tree):
    """Names of the packages imported outside any `try`, which is where extras are asked for."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]
        elif not isinstance(node, ast.Try):
            waiting += ast.iter_child_nodes(node)


@pytest.mark.parametrize("folder", ["vcmjax", "experiments"])
def test_imports_outside_a_try_are_of_dependencies(folder):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [text.split(">")[0] for text in project["dependencies"]]
    allowed = {MODULES.get(name, name) for name in names} | BRINGS | {"vcmjax", "experiments"}
    for path in (ROOT / folder).rglob("*.py"):
        extra = set(unguarded(ast.parse(path.read_text()))) - allowed - sys.stdlib_module_names
        assert not extra, f"{path.name} imports {extra}"
