"""What a metric is.

A metric measures what an evaluation has drawn of a prior, and says what its numbers are. Nothing
else knows its name: configuration, rules, tables and figures read its declaration.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, SupportsFloat

from diem.components import Component
from diem.errors import DiemError
from diem.evaluation.standard_error import standard_error
from diem.lazy import torch

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from diem.evaluation.arrays import Array
    from diem.evaluation.evaluate import Evaluation

__all__ = [
    "P_VALUE",
    "SUBJECTS",
    "Fidelity",
    "Label",
    "Measurement",
    "Metric",
    "Panel",
    "Planned",
    "clean_test",
    "mean_of",
    "too_few",
]

Subject = Literal["samples", "observations", "posterior"]

SUBJECTS: tuple[Subject, ...] = ("samples", "observations", "posterior")
"""What metrics measure, in the order in which an evaluation is measured."""


P_VALUE = "p-value"
"""The unit of p-values, which are not averaged over seeds as other numbers are."""


class Label(NamedTuple):
    """How the numbers of a metric are presented to readers.

    Attributes:
        name: Their name.
        unit: Their unit, in which ``{extractor}`` stands for the name of the row's extractor.
        better: An arrow to where better values are, ``↓`` or ``↑``, if there is such a direction.
        least: The value at which an axis begins; none where only differences tell.
        summary: Whether the experiment's table has a column of them.
        heading: What a column of them is called, in four words at most with the unit, where the
            name and the unit are longer: notes tell both in full.
    """

    name: str
    unit: str = ""
    better: str = ""
    least: float | None = 0.0
    summary: bool = True
    heading: str = ""


class Panel(NamedTuple):
    """Where a metric is drawn by lap.

    Attributes:
        figure: The name of the figure.
        place: The place of the metric's panels in the figure, from low to high.
    """

    figure: str
    place: float = 100


class Planned(NamedTuple):
    """What is known of an evaluation before anything runs.

    Attributes:
        event_shape: The shape of one sample.
        counts: The number of samples by split, or none where only files can tell that are not
            there.
        settings: The config's ``evaluation`` entry; of a comparison of restorations nothing.
    """

    event_shape: tuple[int, ...]
    counts: Mapping[str, int] | None
    settings: Mapping[str, Any]


class Measurement(NamedTuple):
    """One number.

    Attributes:
        value: The number.
        subject: What was measured, see :data:`diem.evaluation.rows.CARD`.
        card: What made the number: columns of its row.
        metric: The name of its row, if it is not the metric's own.
        error: Its standard error over observations or images, if it is a mean of them.
    """

    value: float
    subject: str
    card: Mapping[str, Any] = {}
    metric: str = ""
    error: float | None = None


def mean_of(
    values: Tensor,
    subject: str,
    card: Mapping[str, Any] = {},
    metric: str = "",
    groups: np.ndarray | None = None,
) -> Measurement:
    """Returns the mean of a number of each observation, with its standard error.

    Arguments:
        values: The numbers, of shape ``(N,)``. One that is NaN makes the mean NaN.
        subject: What was measured.
        card: What made them.
        metric: The name of the row, if it is not the metric's own.
        groups: The groups of the observations, see :func:`standard_error`.
    """
    error = standard_error(values, groups)
    return Measurement(float(values.mean()), subject, card, metric, error)


def clean_test(count: int) -> dict[str, Any]:
    """Returns the part of a card that tells that numbers compare with the clean test split."""
    return {"reference": "clean test", "reference_samples": count}


def too_few(planned: Planned, least: int) -> str | None:
    """Returns that there are fewer samples or test samples than a metric needs, or nothing."""
    if planned.settings["samples"] < least:
        return f"{least} samples or more (evaluation.samples)"
    few = planned.counts is not None and planned.counts["test"] < least
    return f"{least} test samples or more (data.test)" if few else None


class Metric(Component, abc.ABC):
    """A metric of priors. Its options are keys of its entry in ``evaluation.metrics``.

    A metric of one's own defines :attr:`name`, :attr:`labels` and :meth:`measure`.
    """

    labels: ClassVar[Mapping[str, Label]]
    """How its numbers are presented, by the name of their rows, which begins with the metric's."""
    order: ClassVar[float] = 1000
    """The place of its columns in tables, from low to high."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """What the data must have: ``clean`` ones, ``images``, ``colour``, ``labels``, a ``curve``."""
    subject: ClassVar[Subject] = "posterior"
    """What it measures: many ``samples`` (of the prior, and those that it was trained on), the
    ``observations`` that were held out, or ``posterior`` samples of some of them."""
    inputs: ClassVar[tuple[str, ...]] = ()
    """The names of the files that it needs besides."""
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Of inputs that are folders, the files in them."""
    panel: ClassVar[Panel | None] = None
    """Where it is drawn by lap."""
    quality: ClassVar[float | None] = None
    """How telling it is of a prior's quality, by clean data: the lowest is the most telling."""
    selects: ClassVar[bool] = False
    """Whether the lap to use is selected by it: it needs no clean data then."""
    sections: ClassVar[frozenset[str]] = frozenset({"experiments"})
    """The sections of the configuration whose entries it can be named in."""

    @abc.abstractmethod
    def measure(self, evaluation: Evaluation) -> SupportsFloat | Iterable[Measurement]:
        """Measures an evaluation.

        Arguments:
            evaluation: What was drawn, and what it is compared with.

        Returns:
            The number of the metric's subject (of ``samples`` it is that of the prior's), or
            several numbers with what they are of.
        """

    def problem(self, planned: Planned) -> str | None:
        """Returns why it cannot be measured, or nothing if it can.

        Arguments:
            planned: What is known before anything runs.

        Returns:
            The end of the sentence "the metric needs ...".
        """
        return None

    def memory(self, settings: Mapping[str, Any]) -> float:
        """Returns the bytes that it holds beside what every evaluation does.

        Arguments:
            settings: The config's ``evaluation`` entry.
        """
        return 0.0

    def draws(self, settings: Mapping[str, Any], counts: Mapping[str, int]) -> int:
        """Returns how many posterior samples it draws beside those of every evaluation.

        Arguments:
            settings: The config's ``evaluation`` entry.
            counts: The number of observations by split.
        """
        return 0


class Fidelity(Metric):
    """A metric that compares each reconstruction with the truth.

    It measures posterior samples and their means, reconstructions by other priors, and, if
    ``restoration`` is one of its sections, images that were restored by other methods.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"clean"})

    @abc.abstractmethod
    def values(self, x: Array, truth: Array, data_range: float = 4.0, tool: Any = None) -> Tensor:
        """Returns the value of each reconstruction, with shape ``(N,)``.

        Arguments:
            x: The reconstructions, with shape ``(N, *event)``.
            truth: What they should be, with the same shape.
            data_range: The range of the data's scale, that of [-2, 2] by default.
            tool: What :meth:`load` has returned.
        """

    def load(self, files: Mapping[str, Any], device: torch.device) -> Any:
        """Loads what it computes with, such as a network, from the files of its inputs."""
        return None

    def card(self, tool: Any) -> dict[str, Any]:
        """Returns the part of a number's card that tells what it was computed with."""
        return {}

    def of_each(self, x: Tensor, truth: Tensor, tool: Any = None) -> Tensor:
        """Returns the value of each observation, ``(N,)``; images are compared by intensities.

        Arguments:
            x: The reconstructions, with shape ``(N, *event)``, or ``(N, draws, *event)``, whose
                mean over draws counts.
            truth: What they should be, with shape ``(N, *event)``.
            tool: What :meth:`load` has returned.

        Raises:
            DiemError: If :meth:`values`, as that of a user's own may, returns something else.
        """
        from diem.evaluation.arrays import intensities

        count = len(truth)
        if x.ndim > truth.ndim:
            truth = truth[:, None].expand_as(x).flatten(0, 1)
            x = x.flatten(0, 1)
        if x.ndim == 4:
            values = self.values(intensities(x), intensities(truth), 1.0, tool)
        else:
            values = self.values(x, truth, tool=tool)
        fits = torch.is_tensor(values) and values.shape == (len(x),) and values.is_floating_point()
        if not fits:
            raise DiemError(
                f"evaluation.metrics: the method values of {self.name!r} does not return a tensor"
                f" of {len(x)} floating-point numbers, one a reconstruction."
            )
        return values.reshape(count, -1).mean(dim=1)

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        posterior, truth = evaluation.posterior, evaluation.truth
        tool = self.load(evaluation.files, evaluation.device)
        card = {**clean_test(len(truth)), **self.card(tool), **posterior.card}
        groups = evaluation.groups
        yield mean_of(self.of_each(posterior.x, truth, tool), "posterior", card, groups=groups)
        mean = posterior.x.mean(dim=1)
        yield mean_of(self.of_each(mean, truth, tool), "posterior_mean", card, groups=groups)
