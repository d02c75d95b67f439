"""The recipes of CONTRIBUTING.md: each component is one file, of the project or of one's own."""

import copy
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
import yaml
from running import ROOT, TINY, copy_of_repository, every_kind

from diem.components import Kind

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")

RESTORATION = {
    "data": {"name": "photographs", "size": 12, "train": 64, "validation": 8, "test": 4},
    "train": {
        "network": {"name": "residual_mlp", "width": 32, "blocks": 1, "embedding": 16},
        "gaussian": {"rank": 2},
        "m_step": {"steps": 20, "batch": 16, "learning_rate": 0.001},
    },
    "tasks": {"box": {"operator": {"name": "mask", "box": 6}, "sigma_y": 1.0}},
    "methods": {"diffpir": {"name": "diffpir"}},
    "steps": [2],
    "images": 3,
}


class Recipe(NamedTuple):
    """A component of CONTRIBUTING.md: its file in the project, the code, and how it is named."""

    path: Path
    code: str
    config: dict


def recipes():
    found = re.findall(
        r"^### .*?^`(workflow/diem/\S+\.py)`$.*?^```python\n(.*?)^```$.*?^```yaml\n(.*?)^```$",
        TEXT,
        flags=re.DOTALL | re.MULTILINE,
    )
    return [Recipe(Path(path), code, yaml.safe_load(config)) for path, code, config in found]


RECIPES = {recipe.path.stem: recipe for recipe in recipes()}


def merge(into, changes):
    """Writes changes into a configuration, of which lists are taken as they are."""
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict) and "name" not in value:
            merge(into[key], value)
        else:
            into[key] = value


def configured(recipes, own=True):
    """Returns a tiny configuration with components, as one's own or of the project."""
    config = copy.deepcopy(TINY)
    tiny = config["experiments"]["tiny"]
    tiny.update(laps=1, figures=["divergence"])
    tiny["gaussian"].update(rank=2)
    tiny["evaluation"].update(laps=[], metrics=["sliced_wasserstein"])
    named = {
        (section, name)
        for recipe in recipes
        for section, entries in recipe.config.items()
        for name in entries
    }
    for section, name, entry in (
        ("experiments", "patches", every_kind("experiments", "patches")["experiments"]["patches"]),
        ("restoration", "patches", RESTORATION),
    ):
        if (section, name) in named:
            config.setdefault(section, {})[name] = copy.deepcopy(entry)
    if ("experiments", "tiny") not in named:
        del config["experiments"]["tiny"]
    for recipe in recipes:
        merge(config, recipe.config)
    if not own:
        config = yaml.safe_load(re.sub(r"\w+:[A-Z]\w+", _file_name, yaml.safe_dump(config)))
    return config


def _file_name(path):
    return path[0].partition(":")[0]


def test_every_kind_of_component_has_a_recipe():
    assert len(RECIPES) == 9
    for recipe in RECIPES.values():
        assert (ROOT / recipe.path).parent.is_dir()
        assert not (ROOT / recipe.path).exists()
        assert len(recipe.code.splitlines()) < 30, recipe.path
    import importlib
    import pkgutil

    import diem

    packages = [m.name for m in pkgutil.walk_packages(diem.__path__, "diem.") if m.ispkg]
    kinds = {
        value.package
        for name in packages
        for value in vars(importlib.import_module(name)).values()
        if isinstance(value, Kind)
    }
    places = {".".join(r.path.parent.relative_to("workflow").parts) for r in RECIPES.values()}
    assert places == kinds


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_component_of_ones_own(workflow, name):
    recipe = RECIPES[name]
    workflow.path(f"{name}.py").write_text(recipe.code, encoding="utf-8")
    workflow.config = configured([recipe])

    workflow.make()

    tables = {path.name for path in workflow.path("results/tables").glob("*.csv")}
    assert {"tiny.csv", "patches.csv", "restoration_patches.csv"} & tables
    figures = list(workflow.path("results/figures").glob("*.p*"))
    assert figures
    assert all(figure.stat().st_size > 1000 for figure in figures)
    if name == "largest_error":
        table = pd.read_csv(workflow.path("results/tables/tiny_rows.csv"))
        assert (table[table.metric == name].value > 0).all()
        assert name in set(table.metric)
    if name == "spread":
        assert workflow.path("results/figures/tiny_spread.pdf").is_file()
    if name == "unguided":
        text = workflow.path("results/tables/restoration_patches.md").read_text(encoding="utf-8")
        assert "Unguided" in text


@pytest.mark.slow
def test_all_of_them_as_files_of_the_project(workflow, tmp_path):
    project = tmp_path / "project"
    copy_of_repository(project)
    for recipe in RECIPES.values():
        (project / recipe.path).write_text(recipe.code, encoding="utf-8")
    workflow.config = configured(RECIPES.values(), own=False)
    command = [
        *(sys.executable, str(project / "workflow/debug.py"), "--all"),
        *("--configfile", str(workflow.configfile()), "--directory", str(workflow.folder)),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = pd.read_csv(workflow.path("results/tables/tiny_rows.csv"))
    assert set(rows.metric) == {"sliced_wasserstein", "largest_error"}
    assert workflow.path("results/figures/tiny_spread.png").is_file()
    assert workflow.path("results/tables/patches.csv").is_file()
    assert workflow.path("results/tables/restoration_patches.csv").is_file()
