"""The M-step: its loss, its optimizer, its average, and that it goes on where it was."""

import contextlib
import csv
import io
import math
import threading
import tracemalloc

import numpy as np
import pytest
import torch
from helpers import random_gaussian
from torch import nn
from tqdm import tqdm

from diem.diffusion.covariances import CARD_ERROR
from diem.diffusion.gaussian import Gaussian, moments, ppca
from diem.diffusion.prior import build_denoiser, read_prior
from diem.em import loss, training
from diem.em.adam import Adam
from diem.em.batches import Batches, batches_on
from diem.em.checkpoint import Checkpoint
from diem.em.loss import Streams, denoising_error, validation_loss, weighted_error
from diem.em.m_step import Lap, _warn_of_the_average, m_step
from diem.em.training import Training, train
from diem.errors import DiemError
from diem.files import hdf5
from diem.files.hdf5 import write_hdf5
from diem.files.tensors import load_tensors
from diem.jobs import resume
from diem.jobs.job import Job
from diem.jobs.results import remove_pieces
from diem.seeds import Stage, torch_generator

SCHEDULE = {"sigma_min": 0.01, "sigma_max": 10.0}
VECTOR, IMAGE = (3,), (1, 4, 4)
MLP = {"name": "mlp", "hidden": [16], "embedding": 8}
UNET = {"name": "unet", "channels": [4, 8], "blocks": 1, "embedding": 8, "dropout": 0.3}


def make(network=MLP, shape=VECTOR, seed=0):
    return build_denoiser(network, SCHEDULE, shape, seed)


def data(shape=VECTOR, count=100, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return random_gaussian(shape, 2, torch.float32).sample(count, generator)


def state(denoiser):
    return {key: value.clone() for key, value in denoiser.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture
def short(monkeypatch):
    """Makes chunks of four steps, so that few steps have several chunks."""
    monkeypatch.setattr(training, "CHUNK", 4)


# The loss


class Linear(nn.Module):
    """A network that is known: ``2 x + t``."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, x, t):
        return self.scale * x + t.reshape(-1, *(1,) * (x.ndim - 1))


@pytest.mark.parametrize("shape", [VECTOR, IMAGE])
def test_the_loss_by_hand(shape):
    denoiser = make(shape=shape)
    denoiser.backbone = Linear()
    x, z = torch.randn(2, 5, *shape, dtype=torch.float64)
    t = torch.rand(5, dtype=torch.float64)

    loss = weighted_error(denoiser, x, t, z)

    expected = 0.0
    for i in range(5):
        sigma = 0.01 ** (1 - t[i]) * 10.0 ** t[i]
        x_t = x[i] + sigma * z[i]
        scale = torch.sqrt(sigma**2 + 1)
        output = 2 * x_t / scale + torch.log(sigma)
        d = x_t / scale**2 + sigma / scale * output
        expected += (1 / sigma**2 + 1) * (d - x[i]).square().mean() / 5
    torch.testing.assert_close(loss, expected)


def test_times_are_beta_3_3():
    streams = Streams(np.random.default_rng(0), torch.Generator(), 0)
    t, _ = streams.noise(torch.zeros(100_000, dtype=torch.float64))

    # Mean 1/2 and variance 1/28; the errors of the mean and of the variance (kurtosis 7/3).
    assert abs(t.mean() - 0.5) <= 5 * math.sqrt(1 / 28 / 1e5)
    assert abs(t.var() - 1 / 28) <= 5 * (1 / 28) * math.sqrt((7 / 3 - 1) / 1e5)
    assert 0 < t.min() < t.max() < 1


def test_the_validation_loss_is_the_same_at_every_call_and_touches_nothing():
    denoiser, x = make(UNET, IMAGE).eval(), data(IMAGE)
    before = state(denoiser)

    losses = {validation_loss(denoiser, x, seed=0, batch=30) for _ in range(3)}

    assert len(losses) == 1
    assert equal(before, denoiser.state_dict())
    assert all(p.grad is None for p in denoiser.parameters())
    assert validation_loss(denoiser, x, seed=1, batch=30) not in losses


# Schedules


def test_the_rate_is_constant_or_falls_linearly():
    constant = Training(10, 4, 1e-3)
    falling = Training(11, 4, 1e-3, 1e-5)

    assert {constant.rate(step) for step in range(10)} == {1e-3}
    rates = [falling.rate(step) for step in range(11)]
    np.testing.assert_allclose(rates, np.linspace(1e-3, 1e-5, 11), rtol=1e-12)
    assert Training(1, 4, 1e-3, 1e-5).rate(0) == 1e-3


def test_the_decay_warms_up():
    cold, warm = Training(9, 4, 1e-3, ema=0.9), Training(9, 4, 1e-3, ema=0.9, ema_warmup=True)

    assert [warm.decay(n) for n in (0, 1, 8)] == pytest.approx([0.1, 2 / 11, 0.5])
    assert warm.decay(79) == pytest.approx(80 / 89)
    assert warm.decay(81) == warm.decay(10**6) == 0.9
    assert {cold.decay(n) for n in (0, 1, 10**6)} == {0.9}


# The optimizer


@pytest.mark.parametrize("fused", [True, False])
def test_adam_is_that_of_pytorch(fused):
    # Bit by bit the fused kernel; the other orders its operations in another way.
    ours = [torch.randn(4, 3), torch.randn(5)]
    theirs = [nn.Parameter(w.clone()) for w in ours]
    ours = [w.requires_grad_() for w in ours]
    optimizer = Adam(ours)
    reference = torch.optim.Adam(theirs, lr=1.0, fused=fused)

    for step in range(20):
        rate = 1e-2 / (1 + step)
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape) * 10.0 ** (step % 5 - 2)
            other.grad = one.grad.clone()
        optimizer.step(rate)
        reference.param_groups[0]["lr"] = rate
        reference.step()

    assert all(w.grad is None for w in ours)
    for one, other in zip(ours, theirs, strict=True):
        tolerance = 0 if fused else 1e-6
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance / 10)


# Batches


@pytest.mark.parametrize(("count", "batch"), [(10, 5), (10, 3), (10, 10), (10, 1), (4, 10), (3, 7)])
def test_batches_hold_every_sample_once_an_epoch(count, batch):
    batches = Batches(count, batch, seed=0, lap=1)

    rows = np.concatenate([batches[step] for step in range(30)])

    assert all(len(batches[step]) == batch for step in range(3))
    epochs = rows[: len(rows) // count * count].reshape(-1, count)
    assert (np.sort(epochs, axis=1) == np.arange(count)).all()
    if len(epochs) > 3 and count > 5:
        assert len(np.unique(epochs, axis=0)) > 1  # shuffled anew


def test_batches_depend_on_seed_and_lap_and_can_be_entered_anywhere():
    def rows(seed, lap, steps):
        batches = Batches(50, 8, seed, lap)
        return {step: batches[step].tolist() for step in steps}

    whole = rows(0, 1, range(20))

    assert rows(0, 1, range(13, 20)) == {step: whole[step] for step in range(13, 20)}
    assert rows(1, 1, range(20)) != whole
    assert rows(0, 2, range(20)) != whole


# A run


def run(network=MLP, shape=VECTOR, seed=0, x=None, **options):
    """Trains a fresh denoiser; returns it, its average, and the curve."""
    reported = {name: options.pop(name) for name in ("progress", "lap") if name in options}
    kept = {name: options.pop(name) for name in ("fingerprint", "requests") if name in options}
    checkpoint = Checkpoint(options.pop("checkpoint", None), seconds=0.0, **kept)
    options = {"steps": 10, "batch": 16, "learning_rate": 1e-2, "ema_warmup": True, **options}
    denoiser = make(network, shape)
    x = data(shape) if x is None else x
    average, curve = train(
        denoiser,
        x,
        data(shape, 20, seed=1),
        Training(**options),
        seed,
        checkpoint=checkpoint,
        **reported,
    )
    return denoiser, average, curve


def test_a_run_that_is_asked_to_stop_ends_after_its_chunk_and_goes_on(short, tmp_path):
    whole, path, steps = run(), tmp_path / "checkpoint", []

    for _ in range(2):
        with pytest.raises(resume.Stopped):
            run(checkpoint=path, requests=[15], progress=lambda step, loss: steps.append(step))
    again = run(checkpoint=path)

    assert steps == [4, 8]
    assert equal(again[1].state_dict(), whole[1].state_dict())
    assert again[2] == whole[2]


@pytest.mark.slow
@pytest.mark.parametrize(("network", "shape"), [(MLP, VECTOR), (UNET, IMAGE)])
def test_the_same_seed_gives_the_same_bits(network, shape, short):
    one = run(network, shape)
    torch.rand(3)  # nothing depends on the global generator
    other = run(network, shape)

    assert equal(one[0].state_dict(), other[0].state_dict())
    assert equal(one[1].state_dict(), other[1].state_dict())
    assert one[2] == other[2]
    for different in (run(network, shape, seed=1), run(network, shape, lap=1)):
        assert not equal(one[1].state_dict(), different[1].state_dict())


def test_training_does_not_touch_the_global_generator():
    before = torch.random.get_rng_state()

    run(UNET, IMAGE)

    assert torch.equal(before, torch.random.get_rng_state())


def test_dropout_is_active_in_training_alone():
    without = {**UNET, "dropout": 0.0}
    assert equal(make(UNET, IMAGE).state_dict(), make(without, IMAGE).state_dict())

    weights, average, _ = run(UNET, IMAGE)
    others, _, _ = run(without, IMAGE)

    assert not equal(weights.state_dict(), others.state_dict())
    x, t = data(IMAGE, 4), torch.full((1,), 0.5)
    with torch.no_grad():
        one, other = (weights(x, t).mean for _ in range(2))
        assert not torch.equal(one, other)
        assert torch.equal(average(x, t).mean, average(x, t).mean)


def test_the_curve(short):
    steps = []
    _, average, curve = run(
        steps=10, learning_rate_final=1e-4, progress=lambda step, loss: steps.append((step, loss))
    )

    assert [row["step"] for row in curve] == [4, 8, 10]
    assert steps == [(row["step"], row["loss"]) for row in curve]
    rates = [1e-2 + (1e-4 - 1e-2) * step / 9 for step in (3, 7, 9)]
    assert [row["learning_rate"] for row in curve] == pytest.approx(rates)
    expected = validation_loss(average, data(VECTOR, 20, seed=1), 0, batch=16)
    assert curve[-1]["validation_loss"] == expected


def test_validation_samples_do_not_touch_the_weights():
    training = Training(10, 16, 1e-2)

    one, other = make(), make()
    first, _ = train(one, data(), data(VECTOR, 20, seed=1), training, 0)
    second, _ = train(other, data(), 100 + data(VECTOR, 5, seed=2), training, 0)

    assert equal(one.state_dict(), other.state_dict())
    assert equal(first.state_dict(), second.state_dict())


def test_the_average_is_ready_to_sample_and_apart_from_the_weights():
    denoiser, average, _ = run(UNET, IMAGE)

    assert not average.training
    assert not any(p.requires_grad for p in average.parameters())
    pairs = zip(denoiser.parameters(), average.parameters(), strict=True)
    assert all(p.data_ptr() != q.data_ptr() for p, q in pairs)
    assert not equal(denoiser.state_dict(), average.state_dict())


@pytest.mark.parametrize("warmup", [True, False])
def test_the_average_by_hand(warmup, monkeypatch):
    history, original = [[p.detach().clone() for p in make().parameters()]], Adam.step

    def step(self, rate):
        original(self, rate)
        history.append([w.detach().clone() for w in self.weights])

    monkeypatch.setattr(Adam, "step", step)
    _, average, _ = run(steps=6, ema=0.8, ema_warmup=warmup)

    expected = history[0]
    for n, weights in enumerate(history[1:]):
        decay = min(0.8, (1 + n) / (10 + n)) if warmup else 0.8
        pairs = zip(expected, weights, strict=True)
        expected = [decay * m + (1 - decay) * w for m, w in pairs]
    for one, other in zip(average.parameters(), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "told"),
    [({"ema": 0.99}, True), ({"ema": 0.5}, False), ({"ema": 0.99, "ema_warmup": True}, False)],
)
def test_an_average_that_hardly_moves_is_told(options, told, caplog):
    _warn_of_the_average(Training(50, 8, 1e-3, **options), 3)

    assert ("Lap 3: after 50 steps the average of the weights still is 61 %" in caplog.text) == told


def test_dropout_has_a_stream_of_its_own(monkeypatch):
    # Its masks do not follow from the noise: another stage, and of each process another.
    streams = Streams.of(0, Stage.M_STEP, 1, 2, torch.device("cpu"))
    assert streams.dropout == torch_generator(0, Stage.DROPOUT, 1, 2).initial_seed()
    assert streams.dropout != streams.generator.initial_seed()

    monkeypatch.setattr(loss, "size", lambda: 2)
    seeds = set()
    for rank in (0, 1):
        monkeypatch.setattr(loss, "rank", lambda rank=rank: rank)
        blocks = (Streams.of(0, Stage.M_STEP, 1, block, torch.device("cpu")) for block in range(3))
        seeds |= {found.dropout for found in blocks}
    assert len(seeds) == 6


def test_a_step_by_hand():
    # One step of Adam moves a weight by rate * g / (|g| + 1e-8), with the gradient clipped.
    denoiser, x = make(), data(count=16)
    before = {name: p.detach().clone() for name, p in denoiser.named_parameters()}

    options = Training(1, 16, learning_rate=0.1, clip=1e-7)
    train(denoiser, x, x, options, seed=0, lap=2)

    fresh = make()
    times, generator, _ = Streams.of(0, Stage.M_STEP, 2, 0, x.device)
    t = torch.from_numpy(times.beta(3.0, 3.0, 16)).float()
    z = torch.randn(16, *VECTOR, generator=generator)
    rows = Batches(16, 16, 0, 2)[0]
    weighted_error(fresh, x[rows], t, z).backward()
    norm = torch.cat([p.grad.flatten() for p in fresh.parameters()]).norm()
    for name, p in fresh.named_parameters():
        g = p.grad * 1e-7 / (norm + 1e-6)
        expected = before[name] - 0.1 * g / (g.abs() + 1e-8)
        torch.testing.assert_close(denoiser.get_parameter(name), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("network", "shape"), [(MLP, VECTOR), (UNET, IMAGE)])
def test_training_on_a_gaussian_approaches_the_exact_denoiser(network, shape):
    if network is UNET:
        network = {"name": "residual_mlp", "width": 32, "blocks": 1, "embedding": 16}
    gaussian = random_gaussian(shape, 2, torch.float32)
    exact, x = gaussian.denoiser(make().schedule), data(shape, 4000)

    def gap(denoiser):
        # E |d - d*|^2 against E |x - d*|^2, the least loss, at several levels.
        gaps = []
        for t in (0.5, 0.65, 0.8):
            t = torch.tensor([t])
            x_t = x[:500] + exact.schedule.sigma(t) * torch.randn(500, *shape)
            d = exact(x_t, t).mean
            gaps.append((denoiser(x_t, t).mean - d).square().mean() / (x[:500] - d).square().mean())
        return torch.stack(gaps).mean().item()

    denoiser = make(network, shape)
    with torch.no_grad():
        before = gap(denoiser.eval())
    options = Training(400, 128, 3e-3, 1e-5, ema=0.99)
    average, curve = train(denoiser, x, data(shape, 500, seed=1), options, seed=0)

    after = gap(average)
    assert before > 0.3
    assert after < 0.1 * before
    assert curve[-1]["validation_loss"] < curve[0]["validation_loss"]


# Failures


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_a_loss_that_is_not_finite(value, short):
    x = data()
    x[7] = value

    with pytest.raises(DiemError) as error:
        run(x=x, steps=40, lap=3)

    message = str(error.value)
    assert "lap 3" in message
    assert "0.01" in message
    assert "m_step.learning_rate" in message
    assert any(f"steps {n} and {n + 4}" in message for n in range(0, 40, 4))
    assert message.endswith(".")


FASTER = {"steps": 32, "learning_rate": 1e-3, "learning_rate_final": 3.0, "clip": 1e9, "ema": 0.0}
"""A rate that grows, until at last it is too large."""


@pytest.fixture
def sensitive(short, monkeypatch):
    """Calls losses diverged that are little above the usual one."""
    monkeypatch.setattr(training, "DIVERGED", 1.3)


def test_a_loss_that_explodes_in_the_first_steps(short):
    with pytest.raises(DiemError) as error:
        run(steps=8, learning_rate=8.0, clip=1e9, lap=3)

    message = str(error.value)
    assert "between the steps 0 and 4 of lap 3" in message
    assert "a learning rate of 8" in message
    assert "goes on from its beginning" in message
    assert message.endswith(".")


def test_a_checkpoint_that_was_read_is_named(tmp_path):
    path, state = tmp_path / "checkpoint", {"weights": torch.ones(2)}
    row = {"loss": 1.0, "validation_loss": 1.0, "learning_rate": 0.1, "halvings": 0}
    Checkpoint(path, "f").save(state, [{**row, "step": 4}, {**row, "step": 8}], now=True)

    again = Checkpoint(path, "f")
    assert str(again) == "from its beginning"
    again.load(state, 1)

    assert str(again) == f"from {path} of step 8"


def test_the_last_checkpoint_is_named(short, tmp_path):
    checkpoint = tmp_path / "resume"
    x = data(count=320)
    x[Batches(320, 16, 0, 0)[9]] = 1e30

    with pytest.raises(DiemError, match="goes on from") as error:
        run(x=x, steps=20, checkpoint=checkpoint)

    assert "between the steps 8 and 12" in str(error.value)
    assert f"{checkpoint} of step 8" in str(error.value)
    assert load_tensors(checkpoint)[0]["curve.step"].tolist() == [4, 8]


@pytest.mark.parametrize("of", ["loss", "validation_loss"])
def test_one_large_loss_alone_is_no_divergence(of):
    # A few samples at a low noise level can make it.
    row = {"loss": 1.0, "validation_loss": 1.0}

    assert not training._diverged({**row, of: 1e3}, usual=1.0, means=[])
    assert training._diverged({**row, of: math.inf}, usual=1.0, means=[])
    assert training._diverged({"loss": 1e3, "validation_loss": 1e3}, usual=1.0, means=[])


def test_a_rate_that_is_lowered(sensitive, caplog):
    with caplog.at_level("WARNING", "diem"):
        _, average, curve = run(**FASTER, on_divergence="lower_rate")

    halvings = [row["halvings"] for row in curve]
    assert halvings[0] == 0
    assert halvings == sorted(halvings)
    assert caplog.text.count("at half the rate") == halvings[-1] > 0
    assert f"goes on from step {4 * halvings.index(1)} at half the rate" in caplog.text
    assert [row["step"] for row in curve] == list(range(4, 33, 4))
    rates = [1e-3 + (3.0 - 1e-3) * step / 31 for step in range(3, 32, 4)]
    rates = [rate / 2**n for rate, n in zip(rates, halvings, strict=True)]
    assert [row["learning_rate"] for row in curve] == pytest.approx(rates)
    assert all(torch.isfinite(w).all() for w in average.parameters())


def test_a_rate_is_lowered_a_few_times_only(short):
    with pytest.raises(DiemError, match=r"halved 5 times: lower m_step\.learning_rate"):
        run(steps=8, learning_rate=1e4, clip=1e9, on_divergence="lower_rate")


def test_going_back_leaves_no_trace(short):
    # The rate is halved before the first steps are done: as if it had been set so.
    options = {"steps": 8, "clip": 1e9}
    lowered = run(**options, learning_rate=8.0, on_divergence="lower_rate")
    halvings = lowered[2][0]["halvings"]
    once = run(**options, learning_rate=8.0 / 2**halvings)

    assert halvings > 0
    assert equal(lowered[0].state_dict(), once[0].state_dict())
    assert equal(lowered[1].state_dict(), once[1].state_dict())


@pytest.mark.parametrize("step", [4, 12, 20, 28])
def test_an_interrupted_run_whose_rate_was_lowered(step, tmp_path, sensitive):
    options = FASTER | {"on_divergence": "lower_rate"}
    whole = run(**options)
    options |= {"checkpoint": tmp_path / "resume", "fingerprint": "f"}
    with pytest.raises(Stop):
        run(progress=stop_at(step), **options)

    again = run(**options)

    assert equal(whole[0].state_dict(), again[0].state_dict())
    assert equal(whole[1].state_dict(), again[1].state_dict())
    assert whole[2] == again[2]


def test_a_stopped_run_goes_on_at_a_lower_rate(tmp_path, sensitive):
    whole = run(**FASTER, on_divergence="lower_rate")
    options = FASTER | {"checkpoint": tmp_path / "resume", "fingerprint": "f"}
    with pytest.raises(DiemError, match="on_divergence"):
        run(**options)
    steps = []

    again = run(
        **options, on_divergence="lower_rate", progress=lambda step, loss: steps.append(step)
    )

    assert steps[0] == next(row["step"] for row in whole[2] if row["halvings"])
    assert equal(whole[1].state_dict(), again[1].state_dict())
    assert whole[2] == again[2]


def test_weights_that_overflow_in_the_last_step(short):
    # The loss of a step is that of the weights before: the last step's own damage is seen by the
    # average's validation loss alone.
    with pytest.raises(DiemError, match=r"m_step\.learning_rate"):
        run(steps=1, learning_rate=1e38, clip=1e38)


def test_the_card_tells_that_the_rate_was_lowered(lap):
    settings = {"learning_rate": 8.0, "clip": 1e9}

    output, losses = lap.run(settings=settings, on_divergence="lower_rate")

    halvings = read_prior(output).card["halvings"]
    assert halvings > 0
    with losses.open(newline="") as file:
        assert {row["halvings"] for row in csv.DictReader(file)} == {str(halvings)}


# Resuming


class Stop(Exception):
    pass


def stop_at(step):
    def progress(done, loss):
        if done >= step:
            raise Stop

    return progress


@pytest.mark.slow
@pytest.mark.parametrize("step", [4, 8, 12])
@pytest.mark.parametrize(("network", "shape"), [(MLP, VECTOR), (UNET, IMAGE)])
def test_an_interrupted_run_goes_on_to_the_same_bits(network, shape, step, tmp_path, short):
    options = {"steps": 14, "learning_rate_final": 1e-4, "lap": 2}
    whole = run(network, shape, **options)
    checkpoint = tmp_path / "resume"
    options |= {"checkpoint": checkpoint, "fingerprint": "f"}

    with pytest.raises(Stop):
        run(network, shape, progress=stop_at(step), **options)
    assert checkpoint.is_file() == (step > 4)  # the chunk that was stopped is not kept
    steps = []
    again = run(network, shape, progress=lambda n, loss: steps.append(n), **options)

    assert steps == [*range(step, 14, 4), 14]
    assert equal(whole[0].state_dict(), again[0].state_dict())
    assert equal(whole[1].state_dict(), again[1].state_dict())
    assert whole[2] == again[2]


def test_a_run_that_is_interrupted_twice(tmp_path, short):
    options = {"steps": 14, "checkpoint": tmp_path / "resume", "fingerprint": "f"}
    for step in (8, 12):
        with pytest.raises(Stop):
            run(progress=stop_at(step), **options)

    assert equal(run(**options)[1].state_dict(), run(steps=14)[1].state_dict())


def test_a_finished_run_is_not_run_again(tmp_path, short):
    options = {"steps": 8, "checkpoint": tmp_path / "resume", "fingerprint": "f"}
    first = run(**options)

    again = run(progress=stop_at(0), **options)

    assert equal(first[1].state_dict(), again[1].state_dict())
    assert first[2] == again[2]


def test_a_checkpoint_of_another_fingerprint_is_not_used(tmp_path, short):
    checkpoint = tmp_path / "resume"
    with pytest.raises(Stop):
        run(seed=1, progress=stop_at(8), checkpoint=checkpoint, fingerprint="of seed 1")
    assert checkpoint.is_file()

    again = run(seed=0, checkpoint=checkpoint, fingerprint="of seed 0")

    whole = run(seed=0)
    assert equal(whole[1].state_dict(), again[1].state_dict())
    assert whole[2] == again[2]


# The M-step, end to end


RANK_1 = {"rank": 1, "observations": 1000}
AROUND = {"name": "residual_mlp", "width": 8, "blocks": 1, "embedding": 4, "gaussian": True}


class LapFiles:
    """The files of a lap, and its M-step with settings that a test changes."""

    def __init__(self, folder):
        self.folder = folder
        x, x_validation = data(count=60).numpy(), data(count=12, seed=1).numpy()
        self.x, self.shards = x, [folder / "1.h5", folder / "2.h5"]
        self.write(x, x_validation)
        self.settings = {
            "steps": 8,
            "epochs": None,
            "batch": 16,
            "learning_rate": 1e-2,
            "learning_rate_final": None,
            "clip": 1.0,
            "ema": 0.9,
            "ema_warmup": True,
            "warm_start": True,
            "drop_outside": None,
        }

    def write(self, x, x_validation):
        first = {"train/x": x[:40], "train/index": np.arange(40)}
        second = {
            "train/x": x[40:],
            "train/index": np.arange(40, 60),
            "validation/x": x_validation,
            "validation/index": np.arange(12),
        }
        for path, arrays in zip(self.shards, (first, second), strict=True):
            write_hdf5(path, arrays, {})

    def run(self, name="out", **options):
        output, losses = self.folder / name / "prior", self.folder / name / "losses.csv"
        names = ("seed", "progress", "cache_mb")
        job = Job(**{name: options.pop(name) for name in names if name in options})
        lap = Lap(
            number=options.pop("lap", 1),
            m_step={**self.settings, **options.pop("settings", {})},
            **{
                "samples": self.shards,
                "network": MLP,
                "schedule": SCHEDULE,
                "gaussian": {"rank": 2, "observations": 1000},
                "card": {"experiment": "test", "run": "base"},
                "checkpoint_seconds": 0,
                **options,
            },
        )
        m_step(lap, output, losses, job)
        return output, losses


@pytest.fixture
def lap(tmp_path, short):
    return LapFiles(tmp_path)


def test_the_m_step_writes_a_prior_and_its_curve(lap, tmp_path):
    output, losses = lap.run()

    prior = read_prior(output, network=MLP, event_shape=VECTOR)
    made = {"network", "schedule", "m_step", "lap", "seed", "training_samples", "optimizer_steps"}
    assert made | {"experiment", "run"} <= set(prior.card)
    held_out = data(count=12, seed=1)
    assert prior.card[CARD_ERROR] == denoising_error(prior.denoiser, held_out, 0, 16)
    assert (prior.card["lap"], prior.card["training_samples"]) == (1, 60)
    assert prior.card["optimizer_steps"] == 8
    left = sorted(p.name for p in output.parent.iterdir())
    assert left == [".prior.diem", "losses.csv", "prior"]
    with losses.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["step", "loss", "validation_loss", "learning_rate", "halvings"]
    assert [int(row["step"]) for row in rows] == [4, 8]
    # The Gaussian is the PPCA of the samples.
    expected = ppca(*moments(torch.from_numpy(lap.x).double()), 2)
    torch.testing.assert_close(prior.gaussian.mean, expected.mean.float())
    torch.testing.assert_close(prior.gaussian.noise, expected.noise.float())


def test_fresh_weights_begin_with_the_gaussian_of_the_samples(lap):
    slow = {"learning_rate": 1e-12}
    x, t = torch.randn(5, *VECTOR), torch.tensor([0.5])

    first, _ = lap.run("first", network=AROUND, settings=slow)
    second, _ = lap.run("second", network=AROUND, lap=2, previous=first, gaussian=RANK_1)

    prior = read_prior(first)
    exact = prior.gaussian.denoiser(prior.denoiser.schedule)(x, t).mean
    torch.testing.assert_close(prior.denoiser(x, t).mean, exact, rtol=1e-3, atol=1e-4)
    # Later laps go on with it, and not with the Gaussian of their own samples.
    kept = read_prior(second).denoiser.backbone.gaussian
    assert torch.equal(kept.values, prior.denoiser.backbone.gaussian.values)


def test_other_fresh_weights_need_no_covariance(lap, monkeypatch):
    # That of a large image would not fit the memory.
    monkeypatch.delattr(Gaussian, "dense")

    lap.run(network={**AROUND, "gaussian": False})


def test_a_gaussian_that_hardly_varies_in_a_direction_is_begun_with(lap):
    # In single precision the smallest eigenvalue is one part in 1e8 of the largest, or below zero.
    start = Lap(1, lap.shards, lap.settings, AROUND, SCHEDULE, RANK_1)
    factors = 10 * torch.linalg.qr(torch.randn(5, 5)).Q[:, :4]
    gaussian = Gaussian(torch.zeros(5), torch.tensor(1e-6), factors)

    denoiser, _ = start.start(gaussian, 0)

    exact = gaussian.to(torch.float64).denoiser(denoiser.schedule)
    for t in (torch.tensor([0.0]), torch.tensor([0.3])):
        x_t = gaussian.sample(64, torch.Generator().manual_seed(0))
        x_t += denoiser.schedule.sigma(t) * torch.randn(64, 5)
        gap = denoiser(x_t, t).mean - exact(x_t.double(), t.double()).mean
        assert gap.abs().max() < 1e-3 * denoiser.schedule.sigma(t)


def test_the_bar_of_a_training_is_drawn_by_its_clock_and_not_with_every_chunk(lap):
    drawn = io.StringIO()

    with tqdm(file=drawn, mininterval=1e9) as bar:
        before = drawn.getvalue().count("it/s")
        lap.run(progress=bar, settings={"steps": 40})
        after = drawn.getvalue().count("it/s")

    assert (bar.n, bar.total) == (40, 40)
    assert "loss=" in bar.postfix
    assert after - before == 1  # when it is told how many steps there are


@pytest.mark.parametrize("change", ["versions", "_code", "device"])
def test_a_training_does_not_go_on_with_what_other_software_began(lap, change, monkeypatch, caplog):
    with pytest.raises(Stop):
        lap.run(progress=interrupt(8), settings={"steps": 12})
    if change != "device":
        monkeypatch.setattr(resume, change, dict)
    else:
        real = resume.content_digest
        monkeypatch.setattr(resume, "content_digest", lambda *made_of: real(*made_of[:-1], "other"))
    whole = lap.run("whole", settings={"steps": 12})

    again = lap.run(settings={"steps": 12})

    assert whole[1].read_bytes() == again[1].read_bytes()
    assert "lap 1 begins anew" in caplog.text


def test_a_training_does_not_go_on_with_what_other_code_of_ones_own_began(lap):
    made = [
        Lap(1, lap.shards, lap.settings, AROUND, SCHEDULE, RANK_1, card={"code": code})
        for code in ("one", "two", "one")
    ]
    one, two, same = (each.fingerprint(0, torch.device("cpu")) for each in made)

    assert one == same != two


def test_a_training_does_not_go_on_with_one_that_another_gaussian_began(lap):
    one, two, same = (
        Lap(1, lap.shards, lap.settings, AROUND, SCHEDULE, {"rank": rank}).fingerprint(
            0, torch.device("cpu")
        )
        for rank in (1, 2, 1)
    )

    assert one == same != two


@pytest.mark.parametrize("epochs", [1, 3])
def test_epochs_take_the_place_of_steps(lap, epochs):
    output, _ = lap.run(settings={"epochs": epochs})

    assert read_prior(output).card["optimizer_steps"] == epochs * 60 // 16


def test_the_m_step_is_training_from_fresh_weights_of_its_lap(lap):
    output, _ = lap.run(lap=3, settings={"learning_rate": 1e-12})

    stream = torch_generator(0, Stage.NETWORK, 3).initial_seed()
    fresh = build_denoiser(MLP, SCHEDULE, VECTOR, stream).backbone.state_dict()
    loaded = read_prior(output).denoiser.backbone.state_dict()
    for key, value in fresh.items():
        torch.testing.assert_close(loaded[key], value, rtol=0, atol=1e-9)


def test_a_warm_start_goes_on_from_the_average_of_the_lap_before(lap):
    first, _ = lap.run("one")
    before = read_prior(first)

    still, _ = lap.run("still", previous=first, lap=2, settings={"learning_rate": 1e-12})
    loaded = read_prior(still)

    for key, value in before.denoiser.backbone.state_dict().items():
        torch.testing.assert_close(
            loaded.denoiser.backbone.state_dict()[key], value, rtol=0, atol=1e-9
        )
    assert loaded.card["optimizer_steps"] == 16
    # Fresh weights are others.
    fresh = read_prior(lap.run("fresh", lap=2)[0])
    assert fresh.card["optimizer_steps"] == 8
    assert not torch.allclose(
        fresh.denoiser.backbone.first.weight, before.denoiser.backbone.first.weight, atol=1e-3
    )


OWN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, event_shape):
        super().__init__()
        (size,) = event_shape
        self.waves = nn.Parameter(torch.randn(4), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(3))
        self.first = nn.Linear(size + 4, 8)
        self.norm = nn.BatchNorm1d(8)
        self.middle = nn.Linear(8, 8, bias=False)
        self.same = nn.Linear(8, 8, bias=False)
        self.same.weight = self.middle.weight
        self.last = nn.Linear(8, size)

    def forward(self, x, t):
        self.register_buffer("seen", x, persistent=False)  # of another size at each call
        waves = torch.sin(t[:, None] * self.waves)
        h = self.norm(self.first(torch.cat((x, waves), dim=1)))
        return self.last(self.same(self.middle(h).relu()))
"""


def test_a_network_without_a_parameter_to_train_is_refused():
    frozen = make().requires_grad_(False)

    with pytest.raises(DiemError, match="no parameter to train"):
        train(frozen, data(), data(), Training(1, 8, 1e-3), 0)


def test_modules_of_ones_own_train_as_pytorch_trains_them(lap, tmp_path, monkeypatch):
    (tmp_path / "kinds_of_weights.py").write_text(OWN)
    monkeypatch.setenv("DIEM_PATH", str(tmp_path))
    network = {"name": "kinds_of_weights:Net"}
    fresh = make(network).backbone.module

    def trained(name, **options):
        output, _ = lap.run(name, network=network, **options)
        return output, read_prior(output).denoiser.backbone.module

    one, first = trained("one")
    _, second = trained("two", lap=2, previous=one)

    assert not torch.equal(first.first.weight, fresh.first.weight)
    for module in (first, second):
        assert torch.equal(module.waves, first.waves)  # asks for no gradient
        assert torch.equal(module.unused, fresh.unused)
        assert torch.equal(module.same.weight, module.middle.weight)
        # Running moments are no weights, and have no gradient.
        assert (module.norm.running_mean != 0).all()
        assert module.norm.num_batches_tracked > 0
    assert not torch.equal(second.norm.running_mean, first.norm.running_mean)


def test_the_ceiling_trains_on_clean_data(lap, tmp_path):
    clean = tmp_path / "clean.h5"
    arrays = {"train/x": lap.x, "validation/x": data(count=12, seed=1).numpy()}
    write_hdf5(clean, arrays, {})

    on_clean, on_samples = lap.run("clean", samples=[clean]), lap.run("samples")

    # The same numbers in another file: the same prior.
    assert on_clean[0].read_bytes() == on_samples[0].read_bytes()


@pytest.mark.parametrize("bound", [3.0, 2.5])
def test_samples_outside_are_dropped(lap, bound):
    lap.x[5, 1] = 100
    lap.x[59, 2] = -2.9
    lap.write(lap.x, data(count=12, seed=1).numpy())
    kept = (np.abs(lap.x) <= bound).all(axis=1)

    prior = read_prior(lap.run(settings={"drop_outside": bound})[0])

    assert not kept[5]
    assert kept[59] == (bound > 2.9)
    assert prior.card["training_samples"] == kept.sum()
    mean = torch.from_numpy(lap.x[kept]).double().mean(dim=0)
    torch.testing.assert_close(prior.gaussian.mean.double(), mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bound", [None, 2.5])
def test_samples_on_the_disk_give_the_same_bytes(lap, bound):
    settings = {"drop_outside": bound}
    held, streamed = (lap.run(str(mb), settings=settings, cache_mb=mb) for mb in (1, 0))

    assert held[0].read_bytes() == streamed[0].read_bytes()
    assert held[1].read_bytes() == streamed[1].read_bytes()


class Recorded:
    """Rows that tell who reads them, of which one may be damaged."""

    def __init__(self, damaged=-1):
        self.damaged, self.threads, self.read = damaged, set(), 0

    def __getitem__(self, rows):
        self.threads.add(threading.current_thread().name)
        self.read += 1
        if self.damaged in rows:
            raise DiemError("x is damaged.")
        return np.repeat(rows[:, None].astype(np.float32), 3, axis=1)


def readers():
    return [each for each in threading.enumerate() if each.name.startswith("read-ahead")]


def test_a_batch_is_read_while_the_one_before_is_trained_on():
    rows, order = Recorded(), Batches(20, 8, seed=0, lap=1)
    found = batches_on(rows, order, range(3, 6), torch.device("cpu"))

    for step, batch in zip(range(3, 6), found, strict=True):
        assert batch[:, 0].tolist() == order[step].tolist()
        assert len(readers()) == 1

    assert rows.read == 3  # and none of the steps that may not come
    assert {name.partition("_")[0] for name in rows.threads} == {"read-ahead"}
    assert not readers()


def test_a_batch_that_cannot_be_read_is_told_in_its_place():
    order = Batches(20, 8, seed=0, lap=1)
    damaged = next(row for row in order[1] if row not in order[0])
    found = batches_on(Recorded(damaged), order, range(3), torch.device("cpu"))

    assert next(found)[:, 0].tolist() == order[0].tolist()
    with pytest.raises(DiemError, match=r"^x is damaged\.$"):
        next(found)
    assert not readers()


def test_a_thread_that_reads_ends_with_the_training_that_fails():
    rows, order = Recorded(), Batches(20, 8, seed=0, lap=1)
    with contextlib.closing(batches_on(rows, order, range(9), torch.device("cpu"))) as found:
        next(found)
        assert readers()
    assert not readers()
    assert rows.read <= 2


@pytest.mark.slow
def test_the_memory_that_samples_take_is_bounded(lap, monkeypatch):
    # NumPy's memory, into which rows are read: 32 MB of samples, through a cache of 1 MB.
    monkeypatch.setattr(hdf5, "PART_BYTES", 2**20)
    x = np.random.default_rng(0).standard_normal((2**15, 256), dtype=np.float32)
    lap.write(x, x[:4096])
    options = {"gaussian": {"rank": 2, "observations": 1000}, "settings": {"drop_outside": 9.0}}

    peaks = {}
    for mb in (100, 1):
        tracemalloc.start()
        lap.run(str(mb), cache_mb=mb, **options)
        peaks[mb] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    assert peaks[100] > x.nbytes
    assert peaks[1] < x.nbytes / 4


def test_nothing_inside_is_told(lap):
    with pytest.raises(DiemError, match=r"m_step\.drop_outside = 1e-06") as error:
        lap.run(settings={"drop_outside": 1e-6})

    assert str(lap.shards[0]) in str(error.value)


def interrupt(bar_step):
    """Returns a progress bar that stops the M-step once it has come to a step."""

    class Bar:
        n = 0

        def reset(self, total):
            self.total = total

        def set_postfix(self, **kwargs):
            pass

        def update(self, n):
            self.n += n
            if self.n >= bar_step:
                raise Stop

    return Bar()


def test_an_interrupted_m_step_goes_on_to_the_same_bytes(lap):
    whole = lap.run("whole", settings={"steps": 14})
    with pytest.raises(Stop):
        lap.run("cut", settings={"steps": 14}, progress=interrupt(8))
    output = lap.folder / "cut" / "prior"
    assert [p.name for p in output.parent.iterdir()] == [".prior.diem"]

    again = lap.run("cut", settings={"steps": 14})

    assert whole[0].read_bytes() == again[0].read_bytes()
    assert whole[1].read_bytes() == again[1].read_bytes()
    # It stays until Snakemake has taken note: an attempt more takes no step.
    before = [path.read_bytes() for path in again]
    assert [path.read_bytes() for path in lap.run("cut", settings={"steps": 14})] == before
    remove_pieces(output)
    assert sorted(p.name for p in output.parent.iterdir()) == sorted(p.name for p in again)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"settings": {"steps": 14, "learning_rate": 1e-3}}, id="settings"),
        pytest.param({"network": {**MLP, "hidden": [17]}}, id="network"),
        pytest.param({"seed": 1}, id="seed"),
        pytest.param({"schedule": {"sigma_min": 0.02, "sigma_max": 5.0}}, id="schedule"),
        pytest.param({"lap": 2}, id="lap"),
    ],
)
def test_an_interrupted_m_step_of_other_settings_starts_again(lap, change):
    with pytest.raises(Stop):
        lap.run("cut", settings={"steps": 14}, progress=interrupt(8))

    options = {"settings": {"steps": 14}, **change}
    again, whole = lap.run("cut", **options), lap.run("whole", **options)

    assert again[0].read_bytes() == whole[0].read_bytes()
    assert again[1].read_bytes() == whole[1].read_bytes()


def test_an_interrupted_m_step_of_other_samples_starts_again(lap):
    with pytest.raises(Stop):
        lap.run("cut", settings={"steps": 14}, progress=interrupt(8))
    lap.write(1 + lap.x, data(count=12, seed=1).numpy())

    options = {"settings": {"steps": 14}}

    assert lap.run("cut", **options)[0].read_bytes() == lap.run("whole", **options)[0].read_bytes()


def test_a_previous_prior_of_another_network_is_refused(lap):
    first, _ = lap.run("one")

    with pytest.raises(DiemError, match=r"another network: network\.hidden") as error:
        lap.run("two", previous=first, network={**MLP, "hidden": [32]})

    assert str(first) in str(error.value)


def test_samples_that_are_damaged_are_refused(lap):
    lap.shards[1].write_bytes(lap.shards[1].read_bytes()[:-100])

    with pytest.raises(DiemError, match=str(lap.shards[1])):
        lap.run()


def test_samples_without_validation_are_refused(lap):
    with pytest.raises(DiemError, match="'validation/x' is missing"):
        lap.run(samples=lap.shards[:1])


def test_a_rank_that_the_data_cannot_have_is_told_in_a_sentence(lap):
    with pytest.raises(DiemError, match=r"gaussian\.rank"):
        lap.run(gaussian={"rank": 3, "observations": 1000})
