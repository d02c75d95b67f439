"""Predictions of hidden halves: what is hidden is not shown elsewhere, and noise is predicted."""

import math

import pytest
import torch
from helpers import matrices, random_gaussian, simulate
from test_operators import CASES
from test_selection import evaluated

from diem.data.observations import Observed, save_observations
from diem.diffusion.gaussian import Gaussian
from diem.errors import DiemError
from diem.evaluation.metrics.prediction import shown_half
from diem.operators.base import Operator
from diem.operators.partial import Partial
from diem.operators.verify import verify_operator

HALVES = [
    *CASES,
    pytest.param({"name": "fourier", "acceleration": 1}, (1, 6, 8), id="fourier-whole"),
    pytest.param({"name": "fourier", "acceleration": 2}, (1, 5, 7), id="fourier-odd"),
    pytest.param({"name": "fourier", "acceleration": 1}, (2, 5, 6), id="fourier-complex-whole"),
]
OVERDETERMINED = [
    ({"name": "projection", "rows": 7}, (3,)),
    ({"name": "fourier", "acceleration": 2, "coils": 3}, (2, 4, 6)),
]
"""More values than x has: any half tells of the other as far as its rank reaches."""


def rank(a):
    return int(torch.linalg.matrix_rank(a, tol=1e-6))


@pytest.mark.parametrize(("spec", "shape"), HALVES)
def test_no_hidden_value_follows_from_shown_ones(spec, shape):
    operator = simulate(spec, shape, 6)
    size, hidden_ranks = math.prod(shape), []

    shown = shown_half(operator, 6, torch.Generator().manual_seed(0)).flatten(1)

    observed = operator.observed().flatten(1)
    for a, s, o in zip(matrices(operator), shown, observed.expand_as(shown), strict=True):
        seen, hidden, both = rank(a[s & o]), rank(a[~s & o]), rank(a[o])
        hidden_ranks.append(hidden)
        # The rows span spaces that share nothing, or as little as there is room for.
        room = size - seen if (spec, shape) in OVERDETERMINED else size
        assert both - seen == min(hidden, room)
    assert sum(hidden_ranks) > 0


def test_coefficients_of_a_real_image_go_with_their_conjugates():
    for height, width in ((6, 8), (5, 7), (6, 7)):
        spec = {"name": "fourier", "acceleration": 1}
        real = simulate(spec, (1, height, width), 1)
        y = real.forward(torch.randn(1, 1, height, width, dtype=torch.float64))[0]

        together = real.together()

        for channel, sign in ((0, 1), (1, -1)):
            flat, value = together[channel].flatten(), y[channel].flatten()
            for index in flat.unique():
                first, *others = value[flat == index]
                assert len(others) <= 1
                for other in others:
                    torch.testing.assert_close(first, sign * other)
            # Only frequencies that are their own opposites stand alone.
            alone = (flat.bincount() == 1).sum()
            assert alone == (2 - height % 2) * (2 - width % 2)
        assert torch.equal(together[1] - together[0], torch.full((height, width), height * width))
        index = simulate(spec, (2, height, width), 1).together()
        assert torch.equal(index.flatten(), torch.arange(2 * height * width))


OTHERS = [case for case in CASES if case.id != "fourier"]


@pytest.mark.parametrize(("spec", "shape"), OTHERS)
def test_what_is_shown_is_drawn_pixel_by_pixel(spec, shape):
    operator = simulate(spec, shape, 6)
    y = (6, *operator.observation_shape)

    shown = shown_half(operator, 6, torch.Generator().manual_seed(3))

    pixels = (6, 1, *y[2:]) if len(y) > 2 else y
    u = torch.rand(pixels, generator=torch.Generator().manual_seed(3))
    assert torch.equal(shown, (u < 0.5).expand(y))


def test_a_part_of_an_operator_tells_as_the_whole_does():
    operator = simulate({"name": "fourier", "acceleration": 2}, (1, 4, 6), 3)
    partial = Partial(operator, torch.ones(3, 2, 4, 6, dtype=torch.bool))

    assert torch.equal(partial.together(), operator.together())


class Doubled(Operator):
    """Observes each value twice."""

    index = staticmethod(lambda n: torch.arange(n).repeat(2))

    @property
    def observation_shape(self):
        return (2 * self.event_shape[0],)

    def forward(self, x):
        return x.repeat(1, 2)

    def adjoint(self, y):
        return y[:, : self.event_shape[0]] + y[:, self.event_shape[0] :]

    def together(self):
        return self.index(self.event_shape[0])


def test_an_operator_of_ones_own_says_what_tells_of_each_other(monkeypatch):
    operator = Doubled((5,), {})
    verify_operator(operator, "doubled")

    shown = shown_half(operator, 20, torch.Generator().manual_seed(0))

    assert torch.equal(shown[:, :5], shown[:, 5:])
    assert 0 < shown[:, :5].sum() < 100
    for index, words in (
        (lambda n: torch.arange(n), "together has shape"),
        (lambda n: torch.arange(2.0 * n), "together holds torch.float32"),
        (lambda n: torch.arange(2 * n) + 1, "together holds 1 to 10"),
        (lambda n: torch.arange(2 * n) - 1, "together holds -1 to 8"),
    ):
        monkeypatch.setattr(Doubled, "index", staticmethod(index))
        with pytest.raises(DiemError, match=words):
            verify_operator(operator, "doubled")


def test_predictions_have_the_noise_of_observations(tmp_path):
    gaussian = random_gaussian((1, 8, 8), 2, torch.float32)
    known = Gaussian(gaussian.mean, torch.tensor(1e-12), 0 * gaussian.factors)
    operator = simulate({"name": "mask", "missing": 0.3}, (1, 8, 8), 60, torch.float32)
    noise = torch.randn(60, 1, 8, 8) * operator.observed()
    y = operator.forward(gaussian.mean.expand(60, 1, 8, 8)) + 0.5 * noise
    observed = Observed(operator, y, torch.tensor(0.5), torch.arange(60).numpy())
    path = tmp_path / "observations.h5"
    save_observations(path, {"validation": observed, "test": observed}, "mask", {})

    row, scores = evaluated(path, known)

    # The expected score of normals by themselves: sigma / sqrt(pi), and of their mean sqrt(2) more.
    assert len(scores) == 60
    error = scores.std() / math.sqrt(len(scores))
    assert error < 0.02
    assert abs(row["value"] - 0.5 / math.sqrt(math.pi)) < 5 * error
