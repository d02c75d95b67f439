"""A configuration to begin with, chosen by what a user's file of observations holds."""

import math
import re
import shlex
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from torch import Tensor

from diem.config.checks import check_names
from diem.config.types import LONGEST
from diem.data.observations import Observations, Observed, Units
from diem.data.sets.hdf5 import FRACTIONS
from diem.data.validate import validation_fraction
from diem.errors import DiemError
from diem.networks.residual_mlp import LARGEST
from diem.operators.base import Operator

__all__ = ["KINDS", "Beginning", "beginning", "experiment_name", "shows_values"]

KINDS = ("images", "series", "table", "volumes")
"""The kinds of data: ``table`` is of columns without an order."""

LOOKED_AT = 1024
"""So many training observations are looked at."""

SERIES = 32
"""A vector of fewer values is a table."""

SMOOTH = 0.5
"""Neighbours of a series differ by less than this part of what two of its values differ by."""

LEVELS = 3
"""The levels of a U-Net, at most; the coarsest has four values or more along each axis."""

PAGE = """\
# {name}: {count:,} training observations of x with shape {shape}, seen by {operator!r}.
# Taken for {kind}: {reason}. `diem init --kind` takes another of {kinds}.
#
# This is a place to begin, and no more: `diem estimate {config}` tells its cost, and the table
# {table} whether what was
# learned predicts hidden values better than a Gaussian does, with its error. If not, take more
# m_step.steps or laps (only new laps are done), and a larger network.
experiments:
  {name}:
    recipe: fast                     # few steps of sampling, many cheap laps
    data:
      name: hdf5
      path: {path}
{validation}{scaling}
    observations:
      all: {observations}
    network: {network}
    schedule: {{sigma_min: {sigma_min:.3g}, sigma_max: 20.0}}  # from below the noise to beyond x
    gaussian: {{{gaussian}}}
    laps: {laps}
{e_step}    m_step:
      steps: {steps}
{first}      batch: {batch}
      learning_rate: {rate}
    evaluation:
      laps: {evaluated}
      samples: {samples}
      sampler: {{steps: 64}}
      predicted_observations: {predicted}
      posterior_samples: 8
    figures: [{figures}]
    runs:
      base: {{observations: all}}
"""


FEW, MANY = 2048, 16384
"""A perceptron learns the rows of a table by heart, unless it begins with what is known of them (a
Gaussian that is shrunk) and trains shortly on several samples of each: tables of fewer rows than
the first number in few laps and at a low rate, those of as many as the second on one sample."""

REPEATS = """\
    e_step:
      repeats: 8                     # samples of each row: they are not learned by heart then
      final: 1                       # and no more of them in the last lap
"""

FIRST = "      first: 3                       # the first lap starts from fresh weights\n"


class Beginning(NamedTuple):
    """A configuration to begin with.

    Attributes:
        kind: The kind of the data.
        reason: Why it was taken for that.
        text: The configuration, YAML with comments.
    """

    kind: str
    reason: str
    text: str


def experiment_name(file: str | Path) -> str:
    """Returns a name for the experiment of a file, which a configuration can have."""
    name = re.sub("[^A-Za-z0-9_-]+", "_", Path(file).stem).strip("_-")[:LONGEST] or "own"
    try:
        check_names({"experiments": [name], "heuristics": {}, "restoration": {}}, str(file))
    except DiemError:  # such as that of a folder of the results
        name = f"{name}_data"
    return name


def beginning(
    file: Observations,
    name: str,
    config: str,
    kind: str | None = None,
    operator: str | None = None,
    sigma_y: float | None = None,
    links: bool = False,
) -> Beginning:
    """Returns a configuration to begin with.

    Arguments:
        file: The user's file.
        name: The name of the experiment.
        config: The name of the file that the configuration is for.
        kind: The kind of the data, one of :data:`KINDS`; without it, it is judged by the file.
        operator: The operator, if the file does not name it.
        sigma_y: The noise, if the file does not hold it.
        links: Whether the file may read other files.

    Raises:
        DiemError: If the file cannot be read, or holds too few observations.
    """
    validation = validation_fraction(file)
    shape, count = file.event_shape, file.count("train")
    some = file.load("train", file.subset("train", LOOKED_AT, 0))
    reason = "as you say"
    if kind is None:
        kind, reason = _kind(shape, some)
    visible = len(shape) != 3 or shape[0] in (1, 3)
    figures = ["prior"] if visible else []
    if visible and len(shape) == 3 and some.operator.observation_shape == shape:
        figures.append("inpainting")
    # The values of a series of one axis are no columns.
    several = kind == "table" if len(shape) == 1 else shape[0] > 1
    several &= some.operator.elementwise
    offset, scale = _scaling(some, several)
    seen = some.operator.observed().expand_as(some.y)
    learned = some.scaled(offset, scale).sigma_y.expand_as(some.y)[seen]
    # Where columns or channels have a scale each, their noise may differ by orders of magnitude.
    noise = float(learned.amin() if isinstance(scale, list) else learned.median())
    told = [f"operator: {_quoted(operator)}"] if operator else []
    told += [f"sigma_y: {sigma_y}"] if sigma_y else []
    note = "" if told else "  # the file tells operator and noise"
    text = PAGE.format(
        name=name,
        count=count,
        shape=shape,
        operator=file.operator,
        kind=kind,
        reason=reason,
        kinds=", ".join(KINDS),
        config=shlex.quote(config),
        table=f"results/tables/{name}_chosen_lap.md",
        path=_quoted(str(file.path)),
        validation=_validation_told(validation),
        scaling=_scaling_told(offset, scale, several) + ("\n      links: true" if links else ""),
        observations=f"{{{', '.join(told)}}}{note}",
        **_learning(kind, shape, count),
        sigma_min=min(max(0.2 * noise, 1e-3), 0.01),
        samples=1024 if len(shape) < 3 else 64,
        figures=", ".join([*figures, "lap_choice", "losses"]),
    )
    return Beginning(kind, reason, text)


def _kind(shape: Sequence[int], some: Observed) -> tuple[str, str]:
    """Returns the kind of data, and why."""
    if len(shape) > 3:
        return "volumes", "x has more than three axes"
    if len(shape) == 3:
        return "images", "x has the axes (channels, height, width)"
    if len(shape) == 2:
        return "series", "x has the axes (channels, length)"
    if shape[0] < SERIES:
        return "table", f"x has fewer than {SERIES} values"
    if some.operator.observation_shape != tuple(shape):
        return "table", "observations do not show whether neighbouring values resemble each other"
    seen = some.operator.observed().expand_as(some.y)
    both = seen[:, 1:] & seen[:, :-1]
    step = some.y.diff(dim=1)[both].square().mean() / 2
    if step < SMOOTH * some.y[seen].var():
        return "series", "neighbouring values resemble each other"
    return "table", "neighbouring values do not resemble each other"


def _learning(kind: str, shape: Sequence[int], count: int) -> dict[str, object]:
    """Returns how data of a kind are learned, by the names of these places of the page."""
    network, convolved = _network(kind, shape)
    size = math.prod(shape)
    rank = f"rank: {min(64, size - 1, count // 2)}"
    learning: dict[str, object] = {
        "network": network,
        "gaussian": f"{rank}, iterations: {16 if size <= 256 else 8}",
        "laps": 8,
        "evaluated": [1, 2, 4, 6],
        "e_step": "",
        "first": FIRST,
        "steps": 2000,
        "batch": 256,
        "rate": "5.0e-4",
        "predicted": 256,
    }
    if convolved:  # twenty passes a lap, within bounds
        steps = min(max(10 * round(2 * count / 64), 250), 1000)
        learning |= {"steps": steps, "batch": 64, "rate": "1.0e-3", "predicted": 128}
    elif kind == "table":
        steps = min(max(10 * round(count / 64), 250), 2000)
        gaussian = f"{rank}, iterations: 32, shrinkage: 3"
        learning |= {"gaussian": gaussian, "first": "", "steps": steps, "rate": "3.0e-4"}
        if count < MANY:
            learning |= {"e_step": REPEATS}
        if count < FEW:
            learning |= {"laps": 4, "evaluated": [1, 2, 3], "rate": "1.0e-4"}
    return learning


def _network(kind: str, shape: Sequence[int]) -> tuple[str, bool]:
    """Returns the network's entry, and whether it is a U-Net."""
    size = shape[1:] if len(shape) > 1 else shape
    levels = 0
    while levels < LEVELS and all(n % 2**levels == 0 and n >= 4 * 2**levels for n in size):
        levels += 1
    if kind not in ("images", "series") or levels < 2:
        start = ", gaussian: true" if kind == "table" and math.prod(shape) <= LARGEST else ""
        return f"{{name: residual_mlp, width: 256, blocks: 4{start}}}", False
    channels = [32, 64, 128][:levels] if kind == "images" else [32, 64, 64][:levels]
    kernel = ", kernel: 5" if kind == "series" else ""
    return f"{{name: unet, channels: {channels}, blocks: 1{kernel}, dropout: 0.0}}", True


def _scaling(some: Observed, several: bool) -> tuple[Units, Units]:
    """Returns the mean and the size of x as far as observations show it, or that of data in place.

    Only operators whose observations are values of x show it.

    Arguments:
        some: The observations.
        several: Whether each column or channel may have its own, where one number does not do for
            all.
    """
    if not shows_values(some.operator):
        return 0.0, 1.0
    seen = some.operator.observed().expand_as(some.y)
    offset, scale = float(some.y[seen].mean()), float(some.y[seen].std()) or 1.0
    if _in_place(offset, scale):
        offset, scale = 0.0, 1.0
    else:
        # Three digits, or as many as tell the mean to half of the size.
        digits = max(3, 1 + math.ceil(math.log10(max(1.0, abs(offset) / scale))))
        offset, scale = float(f"{offset:.{digits}g}"), float(f"{scale:.3g}")
    if several:
        parts = (part.unbind(1) for part in (some.y, some.sigma_y.expand_as(some.y), seen))
        columns = [
            _of_column(y[shown], sigma_y[shown]) for y, sigma_y, shown in zip(*parts, strict=True)
        ]
        if not all(_in_place((mean - offset) / scale, sd / scale) for mean, sd in columns):
            return [mean for mean, _ in columns], [sd for _, sd in columns]
    return offset, scale


def _in_place(mean: float, sd: float) -> bool:
    """Returns whether values are scaled as they should be."""
    return abs(mean) < 1 and 0.3 < sd < 1.5


def _of_column(values: Tensor, sigma_y: Tensor) -> tuple[float, float]:
    """Returns the mean and the size of a column or channel, rounded to some hundredths of the size.

    Of one that is not seen, or the same in all rows, the size is 1; none is less than its noise,
    which a few values may be by chance.
    """
    mean = float(values.double().mean()) if len(values) else 0.0
    sd = float(values.double().std()) if len(values) > 1 else 0.0
    if len(values) and sd:
        sd = max(sd, float(sigma_y.median()))
    if sd < 1e-6 * abs(mean) or sd == 0:  # that of single precision is none
        return float(f"{mean:.9g}"), 1.0
    return round(mean, 2 - math.ceil(math.log10(sd))) + 0.0, float(f"{sd:.3g}")  # none is -0.0


def shows_values(operator: Operator) -> bool:
    """Returns whether observations are values of ``x``, or means of them, so that scales show."""
    seen = operator.observed()
    ones = operator.forward(torch.ones(len(seen), *operator.event_shape))
    return bool(seen.any()) and torch.allclose(ones[seen], torch.ones(()), atol=1e-3)


def _quoted(text: str) -> str:
    """Returns a text as it stands in YAML, on one line."""
    dumped = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=math.inf)
    return dumped.removesuffix("\n")


def _validation_told(fraction: float) -> str:
    """Returns the line of ``data.validation``, if it is not the default."""
    if fraction == FRACTIONS["validation"]:
        return ""
    line = f"      validation: {fraction}"
    return f"{line:<37}# two observations, by which laps are compared\n"


def _scaling_told(offset: Units, scale: Units, several: bool) -> str:
    note = "what is learned, u of x = offset + scale u, should span about -2 to 2"
    if isinstance(scale, list):
        lists = [f"offset: {offset}", f"scale: {scale}"]
        wrapped = [
            textwrap.fill(
                line, 100, initial_indent=6 * " ", subsequent_indent=8 * " ", break_on_hyphens=False
            )
            for line in lists
        ]
        return "\n".join([f"      # {note}; one number each", *wrapped])
    lines = [f"      offset: {offset}", f"      scale: {scale}"]
    lines[0] = f"{lines[0]:<37}# {note}"
    if several:
        lines[1] = f"{lines[1]:<37}# one for all; a list gives each column or channel its own"
    return "\n".join(lines)
