"""Checks a user's file of observations, before anything is computed.

:func:`check_file` says in plain words what a file holds and what is wrong with it.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from diem.data.observations import SPLITS, Observations, users_observations
from diem.data.sets.hdf5 import FRACTIONS, held_out
from diem.data.totals import Totals
from diem.errors import DiemError
from diem.operators.base import Operator
from diem.operators.verify import PROBED, verify_operator

__all__ = ["RESCALE", "Finding", "check_file", "validation_fraction", "verified_operator"]

RESCALE = (
    "scale y and sigma_y before you write them, or set data.offset and data.scale in the config."
)
"""The remedy of data that are not scaled to [-2, 2]."""

FEW_GROUPS = 10
"""Of fewer groups a standard error tells little."""


class Finding(NamedTuple):
    """What a check found.

    Attributes:
        level: ``note`` (what the file holds), ``warning`` (worth a look) or ``error``.
        sentence: The finding in words.
    """

    level: str
    sentence: str


class _Findings(list[Finding]):
    """What has been found so far."""

    def note(self, sentence: str) -> None:
        self.append(Finding("note", sentence))

    def warn(self, sentence: str) -> None:
        self.append(Finding("warning", sentence))

    def error(self, sentence: str) -> None:
        self.append(Finding("error", sentence))


def check_file(
    path: str | Path,
    operator: str | None = None,
    sigma_y: float | Sequence[float] | None = None,
    links: bool = False,
) -> list[Finding]:
    """Reads a file of observations from end to end, and says what it holds and what is wrong.

    The file is read in blocks, so that it may be larger than memory.

    Arguments:
        path: The file, see :mod:`diem.data.ingest` for its layout.
        operator: The operator's name or import path, if the file does not hold it. A class is
            imported only if it is named by this argument: a file alone has no code run.
        sigma_y: The noise's standard deviation, if the file does not hold it.
        links: Whether the file may read other files of this machine.

    Returns:
        Notes, warnings and errors. A file without errors can be used.
    """
    found = _Findings()
    try:
        with users_observations(path, operator, sigma_y, links) as file:
            _check_contents(file, found)
    except DiemError as error:
        found.error(str(error))
    return found


def _check_contents(file: Observations, found: _Findings) -> None:
    size = Path(file.path).stat().st_size / 1e6
    found.note(
        f"{file.path} ({size:,.1f} MB) holds observations y = A x + n of x with shape"
        f" {file.event_shape}, through the operator {file.operator!r}."
    )
    splits = [split for split in SPLITS if split in file]
    if "train" not in splits:
        raise DiemError(f"{file.path}: the group 'train' is missing.")
    for split in SPLITS:
        if split not in splits:
            found.note(f"There is no {split!r}: a part of 'train' is held out for it.")
    for name in sorted(set(file.names("/")) - {*SPLITS, "sigma_y"}):
        found.warn(f"{name!r} is none of {', '.join(SPLITS)}, sigma_y, and is not read.")

    totals: dict[str, Totals] = {}
    for split in splits:
        try:
            totals[split] = _read(file, split, found)
        except DiemError as error:
            found.error(str(error))
    if "train" in totals:
        try:
            _count_groups(file, validation_fraction(file), found)
        except DiemError as error:
            found.error(str(error))
    for split, of_split in totals.items():
        if of_split.values == 0:
            found.error(f"{file.path}: {split}: no value is observed.")
        else:
            _judge(split, of_split, found)
        for before in splits[: splits.index(split)]:
            _compare_groups(file, before, split, found)
            shared = len(of_split.hashes & totals[before].hashes) if before in totals else 0
            if shared:
                found.warn(
                    f"{shared:,} observations of {split!r} are also in {before!r}, so that what is"
                    " measured on held-out observations is not held out."
                )


def validation_fraction(file: Observations) -> float:
    """Returns the fraction of ``train`` that is held out for validation, if it is not said.

    It is larger than the default of few observations, since laps are compared by two or more.

    Raises:
        DiemError: If there are too few.
    """
    fractions = {split: part for split, part in FRACTIONS.items() if split not in file}
    sizes = np.sort(_sizes(file))
    scenes, least = len(sizes), 1 + len(fractions)
    if "validation" in fractions:
        held = max(1, round(fractions["validation"] * scenes))
        if sizes[:held].sum() < 2:  # those that are drawn may be the smallest
            fractions["validation"], least = float(f"{2 / scenes:.3g}"), least + 1
    elif file.count("validation") < 2:
        raise DiemError(
            f"{file.path}: 'validation' holds {file.count('validation')} of the two observations or"
            " more that laps are compared by."
        )
    try:
        held_out(str(file.path), scenes, fractions)
    except DiemError as error:
        raise DiemError(f"{str(error).rstrip('.')}: {least} or more are needed.") from None
    return fractions.get("validation", FRACTIONS["validation"])


def _sizes(file: Observations) -> np.ndarray:
    """Returns how many observations of ``train`` each group, or ``x``, has, which stay together."""
    for name in ("groups", "index"):
        if f"train/{name}" in file:
            return np.bincount(file.numbered("train", name))
    return np.ones(file.count("train"), int)


def _count_groups(file: Observations, fraction: float, found: _Findings) -> None:
    """Warns of few groups of validation observations, which choose the lap."""
    lacking = "validation" not in file
    split = "train" if lacking else "validation"
    if f"{split}/groups" not in file:
        return
    count = len(np.unique(file.labels(f"{split}/groups")))
    if lacking:
        count = max(1, round(fraction * count))
    if count < FEW_GROUPS:
        found.warn(
            f"validation {'will have' if lacking else 'has'} {count} groups, by which"
            " laps are hardly told apart: hold out more (data.validation), or give more groups."
        )


def _compare_groups(file: Observations, before: str, split: str, found: _Findings) -> None:
    """Warns of groups that are in two splits of the file's own."""
    if all(f"{name}/groups" in file for name in (before, split)):
        shared = np.intersect1d(file.labels(f"{before}/groups"), file.labels(f"{split}/groups"))
        if len(shared):
            found.warn(f"{len(shared):,} groups of {split!r} are also in {before!r}.")


def verified_operator(file: Observations, split: str) -> Operator:
    """Returns the operator of the first observations of a split, which is what it must be.

    Raises:
        DiemError: If it is not, or there are no observations.
    """
    count = file.count(split)
    if count == 0:
        raise DiemError(f"{file.path}: '{split}/y' holds no observation.")
    operator = file.load_operator(split, slice(0, min(PROBED, count)))
    try:
        verify_operator(operator, file.operator)
    except DiemError as error:
        raise DiemError(f"{file.path}: {split}: {error}") from None
    return operator


def _read(file: Observations, split: str, found: _Findings) -> Totals:
    """Reads a split from end to end."""
    operator = verified_operator(file, split)
    for name in _not_read(file, split, operator):
        found.warn(f"{name!r} is not read: the operator {file.operator!r} does not know it.")

    count = file.count(split)
    totals, generator = Totals(), torch.Generator().manual_seed(0)
    if f"{split}/groups" in file:
        found.note(f"{split}: {file.numbered(split, 'groups').max() + 1:,} groups.")
    for rows in file.blocks(split):
        totals.add(file.load(split, rows), generator)
    shape = operator.observation_shape
    share = totals.values / (totals.count * math.prod(shape))
    low, high = totals.sigma_low, totals.sigma_high
    noise = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    found.note(
        f"{split}: {count:,} observations of shape {shape}, {share:.1%} of their"
        f" values observed, between {totals.low:.4g} and {totals.high:.4g}; sigma_y {noise}."
    )
    return totals


def _not_read(file: Observations, split: str, operator: Operator) -> list[str]:
    """Returns the data sets of a split that nothing reads."""
    known = {"y", "index", "groups", "sigma_y", "operator"}
    extra = [f"{split}/{name}" for name in sorted(set(file.names(split)) - known)]
    fields = set(file.names(f"{split}/operator")) - {*operator.fields, *operator.optional}
    return extra + [f"{split}/operator/{name}" for name in sorted(fields)]


def _judge(split: str, totals: Totals, found: _Findings) -> None:
    """Warns of what is implausible about a split."""
    if totals.blank:
        found.warn(f"{split}: {totals.blank:,} observations observe nothing.")
    unseen, size = totals.never_seen()
    if unseen and split == "train":
        found.warn(
            f"{split}: {unseen:,} of the {size:,} values of x are never observed"
            " in any observation, so that nothing can be learned of them."
        )
    constant, size = totals.constant()
    if constant and totals.count > 2:
        found.warn(
            f"{split}: {constant:,} of the {size:,} values of y are the same"
            " wherever they are observed."
        )
    index = np.concatenate(totals.index)
    double = len(index) - len(np.unique(index))
    if double:
        found.warn(
            f"{split}: {double:,} observations repeat an index, so that they are of the same x, and"
            " stay together where some are held out."
        )
    if totals.repeated:
        found.warn(f"{split}: {totals.repeated:,} observations are copies of others.")
    _judge_range(split, totals, found)
    _judge_noise(split, totals, found)
    _judge_steps(split, totals, found)


def _judge_range(split: str, totals: Totals, found: _Findings) -> None:
    """Warns of data that are not scaled to [-2, 2], as far as observations show it."""
    between = f"the values of y lie between {totals.low:.4g} and {totals.high:.4g}"
    if totals.preserved:
        # Values of y are values, or means of values, of x.
        slack = 6 * totals.sigma_high
        low, high = totals.low + slack, totals.high - slack
        fits = low > -2.5 and high < 2.5 and not (totals.low > -0.1 and totals.high < 1.1)
    else:
        size = math.sqrt(max(totals.square - totals.noise, 0) / max(totals.white, totals.ones))
        between = f"x seems to be of size {size:.2g} (root mean square), and {between}"
        fits = size < 4 and (size > 0.1 or totals.noise > totals.square / 2)
    if not fits:
        found.warn(f"{split}: {between}, where values of x from -2 to 2 are expected: {RESCALE}")


def _judge_noise(split: str, totals: Totals, found: _Findings) -> None:
    """Warns of noise that is larger than the observations show."""
    sigma = math.sqrt(totals.noise / totals.values)
    variance = totals.square / totals.values - (totals.total / totals.values) ** 2
    reason = None
    if variance < 0.8 * sigma**2:
        reason = f"the observed values vary by only {math.sqrt(max(variance, 0)):.3g} altogether"
    elif totals.preserved and totals.difference < 0.8 * totals.difference_noise:
        ratio = math.sqrt(totals.difference / totals.difference_noise)
        reason = f"neighbouring values differ by only {ratio:.2g} times what noise alone would give"
    if reason:
        found.warn(f"{split}: sigma_y is {sigma:.3g}, and {reason}: it is implausibly large.")


def _judge_steps(split: str, totals: Totals, found: _Findings) -> None:
    """Warns of noise that is smaller than the rounding of the observations."""
    levels = np.array(sorted(totals.levels))
    if len(levels) <= 2 or 10 * len(levels) >= min(totals.values, 40960):
        return
    step = float(np.diff(levels).min())
    rounding = step / math.sqrt(12)
    if totals.sigma_low < rounding:
        found.warn(
            f"{split}: the values of y come in steps of {step:.3g}, whose rounding alone has a"
            f" standard deviation of {rounding:.3g}, and sigma_y is"
            f" {totals.sigma_low:.3g}: it is implausibly small."
        )
