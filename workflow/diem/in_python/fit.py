"""A prior learned from arrays in one call: :func:`fit`, which is :py:`diem.fit`."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import torch
from pydantic import field_validator
from torch import Tensor

from diem.components import Model, Seed, option, short, validated
from diem.config.types import Lap
from diem.errors import DiemError, nearest
from diem.in_python.folders import OBSERVED, PRIOR, made_of, placed_in, prepared, workplace
from diem.in_python.laps import Laps
from diem.in_python.settings import configured, resolved
from diem.in_python.taking import array_of, check_fit, checked, take_in
from diem.inference.prior_denoiser import PriorDenoiser, load_prior
from diem.jobs.devices import lent_device
from diem.jobs.resume import Stopped
from diem.operators import OPERATORS
from diem.operators.given import Given, given, importable, where_shown
from diem.operators.verify import PROBED, verify_operator

__all__ = ["Options", "fit"]


class Numbers(Model):
    """The arguments of :func:`fit` that are integers."""

    seed: Seed = option(0, "the seed")
    laps: Lap | None = option(None, "the number of laps")

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return int(value) if isinstance(value, np.integer) else value


class Options(TypedDict, total=False):
    """The rarer arguments of :func:`fit`."""

    event_shape: Sequence[int]
    adjoint: Callable[[Tensor], Tensor]
    progress: bool


def fit(
    y: Any,
    operator: Given,
    sigma_y: Any,
    folder: str | Path | None = None,
    *,
    laps: int | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    settings: Mapping[str, Any] | None = None,
    **options: Unpack[Options],
) -> PriorDenoiser:
    r"""Learns a prior from observations ``y = A x + n``, in this process.

    It does what the workflow does for a file of observations: a part of them is held out for
    validation and for testing, a Gaussian prior is fitted, and each lap samples and trains. The lap
    that best predicts hidden halves of validation observations is chosen; the Gaussian prior is a
    candidate too. The numbers are those of the workflow, of the same configuration, observations
    and seed. Settings that are not given are as ``diem init`` chooses them for such data.

    Arguments:
        y: The observations, of shape ``(N, *observation)``: an array or a tensor, NaN where a value
            is missing.
        operator: The forward operators: a name, such as ``"mask"``; a mapping of a name and
            parameters or options; an operator; or a linear function of ``x``, from ``(B, *event)``
            to ``(B, *observation)``. See :func:`diem.operators.given.given`.
        sigma_y: The noise's standard deviation: a number, one an observation ``(N,)``, one a value
            ``(*observation)``, or broadcastable to ``y``.
        folder: Where the results lie, in the workflow's layout, with ``prior.safetensors`` for
            :func:`diem.load_prior`. The same call goes on with what is there, and one with more
            ``laps`` adds these. Without it, nothing is left on the disk.
        laps: The number of laps.
        seed: The seed. The same seed, and kind of device, give the same numbers.
        device: ``auto`` (a GPU, where there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        settings: What is to be otherwise, in the keys of an experiment of the configuration, such
            as ``{"m_step": {"steps": 512}}``; ``cache_mb``, ``checkpoint_seconds``,
            ``on_divergence`` and ``threads`` too.
        options: ``event_shape``, the shape of one ``x``, where neither the operator nor ``y`` tells
            it; ``adjoint``, that of a function, which otherwise comes of automatic differentiation;
            and ``progress``, whether it is told how far the work is (by default it is).

    Returns:
        The prior of the chosen lap, as :func:`diem.load_prior` gives it. Its ``card["chosen_by"]``
        tells what was chosen (``told``), and compares the laps (``rows``).

    Raises:
        DiemError: If an argument is not as it must be; one sentence, which names it.
    """
    for name in options:
        if name not in Options.__annotations__:
            raise DiemError(f"{name} is unknown{nearest(name, Options.__annotations__)}.")
    if not isinstance(folder, str | os.PathLike | None):
        raise DiemError(f"folder is {short(folder)}, where the name of a folder is needed.")
    numbers = validated(Numbers, {"seed": seed, "laps": laps}, "")
    values = array_of(y)
    tensor = torch.from_numpy(values)
    found = given(operator, tensor, options.get("event_shape"), options.get("adjoint")).to("cpu")
    check_fit(values, found)
    verify_operator(found[:PROBED], type(found).__name__)
    found = where_shown(found, ~torch.isnan(tensor))
    with workplace() as place, importable(type(found)) as name:
        file = place / OBSERVED
        take_in(file, values, found, name, sigma_y)
        written = configured(file, name, settings, numbers.laps, numbers.seed, str(device))
        config = resolved(written)
        with _threads(config["threads"]), lent_device(config["device"]) as chosen:
            if chosen.type != "cpu":
                verify_operator(found[:PROBED].to(chosen), type(found).__name__)
            checked(file, None if name in OPERATORS.names else name, found[:PROBED])
            results = place / "results"
            kept: contextlib.AbstractContextManager = contextlib.nullcontext()
            if folder is not None:
                results = Path(folder).expanduser()
                kept = prepared(results, written, file, made_of(config, file, found, chosen))
            with kept:
                placed_in(config, results)
                with _as_everywhere():
                    Laps(config, file, chosen, options.get("progress", True)).learn(results / PRIOR)
                return load_prior(results / PRIOR, chosen)


@contextlib.contextmanager
def _as_everywhere() -> Iterator[None]:
    """Has a signal for which an M-step has stopped do what it does elsewhere: Ctrl-C interrupts."""
    try:
        yield
    except Stopped as stopped:
        signal.raise_signal(stopped.number)
        raise


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Has linear algebra take so many threads, by which sums are ordered, for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
