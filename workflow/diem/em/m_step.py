r"""The M-step: training a denoiser on samples.

The loss is :math:`(1 / \sigma_t^2 + 1) \|d(x + \sigma_t z, t) - x\|^2` with :math:`t \sim
\mathrm{Beta}(3, 3)`; the optimizer is Adam with a clip of the gradient's global norm, beside an
exponential moving average of the weights. The average is what samples and what is evaluated.
"""

import copy
import csv
import logging
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from azula.denoise import KarrasDenoiser
from torch import Tensor
from torch.optim.adam import adam
from tqdm import tqdm

from diem.diffusion.denoisers import Prior, build_denoiser, load_prior
from diem.diffusion.gaussian import fit_to_samples
from diem.em import augmentation
from diem.em import distributed as parallel
from diem.errors import DiemError
from diem.files.atomic import atomic
from diem.files.hdf5 import Reader, Rows, row_parts
from diem.files.tensors import content_digest, load_tensors, save_tensors
from diem.jobs import results as folders
from diem.jobs import resume
from diem.networks.runtime import autocast, compile_network, set_memory_format
from diem.seeds import Stage, rng, torch_generator
from diem.versions import versions

__all__ = ["ON_DIVERGENCE", "Training", "m_step", "train", "validation_loss"]

logger = logging.getLogger("diem")

CHUNK = 64
"""Optimizer steps that share a random stream; a run can be resumed between two chunks."""


DIVERGED = 10.0
"""A lap has diverged once the loss of a chunk and that of the average on validation samples are so
many times the median loss of the chunks before, or, in the first chunk, the validation loss at the
start."""

ON_DIVERGENCE = ("stop", "lower_rate")
"""What happens then: the lap stops, or goes back to before the chunk and on at half the rate."""

HALVINGS = 5
"""A lap's rate is halved so many times at most."""

CURVE = ("step", "loss", "validation_loss", "learning_rate", "halvings")
"""The columns of a loss curve: a row a chunk, after it."""


@dataclass(frozen=True)
class Training:
    """The keys of the config's ``m_step`` entry that shape one training run.

    Arguments:
        steps: The number of optimizer steps.
        batch: The batch size.
        learning_rate: The learning rate of the first step.
        learning_rate_final: If given, the rate falls linearly to this at the last step.
        clip: The largest global norm of the gradient.
        ema: The decay of the weights' moving average.
        ema_warmup: Whether the decay grows as ``(1 + n) / (10 + n)`` over the first steps, so that
            the average forgets the start sooner.
        augment: How training images are changed at random, see :mod:`diem.em.augmentation`.
        precision: The precision of the network's products, see :data:`diem.networks.runtime.PRECISIONS`.
        channels_last: Whether the network's kernels and images are laid out channels-last.
        compile: Whether the network is compiled.
    """

    steps: int
    batch: int
    learning_rate: float
    learning_rate_final: float | None = None
    clip: float = 1.0
    ema: float = 0.999
    ema_warmup: bool = True
    augment: Mapping[str, Any] = field(default_factory=dict)
    precision: str = "float32"
    channels_last: bool = False
    compile: bool = False

    @classmethod
    def from_config(cls, entry: Mapping[str, Any], count: int) -> Self:
        """Builds the settings of a config's ``m_step`` entry, which may hold other keys too.

        Arguments:
            entry: The entry; ``epochs`` take the place of its ``steps``.
            count: The number of training samples.
        """
        names = {field.name for field in fields(cls)}
        options = {key: value for key, value in entry.items() if key in names}
        if entry["epochs"] is not None:
            options["steps"] = max(1, entry["epochs"] * count // entry["batch"])
        return cls(**options)

    def rate(self, step: int) -> float:
        """Returns the learning rate of a step."""
        if self.learning_rate_final is None:
            return self.learning_rate
        u = step / max(self.steps - 1, 1)
        return (1 - u) * self.learning_rate + u * self.learning_rate_final

    def decay(self, step: int) -> float:
        """Returns the decay of the average after a step."""
        return min(self.ema, (1 + step) / (10 + step)) if self.ema_warmup else self.ema


def _weighted_error(denoiser: KarrasDenoiser, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
    r"""Returns the mean over a batch of :math:`(1 / \sigma_t^2 + 1) (d - x)^2`."""
    _, sigma = denoiser.schedule(t)
    sigma = sigma.reshape(-1, *(1,) * (x.ndim - 1))
    error = denoiser(x + sigma * z, t).mean - x
    return ((1 / sigma**2 + 1) * error.square()).mean()


class _Adam:
    """Adam with PyTorch's defaults, through its functional form.

    To construct a ``torch.optim.Optimizer`` imports PyTorch's compiler, which takes longer than
    many a lap of a small experiment; and the state here is plain tensors, which are easy to keep.
    """

    def __init__(self, weights: list[Tensor]) -> None:
        self.weights = weights
        self.state = {
            "exp_avg": [torch.zeros_like(w) for w in weights],
            "exp_avg_sq": [torch.zeros_like(w) for w in weights],
            "step": [torch.zeros((), device=w.device) for w in weights],
        }

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Moves the weights along their gradients, which it then drops."""
        adam(
            self.weights,
            [w.grad for w in self.weights],
            self.state["exp_avg"],
            self.state["exp_avg_sq"],
            [],
            self.state["step"],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )
        for w in self.weights:
            w.grad = None


class _Batches:
    """The rows of each step: an endless chain of permutations, which depends on the seed alone."""

    def __init__(self, count: int, batch: int, seed: int, lap: int) -> None:
        self.count, self.batch, self.seed, self.lap = count, batch, seed, lap
        self.permutations: dict[int, np.ndarray] = {}

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch not in self.permutations:
            # A batch never reaches back further than the epoch before.
            self.permutations = {e: p for e, p in self.permutations.items() if e >= epoch - 1}
            stream = rng(self.seed, Stage.EPOCH, self.lap, epoch)
            self.permutations[epoch] = stream.permutation(self.count)
        return self.permutations[epoch]

    def __getitem__(self, step: int) -> np.ndarray:
        places = np.arange(step * self.batch, (step + 1) * self.batch)
        epochs, rows = np.divmod(places, self.count)
        return np.concatenate([self._permutation(e)[rows[epochs == e]] for e in np.unique(epochs)])


def _step(
    denoiser: KarrasDenoiser,
    means: list[Tensor],
    optimizer: _Adam,
    x: Tensor,
    t: Tensor,
    z: Tensor,
    training: Training,
    step: int,
    rate: float,
) -> Tensor:
    """Takes one optimizer step, moves the average ``means`` along, and returns the loss.

    Of several processes, each returns the share of its part of the batch in the loss.
    """
    part, share = parallel.part(len(x))
    with autocast(training.precision, x.device):
        loss = share * _weighted_error(denoiser, x[part], t[part], z[part])
    loss.backward()
    parallel.add(w.grad for w in optimizer.weights)
    torch.nn.utils.clip_grad_norm_(optimizer.weights, training.clip)
    optimizer.step(rate)
    with torch.no_grad():
        torch._foreach_lerp_(means, optimizer.weights, 1 - training.decay(step))
    return loss.detach()


def train(
    denoiser: KarrasDenoiser,
    x: Tensor | Rows,
    x_validation: Tensor | Rows,
    training: Training,
    seed: int,
    lap: int = 0,
    checkpoint: Path | None = None,
    fingerprint: str = "",
    checkpoint_seconds: float = 60.0,
    progress: Callable[[int, float], None] = lambda step, loss: None,
    on_divergence: str = "stop",
    asked: Sequence[int] = (),
) -> tuple[KarrasDenoiser, list[dict[str, float]]]:
    """Trains a denoiser on samples.

    Arguments:
        denoiser: The denoiser to start from; its weights are changed.
        x: The training samples, of shape ``(N, *event)``, on the denoiser's device or on the disk.
        x_validation: The validation samples, of the same event; they never touch the weights.
        training: The settings.
        seed: The config's seed.
        lap: The lap, which selects the random streams.
        checkpoint: Where to keep what resumes an interrupted run. If it exists, the run goes on
            from there and gives the same numbers; the caller removes it once the result is safe.
            A damaged one is named in the log, and not used.
        fingerprint: What the run depends on; a checkpoint with another fingerprint is not used.
        checkpoint_seconds: The least time between two checkpoints.
        progress: Called with the step and the loss after each chunk.
        on_divergence: What happens if the loss is no longer finite or explodes, see
            :data:`ON_DIVERGENCE`.
        asked: Holds something once the run is asked to stop, see :func:`diem.jobs.resume.deferred`.

    Returns:
        The average denoiser, ready to sample, and the loss curve: a row a chunk with ``step``,
        ``loss``, ``validation_loss`` (of the average), ``learning_rate``, and how often that was
        halved, ``halvings``.

    Raises:
        DiemError: If the loss diverges, and the rate is not to be halved or was often enough; or
            if the network is to be compiled and this machine cannot.
        Stopped: If it was asked to stop, after the chunk's end and with a checkpoint.
    """
    set_memory_format(denoiser, training.channels_last)
    average = copy.deepcopy(denoiser).eval().requires_grad_(False)
    denoiser.train().requires_grad_(True)
    if training.compile:
        compile_network(denoiser.backbone, "m_step.compile")
    weights = list(denoiser.parameters())
    means = list(average.parameters())
    optimizer = _Adam(weights)
    batches = _Batches(len(x), training.batch, seed, lap)
    device = weights[0].device
    state = _state(denoiser, average, optimizer)
    curve: list[dict[str, float]] = []
    done = kept = halvings = 0
    if checkpoint is not None and checkpoint.is_file():
        try:
            curve = _resume(checkpoint, state, fingerprint)
        except DiemError as error:
            logger.warning("%s Lap %d starts anew.", error, lap)
    if curve:
        done = kept = curve[-1]["step"]
        halvings = curve[-1]["halvings"]
    good = (
        {name: value.clone() for name, value in state.items()}
        if on_divergence == "lower_rate"
        else {}
    )
    first = math.inf if curve else validation_loss(average, x_validation, seed, training.batch)
    saved = time.monotonic()

    while done < training.steps:
        chunk = range(done, min(done + CHUNK, training.steps))
        times, generator = _streams(seed, Stage.M_STEP, lap, done // CHUNK, device)
        total = torch.zeros((), device=device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(generator.initial_seed() + parallel.rank())  # dropout
            for step in chunk:
                batch = _rows(x, batches[step], device)
                batch = augmentation.augment(batch, training.augment, generator)
                t = _beta(times, len(batch)).to(batch)
                z = torch.empty_like(batch).normal_(generator=generator)
                rate = training.rate(step) / 2**halvings
                total += _step(denoiser, means, optimizer, batch, t, z, training, step, rate)
        stop = torch.tensor(float(bool(asked)), device=device)
        parallel.add([total, stop])  # if one process is asked to stop, all do
        row = {
            "step": chunk.stop,
            "loss": float(total) / len(chunk),
            "validation_loss": validation_loss(average, x_validation, seed, training.batch),
            "learning_rate": rate,
            "halvings": halvings,
        }
        usual = statistics.median(earlier["loss"] for earlier in curve) if curve else first
        if _diverged(row, usual, means):
            told = (
                f"The loss is {row['loss']:.3g}, and {row['validation_loss']:.3g} on validation"
                f" samples, between the steps {chunk.start} and {chunk.stop} of lap {lap}, at a"
                f" learning rate of {rate:.3g}"
            )
            if on_divergence != "lower_rate":
                last = f"from {checkpoint} of step {kept}" if kept else "from its beginning"
                raise DiemError(
                    f"{told}: lower m_step.learning_rate, or set on_divergence to lower_rate, and"
                    f" the lap goes on {last}."
                )
            if halvings == HALVINGS:
                raise DiemError(
                    f"{told}, which was halved {HALVINGS} times: lower m_step.learning_rate."
                )
            halvings += 1
            logger.warning("%s: it goes on from step %d at half the rate.", told, done)
            _restore(state, good)
            continue
        done = chunk.stop
        curve.append(row)
        progress(done, row["loss"])
        if good:
            _restore(good, state)
        due = stop or time.monotonic() - saved >= checkpoint_seconds
        if checkpoint is not None and due:
            _save(checkpoint, curve, state, fingerprint)
            saved, kept = time.monotonic(), done
        if stop:
            raise resume.Stopped
    return average, curve


def _diverged(row: Mapping[str, float], usual: float, means: Sequence[Tensor]) -> bool:
    """Tells whether a chunk's losses are not finite or explode, or its average is not finite."""
    # The loss of a step is that of the weights before: the last step's own damage is the average's.
    finite = math.isfinite(row["loss"] + row["validation_loss"])
    finite = finite and all(torch.isfinite(w).all() for w in means)
    # At low noise a few samples can make a chunk's own loss large; the average's is then as before.
    return not finite or min(row["loss"], row["validation_loss"]) > DIVERGED * usual


def _rows(x: Tensor | Rows, rows: np.ndarray, device: torch.device) -> Tensor:
    """Returns some rows on a device, of samples that are there or on the disk."""
    if isinstance(x, Tensor):
        return x[torch.from_numpy(rows).to(device)]
    return torch.from_numpy(x[rows]).to(device)


def _held_on(x: Rows, device: torch.device) -> Tensor | Rows:
    """Returns samples on a device, unless they stay on the disk."""
    return x if x.held is None else torch.from_numpy(x.held).to(device)


@torch.no_grad()
def validation_loss(denoiser: KarrasDenoiser, x: Tensor | Rows, seed: int, batch: int) -> float:
    """Returns the loss on validation samples, with the same times and noise at every call.

    Arguments:
        denoiser: The denoiser.
        x: The samples, of shape ``(N, *event)``, on the denoiser's device or on the disk.
        seed: The config's seed.
        batch: How many samples are denoised at once.
    """
    device = next(denoiser.parameters()).device
    times, generator = _streams(seed, Stage.VALIDATION, 0, 0, device)
    total = torch.zeros((), dtype=torch.float64)
    for rows in np.split(np.arange(len(x)), range(batch, len(x), batch)):
        some = _rows(x, rows, device)
        t = _beta(times, len(some)).to(some)
        z = torch.empty_like(some).normal_(generator=generator)
        total += len(some) * _weighted_error(denoiser, some, t, z).cpu()
    return float(total) / len(x)


def _streams(seed: int, stage: Stage, lap: int, block: int, device: torch.device):
    return rng(seed, stage, lap, block), torch_generator(seed, stage, lap, block, device)


def _beta(times: np.random.Generator, count: int) -> Tensor:
    return torch.from_numpy(times.beta(3.0, 3.0, count))


def _state(
    denoiser: KarrasDenoiser, average: KarrasDenoiser, optimizer: _Adam
) -> dict[str, Tensor]:
    """Returns by name the tensors that a run changes, not copied."""
    tensors = {f"weights.{k}": v for k, v in denoiser.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.state_dict().items()}
    for name, values in optimizer.state.items():
        tensors |= {f"adam.{name}.{i}": v for i, v in enumerate(values)}
    return tensors


def _restore(state: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Gives the tensors of a state other values, in their place."""
    for name, value in state.items():
        value.copy_(values[name])


def _save(
    path: Path,
    curve: Sequence[Mapping[str, float]],
    state: Mapping[str, Tensor],
    fingerprint: str,
) -> None:
    if not parallel.is_first():
        return
    columns = {
        f"curve.{name}": torch.tensor([row[name] for row in curve], dtype=torch.float64)
        for name in CURVE
    }
    save_tensors(path, {**state, **columns}, {"fingerprint": fingerprint})


def _resume(path: Path, state: Mapping[str, Tensor], fingerprint: str) -> list[dict[str, float]]:
    """Restores a checkpoint and returns its curve, which is empty if it is of other settings."""
    tensors, header = load_tensors(path)
    if header.get("fingerprint") != fingerprint:
        return []
    _restore(state, tensors)
    columns = {name: tensors[f"curve.{name}"].tolist() for name in CURVE}
    columns |= {name: [int(n) for n in columns[name]] for name in ("step", "halvings")}
    return [dict(zip(CURVE, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def m_step(
    output: str | Path,
    losses: str | Path,
    settings: Mapping[str, Any],
    network: Mapping[str, Any],
    schedule: Mapping[str, Any],
    gaussian: Mapping[str, Any],
    seed: int,
    lap: int,
    device: torch.device,
    card: Mapping[str, Any],
    samples: Sequence[str | Path] | None = None,
    clean: str | Path | None = None,
    previous: str | Path | None = None,
    checkpoint_seconds: float = 60.0,
    progress: tqdm | None = None,
    on_divergence: str = "stop",
    cache_mb: float = math.inf,
) -> None:
    """Trains a lap's prior and writes it, with its loss curve.

    Arguments:
        output: The prior to write.
        losses: The loss curve to write (CSV).
        settings: The config's ``m_step`` entry, with the ``steps`` of this lap.
        network: The config's ``network`` entry.
        schedule: The config's ``schedule`` entry.
        gaussian: The config's ``gaussian`` entry: the rank of the PPCA of the samples, and of how
            many of them.
        seed: The config's seed.
        lap: The lap, 0 for the ceiling.
        device: The device to train on.
        card: What else the prior's card should tell: data, observations, E-step, ...
        samples: The lap's shards of posterior samples,
        clean: or the clean data, for the ceiling.
        previous: The prior to start from; without it, the weights are fresh.
        checkpoint_seconds: The least time between two checkpoints. The last one stays beside the
            output, since Snakemake does a job again if it was killed before it took note of the
            job's end: :func:`diem.jobs.results.remove_pieces` is for later.
        progress: A progress bar that counts steps.
        on_divergence: What happens if the loss diverges, see :func:`train`.
        cache_mb: The most memory that the samples may take, in MiB; more are read from the disk
            as they are needed, which changes no number.
    """
    sources = [clean] if samples is None else list(samples)
    fingerprint = content_digest(
        [*sources, *filter(None, [previous])], settings, network, schedule, seed, lap
    )
    shape = _event_shape(sources)
    x, x_validation = (
        _inside(sources, split, shape, settings["drop_outside"], cache_mb)
        for split in ("train", "validation")
    )

    past = 0
    if previous is None:
        stream = torch_generator(seed, Stage.NETWORK, lap).initial_seed()
        denoiser = build_denoiser(network, schedule, shape, stream)
    else:
        prior = load_prior(previous, network=network, event_shape=shape)
        denoiser, past = prior.denoiser, prior.card["optimizer_steps"]
    some = torch.from_numpy(x[: gaussian["observations"]])
    gaussian = fit_to_samples(some, gaussian["rank"])

    training = Training.from_config(settings, len(x))
    augmentation.check(training.augment, shape)
    if progress is not None:
        progress.reset(total=training.steps)

    def report(step: int, loss: float) -> None:
        if progress is not None:
            progress.set_postfix(loss=f"{loss:.4f}", refresh=False)
            progress.update(step - progress.n)

    checkpoint = folders.checkpoint_file(output)
    with resume.deferred() as asked, x, x_validation:
        average, curve = train(
            denoiser.to(device),
            *(_held_on(v, device) for v in (x, x_validation)),
            training,
            seed,
            lap,
            checkpoint,
            fingerprint,
            checkpoint_seconds,
            report,
            on_divergence,
            asked,
        )
    if not parallel.is_first():
        return
    made = {
        **card,
        "network": dict(network),
        "schedule": dict(schedule),
        "m_step": dict(settings),
        "lap": lap,
        "seed": seed,
    }
    made |= {
        "config_digest": content_digest([], made),
        "versions": versions(),
        "training_samples": len(x),
        "optimizer_steps": past + training.steps,
        "halvings": curve[-1]["halvings"],
    }
    Prior(gaussian, average.cpu(), made).save(output)
    with atomic(losses) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, curve[0])
        writer.writeheader()
        writer.writerows(curve)


def _event_shape(paths: Sequence[str | Path]) -> tuple[int, ...]:
    for path in paths:
        with Reader(path) as file:
            if "train/x" in file:
                return file.shape("train/x")[1:]
    raise DiemError(f"{paths[0]}: the data set 'train/x' is missing.")


def _inside(
    paths: Sequence[str | Path],
    split: str,
    shape: tuple[int, ...],
    bound: float | None,
    cache_mb: float,
) -> Rows:
    """Returns the samples all of whose values lie within ``[-bound, bound]``."""
    x = Rows(paths, f"{split}/x", shape, cache_mb)
    if bound is None:
        return x
    total = len(x)
    within = [(np.abs(v) <= bound).reshape(len(v), -1).all(axis=1) for v in row_parts(x)]
    x.keep(np.concatenate(within))
    logger.info("kept %d of %d samples within [-%g, %g]", len(x), total, bound, bound)
    if len(x) == 0:
        raise DiemError(f"{paths[0]}: no sample lies within m_step.drop_outside = {bound}.")
    return x
