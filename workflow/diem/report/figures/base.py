"""What a figure of an experiment is: what it reads, what it needs, and how it is drawn.

A figure is declared in one file. What it is drawn with is imported where it draws: the declarations
are read at every start of the workflow, and Matplotlib takes long.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from diem.components import Component, Kind, short, split
from diem.errors import DiemError
from diem.evaluation.metrics import Entries, find_all, labels, panels

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = [
    "FIGURES",
    "ByLap",
    "Evaluation",
    "Facts",
    "Figure",
    "Losses",
    "Reads",
    "Source",
    "check_figures",
    "figure_named",
]


VECTORS = "vectors of two or more values"
VISIBLE = "images of one channel or three"


@dataclass(frozen=True)
class Reads:
    """What a figure is drawn from.

    Arguments:
        rows: Whether it reads the experiment's metric rows.
        truth: Whether it reads the clean test data, where there are any.
        losses: Whether it reads the losses of every lap of every run.
        chosen: Whether it reads which lap of each run is chosen, where laps are.
        stages: The evaluations that it reads, in this order: ``floor``, ``laps`` (all evaluated
            ones), ``last`` (the last lap), ``ceiling`` and ``reconstructions``.
        every: Whether it reads them of the first run of each set of observations, or of the first
            run alone.
        arrays: The arrays that it reads of each, see :func:`diem.evaluation.evaluate.evaluate`; one
            that is not there is left out.
        count: How many rows of these arrays, or none for all.
    """

    rows: bool = False
    truth: bool = False
    losses: bool = False
    chosen: bool = False
    stages: tuple[str, ...] = ()
    every: bool = False
    arrays: tuple[str, ...] = ()
    count: int | None = None


@dataclass(frozen=True)
class Facts:
    """What is known of an experiment before it runs.

    Arguments:
        event_shape: The shape of one ``x``.
        metrics: The entries of ``evaluation.metrics``.
        clean: Whether there are clean data.
        reconstructs: Whether held-out images are reconstructed.
        operators: The operators of the observations that the runs learn from, by the name of the
            set: anything that tells ``keeps_shape`` and ``kspace`` as
            :class:`diem.operators.base.Operator` does.
    """

    event_shape: tuple[int, ...]
    metrics: Entries = ()
    clean: bool = True
    reconstructs: bool = False
    operators: Mapping[str, Any] = field(default_factory=dict)

    @property
    def images(self) -> bool:
        """Whether the data are images."""
        return len(self.event_shape) == 3

    @property
    def visible(self) -> bool:
        """Whether the data are images that a picture can show as they are."""
        return self.images and self.event_shape[0] in (1, 3)

    @property
    def vectors(self) -> bool:
        """Whether the data are vectors of two or more values."""
        return len(self.event_shape) == 1 and self.event_shape[0] > 1


class Figure(Component, abc.ABC):
    """A figure of an experiment.

    A figure of one's own defines :attr:`name`, :attr:`caption`, :attr:`reads` and :meth:`draw`.

    Attributes:
        name: Its name, which is that of its files.
        caption: What the report says below it, as reStructuredText. Expressions in double braces
            are Jinja's, such as ``snakemake.wildcards.experiment``.
        reads: What it is drawn from.
        clean: Whether it needs clean data.
    """

    caption: ClassVar[str]
    reads: ClassVar[Reads]
    clean: ClassVar[bool] = False

    @property
    def told(self) -> str:
        """The caption, and of which seed the figure is: metric rows are means over all of them."""
        first = self.reads.stages or self.reads.losses or self.reads.truth
        return f"{self.caption}\nOf several seeds it shows the first.\n" if first else self.caption

    def problem(self, facts: Facts) -> str | None:
        """Returns why the figure cannot be drawn of an experiment, or nothing if it can.

        A figure that needs more than what :attr:`clean` says extends this method.

        Arguments:
            facts: What is known of the experiment before it runs.

        Returns:
            The end of the sentence "the figure cannot be drawn: it needs ...".
        """
        return "clean data" if self.clean and not facts.clean else None

    @abc.abstractmethod
    def draw(self, source: Source) -> matplotlib.figure.Figure:
        """Draws the figure.

        Raises:
            DiemError: If it cannot be drawn of this source.
        """


@dataclass(frozen=True)
class Evaluation:
    """What one prior gave: arrays of an evaluation's file.

    Arguments:
        observations: The set of observations.
        run: The run; for a floor the stage, for a ceiling the run that it is named after.
        stage: ``floor``, ``lap`` or ``ceiling``.
        lap: The lap.
        arrays: Those arrays that the figure reads: NumPy's, or if it reads all of their rows, what
            has rows as :class:`diem.files.hdf5.HasRows` says, which need not be in memory.
    """

    observations: str
    run: str
    stage: str
    lap: int
    arrays: Mapping[str, Any]


@dataclass(frozen=True)
class Losses:
    """The losses of one lap's training.

    Arguments:
        run: The run.
        lap: The lap.
        curve: A row for every few optimizer steps, as :func:`diem.em.training.train` returns them,
            a data frame.
    """

    run: str
    lap: int
    curve: Any


@dataclass(frozen=True)
class Source:
    """What figures are drawn from, of which each uses what it reads.

    Arguments:
        experiment: The experiment.
        labels: The label of each run.
        rows: The metric rows, see :func:`diem.evaluation.rows.read_rows`.
        truth: The clean test data, with shape ``(N, *event)``, as
            :class:`diem.files.hdf5.HasRows`; none where there are none.
        losses: The losses of laps, in their order, run by run.
        chosen: The chosen lap of each run; empty where none are chosen.
        evaluations: Evaluations in the order of their laps, set by set of observations.
        metrics: The entries of ``evaluation.metrics``.
        ceilings: What ceilings are called, by the set of observations and the run of their rows; by
            default ``ceiling``.
        trained: The observations that each run learns from.
    """

    experiment: str
    labels: Mapping[str, str]
    rows: Any = None
    truth: Any = None
    losses: Sequence[Losses] = ()
    chosen: Mapping[str, int] = field(default_factory=dict)
    evaluations: Sequence[Evaluation] = ()
    metrics: Entries = ()
    ceilings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    trained: Mapping[str, str] = field(default_factory=dict)


class ByLap(Figure):
    """A figure of metrics by lap: by default of those whose declarations name it.

    Attributes:
        title: What it shows.
    """

    title: ClassVar[str]
    reads = Reads(rows=True)

    def shown(self, metrics: Entries) -> list[str]:
        """Returns the names of the rows that it shows, in its order.

        Arguments:
            metrics: The entries of ``evaluation.metrics``; built-in ones need not be among them.
        """
        return panels(self.name, metrics)

    def problem(self, facts: Facts) -> str | None:
        evaluated = {name for metric in find_all(facts.metrics) for name in metric.labels}
        if evaluated.isdisjoint(self.shown(facts.metrics)):
            return f"evaluation.metrics with {' or '.join(self.shown(()))}"
        return super().problem(facts)

    def draw(self, source: Source) -> matplotlib.figure.Figure:
        return self.draw_panels(source, self.shown(source.metrics), self.title)

    def draw_panels(
        self,
        source: Source,
        metrics: Sequence[str],
        title: str,
        chosen: Mapping[str, int] | None = None,
    ) -> matplotlib.figure.Figure:
        """Draws panels of metrics.

        Arguments:
            source: What the figure is drawn from.
            metrics: The names of the rows to draw.
            title: What the figure shows.
            chosen: The laps that have rings, see :func:`diem.report.drawing.laps.by_lap`.
        """
        from diem.report.drawing.laps import by_lap

        known = labels(source.metrics)
        title = f"{source.experiment}: {title}"
        settings = title, chosen, known, source.ceilings
        return by_lap(source.rows, metrics, source.labels, *settings)


class Figures(Kind[Figure]):
    """The figures that there are, and what is asked of a user's own."""

    facts = ("name", "caption", "reads")

    def accepted(self, found: Any, name: str) -> type[Figure]:
        figure = super().accepted(found, name)
        if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_-]*", figure.name):
            raise DiemError(
                f"{self.key} {name!r} is called {short(figure.name)}, and must have a name of"
                " letters, digits, '_' and '-', for its files."
            )
        return figure


FIGURES = Figures(
    "figures",
    "diem.report.figures",
    Figure,  # type: ignore[type-abstract]
    besides=("base", "files"),
)
"""The figures that the configuration may name, and the user's own by import path."""


def figure_named(spec: str | Mapping[str, Any], where: str = "figures") -> Figure:
    """Returns the figure that an entry of the configuration names, with its options.

    Arguments:
        spec: The name of a figure, or a mapping of ``name`` and options.
        where: The place of the entry in the configuration, for errors.

    Raises:
        DiemError: If there is no such figure, or it cannot be used.
    """
    name, options = split(spec, where)
    return FIGURES.find(name, where).parse(options, where)


def check_figures(specs: Sequence[str | Mapping[str, Any]], facts: Facts, where: str) -> None:
    """Refuses figures that cannot be drawn of an experiment.

    Arguments:
        specs: The entries of the experiment's ``figures``.
        facts: What is known of the experiment before it runs.
        where: The place of the entries in the configuration.

    Raises:
        DiemError: With one sentence that says why, and what can be drawn.
    """
    for spec in specs:
        figure = figure_named(spec, where)
        if reason := figure.problem(facts):
            others = [name for name, other in FIGURES.all().items() if not other().problem(facts)]
            raise DiemError(
                f"{where}: {split(spec, where)[0]!r} cannot be drawn: it needs {reason}"
                f" (what can: {', '.join(others) or 'none'})."
            )
