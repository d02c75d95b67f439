"""Checks of what a user brings: a file of observations, and a forward operator.

:func:`check_file` tells in plain words what a file holds and what is wrong with it, and
:func:`verify_operator` whether a class is the linear operator that the method takes it for. Both
run before anything is computed.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from diem.data.observations import SPLITS, Observations, Observed, users_observations
from diem.errors import DiemError
from diem.operators.base import Operator

__all__ = ["Finding", "check_file", "row_blocks", "verify_operator"]

TOLERANCE = 1e-4
"""The largest error of an operator's identities, relative to the norms: single precision's."""

BLOCK = 2**22
"""So many values of ``x``, ``y`` and parameters together are in memory at a time."""

COMPARED = 2**20
"""Copies are looked for among so many observations of a split, whose digests are in memory."""

PROBED = 4
"""The operators of so many observations are verified."""


class Finding(NamedTuple):
    """What a check found.

    Attributes:
        level: ``note`` (what the file holds), ``warning`` (worth a look) or ``error``.
        sentence: It in words.
    """

    level: str
    sentence: str


def row_blocks(file: Observations, split: str) -> Iterator[slice]:
    """Yields consecutive rows of a split, so few at a time that they fit in memory."""
    count = file.count(split)
    names = [f"{split}/y", *(f"{split}/operator/{f}" for f in file.names(f"{split}/operator"))]
    size = math.prod(file.event_shape) + sum(math.prod(file.shape(name)[1:]) for name in names)
    rows = max(1, BLOCK // size)
    for start in range(0, count, rows):
        yield slice(start, min(start + rows, count))


def verify_operator(operator: Operator, name: str, seed: int = 0) -> None:
    """Checks on random vectors that an operator is linear, and its adjoint the adjoint.

    Arguments:
        operator: The operators of a few observations.
        name: The operator's name, for errors.
        seed: The seed of the vectors.

    Raises:
        DiemError: If a method fails, changes shapes, gives values that are not finite, mixes the
            observations of a batch, or is not what it must be. The sentence names the operator.
    """
    generator = torch.Generator().manual_seed(seed)
    count = max(len(operator), 2)

    def refused(reason: str) -> DiemError:
        return DiemError(f"operator {name!r}: {reason}.")

    def called(what: str, function: Callable[[], Tensor], shape: tuple[int, ...]) -> Tensor:
        try:
            value = function()
        except DiemError:
            raise
        except Exception as error:  # whatever a user's class raises
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise refused(f"{what} fails ({reason.rstrip('.')})") from None
        if not isinstance(value, Tensor):
            raise refused(f"{what} returns {type(value).__name__}, where a tensor is needed")
        if tuple(value.shape) != shape:
            raise refused(f"{what} has shape {tuple(value.shape)}, where {shape} is needed")
        if value.dtype not in (torch.float32, torch.bool):
            raise refused(f"{what} holds {value.dtype}, where torch.float32 is needed")
        if value.dtype == torch.float32 and not torch.isfinite(value).all():
            raise refused(f"{what} holds non-finite values")
        return value

    try:
        shape = operator.observation_shape
    except Exception as error:  # whatever a user's class raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise refused(f"observation_shape fails ({reason})") from None
    if not isinstance(shape, tuple) or not all(isinstance(n, int) and n > 0 for n in shape):
        raise refused(
            f"observation_shape is {shape!r}, where a tuple of positive integers is needed"
        )

    def forward(x: Tensor, some: Operator = operator) -> Tensor:
        return called("forward", lambda: some.forward(x), (len(x), *shape))

    def inner(a: Tensor, b: Tensor) -> Tensor:
        return (a.double() * b.double()).flatten(1).sum(dim=1)

    def norm(a: Tensor) -> Tensor:
        return inner(a, a).sqrt()

    x, z = torch.randn(2, count, *operator.event_shape, generator=generator).unbind()
    y = torch.randn(count, *shape, generator=generator)
    ax, az = forward(x), forward(z)
    aty = called("adjoint", lambda: operator.adjoint(y), (count, *operator.event_shape))
    if not torch.equal(ax, forward(x)):
        raise refused("forward gives other values when it is called again")
    if not (ax.any() or az.any()):
        raise refused("forward is zero for every x, so nothing is observed")

    if len(operator) > 1:
        part = called("forward of a part", lambda: operator[1:2].forward(x[1:2]), (1, *shape))
        if (norm(part - ax[1:2]) > TOLERANCE * norm(ax[1:2])).any():
            raise refused("forward mixes the observations of a batch, or operator[rows] fails")

    error = norm(forward(2 * x - 3 * z) - (2 * ax - 3 * az))
    scale = norm(ax) + norm(az)
    if (error > TOLERANCE * scale).any() or forward(torch.zeros_like(x)).any():
        raise refused("forward is not linear (A (2 x - 3 z) differs from 2 A x - 3 A z)")
    left, right = inner(ax, y), inner(x, aty)
    scale = norm(ax) * norm(y) + norm(x) * norm(aty)
    if ((left - right).abs() > TOLERANCE * scale).any():
        worst = int(((left - right).abs() / scale).argmax())
        raise refused(
            f"adjoint is not the adjoint of forward (<A x, y> is {left[worst]:.5g} and <x, A' y> is"
            f" {right[worst]:.5g})"
        )
    observed = called("observed", operator.observed, (len(operator), *shape))
    if observed.dtype != torch.bool:
        raise refused(f"observed holds {observed.dtype}, where booleans are needed")
    if ax[~observed.expand_as(ax)].any():
        raise refused("forward is not zero where observed says that nothing is observed")


@dataclass
class _Totals:
    """Sums over the observations of a split."""

    count: int = 0
    values: int = 0
    blank: int = 0
    square: float = 0.0
    noise: float = 0.0
    white: float = 0.0
    ones: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    sigma_low: float = math.inf
    sigma_high: float = 0.0
    difference: float = 0.0
    difference_noise: float = 0.0
    preserved: bool = True
    seen: Tensor | None = None
    lowest: Tensor | None = None
    highest: Tensor | None = None
    mean: float = 0.0
    levels: set[float] = field(default_factory=set)
    hashes: set[bytes] = field(default_factory=set)
    repeated: int = 0
    index: list[np.ndarray] = field(default_factory=list)

    def add(self, some: Observed, generator: torch.Generator) -> None:
        """Adds the observations of a block."""
        y, operator = some.y.double(), some.operator
        observed = operator.observed().expand_as(some.y)
        sigma_y = some.sigma_y.double().expand_as(y)
        self.count += len(y)
        self.values += int(observed.sum())
        self.index.append(some.index)
        if not observed.any():
            self.blank += len(y)
            return
        whole = observed.flatten(1).any(dim=1)
        self.blank += int((~whole).sum())
        self.mean += float(y.sum())
        self.square += float(y.square().sum())
        self.noise += float(sigma_y[observed].square().sum())
        kept = y[observed]
        self.low, self.high = min(self.low, float(kept.min())), max(self.high, float(kept.max()))
        self.sigma_low = min(self.sigma_low, float(sigma_y[observed].min()))
        self.sigma_high = max(self.sigma_high, float(sigma_y[observed].max()))
        if len(self.levels) <= 4096:
            self.levels.update(some.y[observed][:65536].unique().tolist())

        signs = torch.randint(2, some.y.shape, generator=generator) * 2.0 - 1
        seen = operator.adjoint(signs * observed).square().sum(dim=0)
        self.seen = seen if self.seen is None else self.seen + seen
        event = (len(y), *operator.event_shape)
        white = operator.forward(torch.randint(2, event, generator=generator) * 2.0 - 1)
        ones = operator.forward(torch.ones(event))
        self.white += float(white.double().square().sum())
        self.ones += float(ones.double().square().sum())
        self.preserved &= bool(torch.allclose(ones[observed], torch.ones(()), atol=1e-3))

        low = torch.where(observed, y, math.inf).amin(dim=0)
        high = torch.where(observed, y, -math.inf).amax(dim=0)
        self.lowest = low if self.lowest is None else torch.minimum(self.lowest, low)
        self.highest = high if self.highest is None else torch.maximum(self.highest, high)
        both = observed[..., 1:] & observed[..., :-1]
        self.difference += float(y.diff(dim=-1)[both].square().sum())
        noise = sigma_y[..., 1:].square() + sigma_y[..., :-1].square()
        self.difference_noise += float(noise[both].sum())
        for row, whole_row in zip(some.y.numpy(), whole.tolist(), strict=True):
            if whole_row and len(self.hashes) < COMPARED:
                digest = hashlib.blake2b(row.tobytes(), digest_size=12).digest()
                self.repeated += digest in self.hashes
                self.hashes.add(digest)


def check_file(
    path: str | Path,
    operator: str | None = None,
    sigma_y: float | Sequence[float] | None = None,
) -> list[Finding]:
    """Reads a file of observations from end to end, and tells what it holds and what is wrong.

    The file is read in blocks, so that it may be larger than memory.

    Arguments:
        path: The file, see :mod:`diem.data.ingest` for its layout.
        operator: The operator's name or import path, if the file does not tell it. A class is
            imported only if it is named here: a file alone has no code run.
        sigma_y: The noise's standard deviation, if the file does not tell it.

    Returns:
        Notes, warnings and errors. A file without errors can be used.
    """
    found: list[Finding] = []
    try:
        with users_observations(path, operator, sigma_y) as file:
            _check_contents(file, found)
    except DiemError as error:
        found.append(Finding("error", str(error)))
    return found


def _check_contents(file: Observations, found: list[Finding]) -> None:
    def tell(level: str, sentence: str) -> None:
        found.append(Finding(level, sentence))

    size = Path(file.path).stat().st_size / 1e6
    tell(
        "note",
        f"{file.path} ({size:,.1f} MB) holds observations y = A x + n of x with shape"
        f" {file.event_shape}, through the operator {file.operator!r}.",
    )
    splits = [split for split in SPLITS if split in file]
    if "train" not in splits:
        raise DiemError(f"{file.path}: the group 'train' is missing.")
    for split in SPLITS:
        if split not in splits:
            tell("note", f"There is no {split!r}: a part of 'train' is held out for it.")
    for name in sorted(set(file.names("/")) - {*SPLITS, "sigma_y"}):
        tell("warning", f"{name!r} is none of {', '.join(SPLITS)}, sigma_y, and is not read.")

    totals = {}
    for split in splits:
        try:
            totals[split] = _read(file, split, tell)
        except DiemError as error:
            tell("error", str(error))
    for split, some in totals.items():
        _judge(file, split, some, tell)
        for before in splits[: splits.index(split)]:
            shared = len(some.hashes & totals[before].hashes) if before in totals else 0
            if shared:
                tell(
                    "warning",
                    f"{shared:,} observations of {split!r} are also in {before!r}, so that what is"
                    " measured on held-out observations is not held out.",
                )


def _read(file: Observations, split: str, tell: Callable[[str, str], None]) -> _Totals:
    """Reads a split from end to end."""
    count = file.count(split)
    if count == 0:
        raise DiemError(f"{file.path}: '{split}/y' holds no observation.")
    operator = file.load_operator(split, slice(0, min(PROBED, count)))
    try:
        verify_operator(operator, file.operator)
    except DiemError as error:
        raise DiemError(f"{file.path}: {split}: {error}") from None

    known = {"y", "index", "sigma_y", "operator"}
    extra = [f"{split}/{name}" for name in sorted(set(file.names(split)) - known)]
    fields = set(file.names(f"{split}/operator")) - {*operator.fields, *operator.optional}
    extra += [f"{split}/operator/{name}" for name in sorted(fields)]
    for name in extra:
        tell("warning", f"{name!r} is not read: the operator {file.operator!r} does not know it.")
    totals, generator = _Totals(), torch.Generator().manual_seed(0)
    for rows in row_blocks(file, split):
        totals.add(file.load(split, rows), generator)
    shape = operator.observation_shape
    share = totals.values / (totals.count * math.prod(shape))
    low, high = totals.sigma_low, totals.sigma_high
    noise = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    tell(
        "note",
        f"{split}: {count:,} observations of shape {shape}, {share:.1%} of their"
        f" values observed, between {totals.low:.4g} and {totals.high:.4g}; sigma_y {noise}.",
    )
    return totals


def _judge(
    file: Observations, split: str, totals: _Totals, tell: Callable[[str, str], None]
) -> None:
    """Tells what is wrong with the values of a split."""
    if totals.values == 0:
        tell("error", f"{file.path}: {split}: no value is observed.")
        return
    if totals.blank:
        tell("warning", f"{split}: {totals.blank:,} observations observe nothing.")
    if split == "train":
        unseen = int((totals.seen == 0).sum())
        if unseen:
            tell(
                "warning",
                f"{split}: {unseen:,} of the {totals.seen.numel():,} values of x are never observed"
                " in any observation, so that nothing can be learned of them.",
            )
    constant = int(((totals.lowest == totals.highest) & torch.isfinite(totals.lowest)).sum())
    if constant and totals.count > 2:
        tell(
            "warning",
            f"{split}: {constant:,} of the {totals.lowest.numel():,} values of y are the same"
            " wherever they are observed.",
        )
    index = np.concatenate(totals.index)
    double = len(index) - len(np.unique(index))
    if double:
        tell(
            "warning",
            f"{split}: {double:,} observations repeat an index, so that they are of the same x; a"
            " split that is held out at random can share it with 'train'.",
        )
    if totals.repeated:
        tell("warning", f"{split}: {totals.repeated:,} observations are copies of others.")
    _judge_range(split, totals, tell)
    _judge_noise(split, totals, tell)


def _judge_range(split: str, totals: _Totals, tell: Callable[[str, str], None]) -> None:
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
        tell(
            "warning",
            f"{split}: {between}, where values of x from -2 to 2 are expected: scale y and sigma_y"
            " before you write them, or tell the config data.offset and data.scale.",
        )


def _judge_noise(split: str, totals: _Totals, tell: Callable[[str, str], None]) -> None:
    sigma = math.sqrt(totals.noise / totals.values)
    variance = totals.square / totals.values - (totals.mean / totals.values) ** 2
    told = None
    if variance < 0.8 * sigma**2:
        told = f"the observed values vary by only {math.sqrt(max(variance, 0)):.3g} altogether"
    elif totals.preserved and totals.difference < 0.8 * totals.difference_noise:
        ratio = math.sqrt(totals.difference / totals.difference_noise)
        told = f"neighbouring values differ by only {ratio:.2g} times what noise alone would give"
    if told:
        tell("warning", f"{split}: sigma_y is {sigma:.3g}, and {told}: it is implausibly large.")
    levels = np.array(sorted(totals.levels))
    if len(levels) > 2 and 10 * len(levels) < min(totals.values, 40960):
        step = float(np.diff(levels).min())
        if totals.sigma_low < step / math.sqrt(12):
            tell(
                "warning",
                f"{split}: the values of y come in steps of {step:.3g}, whose rounding alone has a"
                f" standard deviation of {step / math.sqrt(12):.3g}, and sigma_y is"
                f" {totals.sigma_low:.3g}: it is implausibly small.",
            )
