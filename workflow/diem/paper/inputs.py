"""What the rules of this paper's own comparisons read and write, from the configuration alone.

A job's settings are no more than what its numbers depend on: so other entries, methods and cases
can come and go without its being run again.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from diem.evaluation.metrics import find_all
from diem.paper.pairs import Pair, pairs
from diem.replicates import all_entries, same_entry

__all__ = [
    "case_settings",
    "coil_settings",
    "comparison_path",
    "heuristics_blocks",
    "heuristics_cases",
    "heuristics_targets",
    "pairs_with_paper",
    "paper_tables",
    "paper_targets",
    "restoration_files",
    "restoration_inputs",
    "restoration_settings",
    "restoration_targets",
    "standing_for",
]

TABLE_KINDS = ("csv", "md", "tex", "html")
FIGURE_KINDS = ("pdf", "png")


def _targets(config: Mapping[str, Any], section: str, figures: Sequence[str]) -> list[str]:
    """Returns tables, tables of all rows, and figures of each entry of a section."""
    targets = []
    for name in config[section]:
        tables, drawn = (
            f"{config['results']}/{kind}/{section}_{name}" for kind in ("tables", "figures")
        )
        targets += [f"{tables}.{kind}" for kind in TABLE_KINDS]
        targets.append(f"{tables}_rows.csv")
        targets += [f"{drawn}_{figure}.{kind}" for figure in figures for kind in FIGURE_KINDS]
    return targets


# The heuristics


def heuristics_targets(config: Mapping[str, Any]) -> list[str]:
    """Returns all tables and figures of the heuristics."""
    return _targets(config, "heuristics", ("divergence", "coil"))


def heuristics_cases(config: Mapping[str, Any], name: str, block: int) -> tuple[int, int]:
    """Returns the numbers of a job's cases, the first and the last.

    Arguments:
        config: The resolved configuration.
        name: The entry's name.
        block: The number of the job, from 1.
    """
    entry = config["heuristics"][name]
    first = (block - 1) * entry["block"] + 1
    return first, min(first + entry["block"] - 1, entry["cases"])


def heuristics_blocks(config: Mapping[str, Any], name: str) -> list[str]:
    """Returns the files of the rows of all cases."""
    entry = config["heuristics"][name]
    count = -(-entry["cases"] // entry["block"])
    folder = f"{config['results']}/heuristics/{name}"
    return [f"{folder}/block_{block}.csv" for block in range(1, count + 1)]


def case_settings(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns the settings that the numbers of a case depend on."""
    entry = config["heuristics"][name]
    return {key: entry[key] for key in entry if key not in ("cases", "block", "coil")}


def coil_settings(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns the settings that the samples of the coil depend on."""
    entry = config["heuristics"][name]
    keys = ("components", "thickness", "sigma_y", "covariances", "coil")
    return {key: entry[key] for key in keys}


# The posterior samplers


def restoration_targets(config: Mapping[str, Any]) -> list[str]:
    """Returns all tables and figures of the comparisons of posterior samplers."""
    return _targets(config, "restoration", ("metrics", "images"))


def comparison_path(config: Mapping[str, Any], name: str, file: str) -> str:
    """Returns a file of a comparison."""
    return f"{config['results']}/restoration/{name}/{file}"


def restoration_inputs(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns what a method reads: the prior is trained here, or given by the user.

    A user's denoiser is no input, so that a plan needs none; what reads it tells what it lacks. The
    files that metrics need are the user's too.
    """
    entry = all_entries(config, "restoration")[name]
    files: dict[str, Any] = {"clean": comparison_path(config, name, "clean.h5")}
    if "train" in entry:
        files["prior"] = comparison_path(config, name, "prior.safetensors")
    for metric in find_all(entry["metrics"]):
        for key in metric.inputs:
            if entry[key] is not None:
                parts = metric.parts.get(key)
                files[key] = [f"{entry[key]}/{part}" for part in parts] if parts else entry[key]
    return files


def restoration_settings(config: Mapping[str, Any], name: str, method: str) -> dict[str, Any]:
    """Returns the settings that a method's numbers depend on."""
    entry = all_entries(config, "restoration")[name]
    keys = ("schedule", "respaced", "clip", "tasks", "steps", "images", "block", "metrics")
    return {
        **{key: entry[key] for key in keys},
        "methods": {method: entry["methods"][method]},
        "data": entry["data"]["name"],
        "pretrained": entry.get("pretrained", {}).get("name"),
    }


def restoration_files(config: Mapping[str, Any], name: str, ending: str) -> list[str]:
    """Returns a file of each method of a comparison, of rows at all of its seeds.

    Arguments:
        config: The resolved configuration.
        name: The comparison's name.
        ending: How the files' names end: ``.csv`` for rows, ``.h5`` for images.
    """
    methods = config["restoration"][name]["methods"]
    return [
        comparison_path(config, seed, f"methods/{method}{ending}")
        for seed in (same_entry(config, "restoration", name) if ending == ".csv" else [name])
        for method in methods
    ]


# All of the paper


def pairs_with_paper(config: Mapping[str, Any], path: str | Path) -> list[Pair]:
    """Returns the entries of a configuration that take the place of one of the paper's.

    Arguments:
        config: The resolved configuration.
        path: The file ``config/paper.yaml``.
    """
    with Path(path).open(encoding="utf-8") as file:
        return pairs(config, yaml.safe_load(file))


def standing_for(found: Sequence[Pair], section: str, paper: str | None = None) -> list[str]:
    """Returns the names of a section's entries that take the place of an entry of the paper's.

    Arguments:
        found: The pairs of :func:`pairs_with_paper`.
        section: The section.
        paper: The name of the paper's entry, or none for any.
    """
    return [p.ours for p in found if p.section == section and paper in (None, p.paper)]


def paper_tables(config: Mapping[str, Any], found: Sequence[Pair]) -> dict[str, Any]:
    """Returns the tables whose numbers stand beside the published ones."""
    folder = f"{config['results']}/tables"
    images = standing_for(found, "experiments", "cifar10")
    return {
        "hyperparameters": f"{folder}/hyperparameters.csv",
        "images": [f"{folder}/{name}_rows.csv" for name in images],
        **{
            section: [f"{folder}/{section}_{name}.csv" for name in standing_for(found, section)]
            for section in ("heuristics", "restoration")
        },
    }


def paper_targets(config: Mapping[str, Any], found: Sequence[Pair]) -> list[str]:
    """Returns the tables of the paper beside ours, if anything of it is to be compared with."""
    names = ("hyperparameters", "paper_vs_ours") if found else ()
    return [f"{config['results']}/tables/{name}.{kind}" for name in names for kind in TABLE_KINDS]
