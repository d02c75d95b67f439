"""Everything that the workflow makes of a configuration."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diem.components import split
from diem.config.paths import Paths
from diem.evaluation.metrics import find_all
from diem.evaluation.metrics.calibration import Calibration
from diem.paper.inputs import heuristics_targets, paper_targets, restoration_targets
from diem.paper.pairs import Pair
from diem.report.figures.base import FIGURES

__all__ = [
    "SECTIONS",
    "alone",
    "entry_names",
    "figure_names",
    "nothing_told",
    "posterior_targets",
    "targets",
    "targets_by_name",
]

SECTIONS = ("experiments", "heuristics", "restoration", "posterior")


NEEDED = {
    "posterior": "an entry of posterior, which names observations and a prior",
    "evidence": "an experiment with calibration among its evaluation.metrics",
    "figures": "an experiment with figures, or an entry of heuristics, restoration or posterior",
    "tables": "an entry of experiments, heuristics or restoration",
}
"""What a configuration needs for the names that can stand for no files at all."""


def targets(config: Mapping[str, Any], pairs: Sequence[Pair]) -> list[str]:
    """Returns every table and figure of a configuration, and every file that is a result itself.

    Arguments:
        config: The configuration, see :func:`diem.config.resolve.resolve`.
        pairs: The entries that take the place of one of the paper's.
    """
    paths = Paths(config)
    parts = (
        _experiments(paths),
        heuristics_targets(config),
        restoration_targets(config),
        posterior_targets(paths),
        paper_targets(config, pairs),
    )
    return [target for part in parts for target in part]


def targets_by_name(config: Mapping[str, Any], pairs: Sequence[Pair]) -> dict[str, list[str]]:
    """Returns parts of the targets by the names that a user asks for them by.

    These are the figures, the tables, each entry of the configuration with its page, the
    ``evidence`` that posteriors can be believed, and the first entry, which is there for a first
    look, as ``quick``. The arguments are those of :func:`targets`.
    """
    everything, paths = targets(config, pairs), Paths(config)
    entries = {
        name: [*targets(alone(config, name), []), paths.page(name)] for name in entry_names(config)
    }
    named = {
        kind: [target for target in everything if f"/{kind}/" in target]
        for kind in ("figures", "tables")
    }
    first = next(iter(entries.values()), [])
    stems = {f"{name}_{Calibration.name}" for name in config["experiments"]}
    evidence = [path for path in everything if Path(path).stem in stems]
    return entries | named | {"evidence": evidence, "quick": first}


def nothing_told(name: str, source: str) -> str:
    """Returns in a sentence what is missing where a name stands for no files.

    Arguments:
        name: The name, of :func:`targets_by_name` or ``posterior``.
        source: The configuration's file.
    """
    return f"{source}: there is nothing to make of {name!r}, which needs {NEEDED[name]}."


def entry_names(config: Mapping[str, Any]) -> list[str]:
    """Returns the names of all entries of a configuration, in the order of its sections."""
    return list(dict.fromkeys(name for section in SECTIONS for name in config[section]))


def alone(
    config: Mapping[str, Any], name: str, sections: Sequence[str] = SECTIONS
) -> dict[str, Any]:
    """Returns a configuration with no other entries than those of one name, in some sections."""
    kept = {section: {} for section in SECTIONS} | {
        section: {key: entry for key, entry in config[section].items() if key == name}
        for section in sections
    }
    return {**config, **kept}


def figure_names(experiment: Mapping[str, Any]) -> list[str]:
    """Returns the names of an experiment's figures, which are those of their files."""
    return [FIGURES.find(split(spec, "figures")[0]).name for spec in experiment["figures"]]


def _experiments(paths: Paths) -> Iterator[str]:
    for name, entry in paths.config["experiments"].items():
        for figure in figure_names(entry):
            yield from paths.figure(f"{name}_{figure}")
        yield from paths.table(name, rows=True)
        if Calibration in find_all(entry["evaluation"]["metrics"]):
            yield from paths.table(f"{name}_{Calibration.name}")
        if "published" in entry:
            yield from paths.table(f"{name}_published")
        if entry["evaluation"]["reconstruct"]:
            yield from paths.table(f"{name}_reconstructions", rows=True)
        if paths.selects(name):
            yield from paths.table(f"{name}_chosen_lap")
            yield from (paths.selected_prior(name, run) for run in entry["runs"])


def posterior_targets(paths: Paths) -> Iterator[str]:
    """Yields the posterior samples that a configuration asks for, and their figures."""
    for name in paths.config["posterior"]:
        yield f"{paths.results}/posterior/{name}/samples.h5"
        yield from paths.figure(f"posterior_{name}")
