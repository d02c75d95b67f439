"""The figures that a configuration names, and the results that each is drawn from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from diem.components import split
from diem.em.laps import evaluated_laps, lap_number
from diem.errors import DiemError
from diem.evaluation.metrics import Entries
from diem.files.atomic import atomic
from diem.report.figures.base import Evaluation, Figure, Losses, Reads, Source, figure_named
from diem.report.tables.labels import Ceilings

__all__ = ["Evaluated", "evaluated", "named_figures", "opened", "write_caption"]


class Evaluated(NamedTuple):
    """An evaluation of an experiment.

    Attributes:
        stage: ``floor``, ``lap``, ``ceiling`` or ``reconstruction``.
        run: The run.
        observations: The set of observations that it is of.
        lap: The lap; 0 for a floor or a ceiling.
    """

    stage: str
    run: str
    observations: str
    lap: int


def named_figures(experiments: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the entries of all figures by the figure's name and by experiment.

    Arguments:
        experiments: The resolved experiments.

    Raises:
        DiemError: If two figures would write the same files.
    """
    entries: dict[str, dict[str, Any]] = {}
    classes: dict[str, type[Figure]] = {}
    stems: set[str] = set()
    for experiment, settings in experiments.items():
        for spec in settings["figures"]:
            where = f"experiments.{experiment}.figures"
            figure = type(figure_named(spec, where))
            stem = f"{experiment}_{figure.name}"
            if stem in stems or classes.setdefault(figure.name, figure) is not figure:
                raise DiemError(
                    f"{where}: {split(spec, where)[0]!r} and another figure of the configuration"
                    f" would both be called {figure.name!r} or write the same files ({stem!r})."
                )
            stems.add(stem)
            entries.setdefault(figure.name, {})[experiment] = spec
    return entries


def evaluated(reads: Reads, experiment: Mapping[str, Any], ceiling: bool) -> list[Evaluated]:
    """Returns the evaluations that a figure reads, in its order.

    Arguments:
        reads: What the figure reads.
        experiment: The resolved experiment.
        ceiling: Whether the experiment has ceilings.
    """
    first: dict[str, str] = {}
    for run, settings in experiment["runs"].items():
        first.setdefault(settings["observations"], run)
    runs = list(first.values()) if reads.every else list(first.values())[:1]
    return [
        found
        for run in runs
        for stage in reads.stages
        if ceiling or stage != "ceiling"
        for found in _of_stage(stage, run, experiment)
    ]


def _of_stage(stage: str, run: str, experiment: Mapping[str, Any]) -> Iterator[Evaluated]:
    observations = experiment["runs"][run]["observations"]
    laps = evaluated_laps(experiment, run)
    if stage == "reconstructions":
        for other in experiment["evaluation"]["reconstruct"]:
            yield Evaluated("reconstruction", run, other, laps[-1])
    elif stage in ("laps", "last"):
        for lap in laps if stage == "laps" else laps[-1:]:
            yield Evaluated("lap", run, observations, lap)
    elif stage in ("floor", "ceiling"):
        yield Evaluated(stage, run, observations, 0)
    else:
        raise DiemError(
            f"figures: a figure reads the stage {stage!r}, which is none of floor, laps, last,"
            " ceiling, reconstructions."
        )


@contextlib.contextmanager
def opened(
    reads: Reads,
    experiment: str,
    labels: Mapping[str, str],
    metrics: Entries,
    ceilings: Ceilings,
    trained: Mapping[str, str],
    files: Mapping[str, Any],
) -> Iterator[Source]:
    """Yields what a figure is drawn from, of which large arrays are read as they are needed.

    Arguments:
        reads: What the figure reads.
        experiment: The experiment.
        labels: The label of each run.
        metrics: The entries of ``evaluation.metrics``.
        ceilings: What ceilings are called, see :func:`diem.em.laps.ceiling_labels`.
        trained: The observations that each run learns from.
        files: The files by what they are: ``metrics``, ``evaluations`` and ``losses``, lists, and
            ``clean`` and ``chosen``.
    """
    from diem.evaluation.rows import check_place, over_seeds, read_rows
    from diem.files.hdf5 import Reader, Rows

    with contextlib.ExitStack() as stack:

        def rows(path: str, name: str) -> Rows:
            return stack.enter_context(Rows([path], name, cache_mb=0))

        def evaluation(path: str) -> Evaluation:
            with Reader(path) as file:
                card = {key: file.attribute(key) for key in ("observations", "run", "stage", "lap")}
                check_place(path, card)
                names = [name for name in reads.arrays if name in file]
                if reads.count is None:
                    return Evaluation(**card, arrays={name: rows(path, name) for name in names})
                first = slice(reads.count)
                return Evaluation(**card, arrays={name: file.read(name, first) for name in names})

        tables, clean, chosen = (files.get(name) for name in ("metrics", "clean", "chosen"))
        yield Source(
            experiment,
            _as_text(labels),
            rows=over_seeds(read_rows(tables), metrics) if tables else None,
            truth=rows(clean, "test/x") if clean else None,
            losses=[_losses(Path(path)) for path in files.get("losses", [])],
            chosen=_chosen(chosen) if chosen else {},
            evaluations=[evaluation(path) for path in files.get("evaluations", [])],
            metrics=metrics,
            ceilings={observations: _as_text(names) for observations, names in ceilings.items()},
            trained=trained,
        )


def _as_text(names: Mapping[str, str]) -> dict[str, str]:
    """Returns names that Matplotlib does not take for mathematics, as between two dollars."""
    return {key: name.replace("$", r"\$") for key, name in names.items()}


def _losses(path: Path) -> Losses:
    """Reads the losses of a lap, whose run and number the path tells."""
    from diem.report.curves import read_curve

    lap, run = path.parent, path.parents[1]
    return Losses(run.name, lap_number(lap.name.removeprefix("lap_")), read_curve(path))


def _chosen(path: str) -> dict[str, int]:
    """Reads which lap of each run is chosen, from the table of the experiment's chosen laps."""
    from diem.evaluation.selection import read_selection, selected_lap

    table = read_selection(path)
    return {run: selected_lap(table, run) for run in table["run"].unique()}


def write_caption(name: str, text: str, folder: str | Path) -> Path:
    """Writes a figure's caption to a file, where Snakemake's report looks for captions.

    Arguments:
        name: The figure's name.
        text: The caption.
        folder: The folder of the captions.

    Returns:
        The absolute path of the file, which is written only if it differs.
    """
    path = Path(folder).absolute() / f"{name}.rst"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return path
