"""The rooms of the library: imports go down, declarations are light, and nothing is too long."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

WORKFLOW = Path(__file__).parents[2] / "workflow"
LIBRARY = WORKFLOW / "diem"

GROUND = {
    *("components", "errors", "lazy", "replicates", "seeds", "sentences", "signals", "versions")
}
FLOORS = [
    *("files", "jobs", "operators", "networks", "diffusion", "data", "em", "inference"),
    *("evaluation", "report", "paper", "config", "planning", "in_python"),
    *("launch_workflow", "cli", "__main__"),
]
"""The rooms above the ground, in the order in which each may import those before it.

The configuration reads the declarations of all components, and stands above them.
"""

UPWARD: set[tuple[str, str]] = set()
"""Imports from a room of one above it that are allowed, each with a reason beside it."""

DEFERRED = {
    # What a network's declaration is by default, and what PyTorch's modules become, needs PyTorch.
    ("diem.networks.base", "diem.networks.counting"),
    ("diem.networks.base", "diem.networks.own"),
    # A declaration builds its module, which reads the declaration's options.
    ("diem.networks.unet", "diem.networks.modules.unet"),
    ("diem.evaluation.metrics.lpips", "diem.evaluation.lpips"),
}
"""Imports in functions of one room, at their use, of what is built upon the importing module."""


@cache
def modules():
    """Returns the files of the library by the names of their modules."""
    found = {}
    for path in LIBRARY.rglob("*.py"):
        parts = path.relative_to(WORKFLOW).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path, types=True):
    """Returns the library's modules that a file imports: in functions too, and for types or not."""
    found, tree = set(), ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types and not types:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            while name.startswith("diem.") and name not in modules():
                name = name.rpartition(".")[0]  # what a module holds
            if name.startswith("diem."):
                found.add(name)
    return found


def room(module):
    name = module.removeprefix("diem.")
    if name in GROUND:
        return "ground"
    return max((f for f in FLOORS if f"{name}.".startswith(f"{f}.")), key=len, default=name)


def test_every_room_has_its_floor():
    rooms = {room(name) for name in modules() if name != "diem"}
    assert rooms == {"ground", *FLOORS}


def test_imports_go_down():
    order = ["ground", *FLOORS]
    upward = {
        (name, other)
        for name, path in modules().items()
        if name != "diem"  # the door to the house: it imports on demand
        for other in imported(path)
        if order.index(room(other)) > order.index(room(name))
    }
    assert upward == UPWARD


def test_there_are_no_circles():
    left = {
        name: {other for other in imported(path, types=False) if (name, other) not in DEFERRED}
        for name, path in modules().items()
        if name != "diem"
    }
    while ends := [
        name
        for name in left
        if not left[name] & left.keys() or not any(name in others for others in left.values())
    ]:
        for name in ends:
            del left[name]
    assert {name: sorted(others & left.keys()) for name, others in left.items()} == {}


LIGHT = """
import importlib, pkgutil, sys
import diem, diem.config
from diem.components import Kind

for package in [m for m in pkgutil.walk_packages(diem.__path__, "diem.") if m.ispkg]:
    for value in list(vars(importlib.import_module(package.name)).values()):
        if isinstance(value, Kind):
            assert value.all(), value.key
for module in pkgutil.iter_modules(diem.config.__path__, "diem.config."):
    importlib.import_module(module.name)
heavy = {"torch", "azula", "matplotlib", "sklearn", "skimage", "h5py"}
print(*sorted(heavy & set(sys.modules)))
"""


def test_the_configuration_and_all_declarations_are_light():
    """A plan imports them: PyTorch alone takes seconds."""
    result = subprocess.run(
        [sys.executable, "-c", LIGHT], cwd=WORKFLOW, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []


def sources():
    return sorted([*WORKFLOW.rglob("*.py"), *WORKFLOW.rglob("*.smk")])


def test_no_file_is_over_500_lines():
    lengths = {
        str(path.relative_to(WORKFLOW)): len(path.read_text(encoding="utf-8").splitlines())
        for path in sources()
    }
    assert {name: length for name, length in lengths.items() if length > 500} == {}


def function_lengths(path):
    """Yields the name and the number of lines, without its docstring, of every function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = node.end_lineno - node.lineno + 1
            first = node.body[0]
            if ast.get_docstring(node, clean=False) is not None:
                length -= first.end_lineno - first.lineno + 1
            yield f"{path.relative_to(WORKFLOW)}: {node.name}", length


@pytest.mark.parametrize("folder", ["diem", "scripts"])
def test_no_function_is_over_60_lines(folder):
    lengths = [
        item for path in (WORKFLOW / folder).rglob("*.py") for item in function_lengths(path)
    ]
    assert [(name, length) for name, length in lengths if length > 60] == []


def test_scripts_are_thin():
    for path in (WORKFLOW / "scripts").glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 50, path
