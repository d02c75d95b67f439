"""Training: the optimizer's steps, and the loop over them.

The optimizer is Adam with a clip of the gradient's global norm, together with an exponential moving
average of the weights. The average is what samples and what is evaluated.
"""

import contextlib
import copy
import logging
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from azula.denoise import KarrasDenoiser
from torch import Tensor

from diem.em import distributed
from diem.em.adam import Adam
from diem.em.augmentations import Augmentation, augment, chosen
from diem.em.batches import Batches, batches_on
from diem.em.checkpoint import Checkpoint
from diem.em.laps import optimizer_steps
from diem.em.loss import Streams, validation_loss, weighted_error
from diem.errors import DiemError
from diem.files.hdf5 import Rows
from diem.jobs.resume import Stopped
from diem.networks.runtime import (
    Compile,
    autocast,
    bounded_memory,
    compile_network,
    set_memory_format,
)
from diem.seeds import Stage, global_stream

__all__ = ["CHUNK", "ON_DIVERGENCE", "Trained", "Training", "train"]

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
        augment: The random changes of training images.
        precision: The precision of the network's products, see
            :data:`diem.networks.runtime.PRECISIONS`.
        channels_last: Whether the network's kernels and images are laid out channels-last.
        compile: Whether the network is compiled, and how, see
            :data:`diem.networks.runtime.Compile`.
        on_divergence: What happens if the loss is no longer finite or explodes, one of
            :data:`ON_DIVERGENCE`.
    """

    steps: int
    batch: int
    learning_rate: float
    learning_rate_final: float | None = None
    clip: float = 1.0
    ema: float = 0.999
    ema_warmup: bool = False
    augment: Sequence[Augmentation] = ()
    precision: str = "float32"
    channels_last: bool = False
    compile: Compile = False
    on_divergence: str = "stop"

    @classmethod
    def from_config(cls, entry: Mapping[str, Any], count: int, on_divergence: str = "stop") -> Self:
        """Builds the settings of a config's ``m_step`` entry, which may hold other keys too.

        Arguments:
            entry: The entry; ``epochs`` take the place of its ``steps``.
            count: How many samples were drawn to train on, with those that are dropped.
            on_divergence: The config's ``on_divergence``.
        """
        names = {field.name for field in fields(cls)}
        options = {key: value for key, value in entry.items() if key in names}
        options["augment"] = chosen(entry.get("augment", {}))
        options["steps"] = optimizer_steps(entry, count)
        return cls(**options, on_divergence=on_divergence)

    def rate(self, step: int) -> float:
        """Returns the learning rate of a step."""
        if self.learning_rate_final is None:
            return self.learning_rate
        u = step / max(self.steps - 1, 1)
        return (1 - u) * self.learning_rate + u * self.learning_rate_final

    def decay(self, step: int) -> float:
        """Returns the decay of the average after a step."""
        return min(self.ema, (1 + step) / (10 + step)) if self.ema_warmup else self.ema


class Trained:
    """What a run changes: a denoiser, the moving average of its weights, and the optimizer.

    Arguments:
        denoiser: The denoiser to start from. Its parameters that ask for no gradient stay.
        training: The settings.
    """

    def __init__(self, denoiser: KarrasDenoiser, training: Training) -> None:
        # cuDNN then has a fixed order of sums: a lap that goes on gives the same numbers.
        torch.backends.cudnn.deterministic = True
        set_memory_format(denoiser, training.channels_last)
        self.average = copy.deepcopy(denoiser).eval().requires_grad_(False)
        self.denoiser = denoiser.train()
        if training.compile:
            compile_network(denoiser.backbone, "m_step.compile", training.compile)
        self.training = training
        pairs = zip(denoiser.parameters(), self.average.parameters(), strict=True)
        trained = [(weight, mean) for weight, mean in pairs if weight.requires_grad]
        if not trained:
            raise DiemError("The network has no parameter to train.")
        self.weights, self.means = map(list, zip(*trained, strict=True))
        self.optimizer = Adam(self.weights)
        self.device = self.weights[0].device

    def step(self, x: Tensor, t: Tensor, z: Tensor, number: int, rate: float) -> Tensor:
        """Takes one optimizer step, and moves the average along.

        Arguments:
            x: The batch, of shape ``(B, *event)``.
            t: The times, of shape ``(B,)``.
            z: The noise, of the shape of ``x``.
            number: The number of the step.
            rate: The learning rate.

        Returns:
            The loss. Of several processes, each returns the share of its part of the batch in it.
        """
        part, share = distributed.part(len(x))
        with autocast(self.training.precision, x.device):
            loss = share * weighted_error(self.denoiser, x[part], t[part], z[part])
        loss.backward()
        for w in self.weights:
            if w.grad is None:  # of what the network does not use
                w.grad = torch.zeros_like(w)
        distributed.add(w.grad for w in self.weights)
        torch.nn.utils.clip_grad_norm_(self.weights, self.training.clip)
        self.optimizer.step(rate)
        with torch.no_grad():
            torch._foreach_lerp_(self.means, self.weights, 1 - self.training.decay(number))
        return loss.detach()

    @torch.no_grad()
    def settle(self) -> None:
        """Gives the average what a network keeps beside its weights, such as running means.

        Of several processes, those of the first count in all.
        """
        found, kept = self.denoiser.state_dict(), self.average.state_dict()
        weights = {name for name, _ in self.denoiser.named_parameters(remove_duplicate=False)}
        same = [name for name in found if name in kept and found[name].shape == kept[name].shape]
        beside = [name for name in same if name not in weights]
        distributed.share(found[name] for name in beside if found[name].is_floating_point())
        for name in beside:
            kept[name].copy_(found[name])

    def state(self) -> dict[str, Tensor]:
        """Returns by name the tensors that a run changes, not copied."""
        tensors = {f"weights.{k}": v for k, v in self.denoiser.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for name, values in self.optimizer.state.items():
            tensors |= {f"adam.{name}.{i}": v for i, v in enumerate(values)}
        return tensors


def train(
    denoiser: KarrasDenoiser,
    x: Tensor | Rows,
    x_validation: Tensor | Rows,
    training: Training,
    seed: int,
    lap: int = 0,
    checkpoint: Checkpoint | None = None,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> tuple[KarrasDenoiser, list[dict[str, float]]]:
    """Trains a denoiser on samples.

    Arguments:
        denoiser: The denoiser to start from; its weights are changed.
        x: The training samples, of shape ``(N, *event)``, on the denoiser's device or on the disk.
        x_validation: The validation samples, of the same event; they never touch the weights.
        training: The settings.
        seed: The config's seed.
        lap: The lap, which selects the random streams.
        checkpoint: What resumes an interrupted run; without it, nothing is kept.
        progress: Called with the step and the loss after each chunk.

    Returns:
        The average denoiser, ready to sample, and the loss curve: a row a chunk with ``step``,
        ``loss``, ``validation_loss`` (of the average), ``learning_rate``, and how often that was
        halved, ``halvings``.

    Raises:
        DiemError: If the loss diverges, and the rate is not to be halved or was often enough; or
            if the network is to be compiled and this machine cannot; or if a batch does not fit
            its memory.
        Stopped: If it was asked to stop, after the chunk's end and with a checkpoint.
    """
    checkpoint = checkpoint or Checkpoint()
    model = Trained(denoiser, training)
    batches = Batches(len(x), training.batch, seed, lap)
    state = model.state()
    curve = checkpoint.load(state, lap)
    done, halvings = (curve[-1]["step"], curve[-1]["halvings"]) if curve else (0, 0)
    lower = training.on_divergence == "lower_rate"
    good = {name: value.clone() for name, value in state.items()} if lower else {}
    usual = math.inf

    def validated() -> float:
        with bounded_memory("m_step.batch", training.batch, model.device):
            return validation_loss(model.average, x_validation, seed, training.batch)

    if not curve:
        usual = validated()
    while done < training.steps:
        steps = range(int(done), min(int(done) + CHUNK, training.steps))
        streams = Streams.of(seed, Stage.M_STEP, lap, steps.start // CHUNK, model.device)
        with bounded_memory("m_step.batch", training.batch, model.device):
            total, rate = _chunk(model, x, batches, steps, streams, halvings)
        stop = torch.tensor(float(checkpoint.stop), device=model.device)
        distributed.add([total, stop])  # if one process is asked to stop, all do
        row = {
            "step": steps.stop,
            "loss": float(total) / len(steps),
            "validation_loss": validated(),
            "learning_rate": rate,
            "halvings": halvings,
        }
        if curve:
            usual = statistics.median(earlier["loss"] for earlier in curve)
        if _diverged(row, usual, model.means):
            _refuse(row, steps, lap, training, checkpoint)
            halvings += 1
            _restore(state, good)
            continue
        done = steps.stop
        curve.append(row)
        progress(done, row["loss"])
        _restore(good, state)
        checkpoint.save(state, curve, now=bool(stop))
        if stop:
            raise Stopped(*checkpoint.requests[:1])
    return model.average, curve


def _chunk(
    model: Trained,
    x: Tensor | Rows,
    batches: Batches,
    steps: range,
    streams: Streams,
    halvings: float,
) -> tuple[Tensor, float]:
    """Takes the steps of a chunk; returns the sum of their losses and the last learning rate."""
    training, device, rate = model.training, model.device, 0.0
    total = torch.zeros((), device=device)
    with (
        global_stream(streams.dropout, device),
        contextlib.closing(batches_on(x, batches, steps, device)) as found,
    ):
        for step, batch in zip(steps, found, strict=True):
            batch = augment(batch, training.augment, streams.generator)
            t, z = streams.noise(batch)
            rate = training.rate(step) / 2**halvings
            total += model.step(batch, t, z, step, rate)
    model.settle()
    return total, rate


def _diverged(row: Mapping[str, float], usual: float, means: Sequence[Tensor]) -> bool:
    """Tells whether a chunk's losses are not finite or explode, or its average is not finite."""
    # The loss of a step is that of the weights before: the last step's own damage is the average's.
    finite = math.isfinite(row["loss"] + row["validation_loss"])
    finite = finite and all(torch.isfinite(w).all() for w in means)
    # At low noise a few samples can make a chunk's own loss large; the average's is then as before.
    return not finite or min(row["loss"], row["validation_loss"]) > DIVERGED * usual


def _refuse(
    row: Mapping[str, float], steps: range, lap: int, training: Training, checkpoint: Checkpoint
) -> None:
    """Raises an error for a chunk that diverged, unless it is done again at half the rate."""
    what = (
        f"The loss is {row['loss']:.3g}, and {row['validation_loss']:.3g} on validation samples,"
        f" between the steps {steps.start} and {steps.stop} of lap {lap}, at a learning rate of"
        f" {row['learning_rate']:.3g}"
    )
    if training.on_divergence != "lower_rate":
        raise DiemError(
            f"{what}: lower m_step.learning_rate, or set on_divergence to lower_rate, and the lap"
            f" goes on {checkpoint}."
        )
    if row["halvings"] == HALVINGS:
        raise DiemError(f"{what}, which was halved {HALVINGS} times: lower m_step.learning_rate.")
    logger.warning("%s: it goes on from step %d at half the rate.", what, steps.start)


def _restore(state: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Gives the tensors of a state other values, in their place."""
    for name, value in state.items():
        value.copy_(values[name])
