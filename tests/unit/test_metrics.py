"""Metrics against answers that are known."""

import itertools
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import torch

from diem.data.sets import DATASETS, Split
from diem.errors import DiemError
from diem.evaluation.extractor import Extractor, load_extractor, train_extractor
from diem.evaluation.gaussians import (
    feature_moments,
    frechet_distance,
    frechet_distance_of_moments,
)
from diem.evaluation.kernel import kernel_distance
from diem.evaluation.metrics import sliced_wasserstein as sliced
from diem.evaluation.metrics import truncated_divergence as truncated
from diem.evaluation.metrics.base import Fidelity, Label
from diem.evaluation.metrics.distance_to_manifold import distance_to_manifold
from diem.evaluation.metrics.frechet_distance import FrechetDistance
from diem.evaluation.metrics.kernel_distance import KernelDistance
from diem.evaluation.metrics.psnr import psnr
from diem.evaluation.metrics.residual import residual, residual_summary
from diem.evaluation.metrics.sinkhorn_divergence import _entropic_cost, sinkhorn_divergence
from diem.evaluation.metrics.sliced_wasserstein import sliced_wasserstein
from diem.evaluation.metrics.ssim import ssim
from diem.evaluation.transport import truncated_transport
from diem.files import hdf5
from diem.files.hdf5 import Rows, write_hdf5
from diem.jobs.job import Job
from diem.seeds import Stage, rng


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


# Distances between sets of samples


@pytest.mark.slow
def test_sliced_wasserstein_in_one_dimension_is_between_sorted_values():
    a, b = normal(500, 1), 2 * normal(500, 1, seed=1) + 1

    expected = math.sqrt(np.mean((np.sort(a[:, 0]) - np.sort(b[:, 0])) ** 2))

    assert sliced_wasserstein(a, b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.slow
def test_sliced_wasserstein_of_a_shift():
    # One direction sees a shift of 2 as 2 cos(angle), whose mean square is 2^2 / 3.
    a = normal(200, 3)

    distance = sliced_wasserstein(a, a + np.array([2.0, 0.0, 0.0]), projections=20_000)

    assert distance == pytest.approx(2 / math.sqrt(3), rel=0.01)


@pytest.mark.slow
def test_sliced_wasserstein_of_two_gaussians():
    # Of isotropic Gaussians it is the difference of their standard deviations.
    a, b = normal(20_000, 4), 3 * normal(15_000, 4, seed=1)

    assert sliced_wasserstein(a, b) == pytest.approx(2, rel=0.02)


@pytest.mark.slow
def test_sliced_wasserstein_of_images_and_tensors():
    a, b = normal(50, 1, 4, 4), normal(60, 1, 4, 4, seed=1)

    distance = sliced_wasserstein(a, b)

    assert sliced_wasserstein(a, a[np.random.default_rng(0).permutation(50)]) < 1e-12
    assert sliced_wasserstein(b, a) == pytest.approx(distance, rel=1e-9)
    assert sliced_wasserstein(torch.from_numpy(a), torch.from_numpy(b)) == distance
    assert sliced_wasserstein(a.reshape(50, 16), b.reshape(60, 16)) == distance


def test_sliced_wasserstein_depends_on_the_seed_alone():
    a, b = normal(50, 3), normal(50, 3, seed=1)

    torch.manual_seed(0)
    first = sliced_wasserstein(a, b, seed=0)
    torch.manual_seed(1)

    assert sliced_wasserstein(a, b, seed=0) == first
    assert sliced_wasserstein(a, b, seed=1) != first


@pytest.mark.parametrize(("held", "few", "most"), [(1, 1, 1), (700, 250, 6), (10**6, 10**6, 32)])
def test_sliced_wasserstein_of_parts(monkeypatch, held: int, few: int, most: int):
    import ot

    projected, at_once = sliced._projected, []

    def noted(x, theta):
        at_once.append(theta.shape[1])
        return projected(x, theta)

    a, b = normal(60, 5), normal(45, 5, seed=1) + 0.5
    theta = rng(3, Stage.METRIC).standard_normal((5, 32))
    theta /= np.linalg.norm(theta, axis=0)
    expected = ot.sliced_wasserstein_distance(a, b, projections=theta)

    monkeypatch.setattr(sliced, "PROJECTED", held)
    monkeypatch.setattr(sliced, "SORTED", few)
    monkeypatch.setattr(sliced, "_projected", noted)
    monkeypatch.setattr(hdf5, "PART_BYTES", 7 * a[:1].nbytes)

    assert sliced_wasserstein(a, b, 32, seed=3) == pytest.approx(expected, rel=1e-12)
    assert max(at_once) == most  # of 105 samples each


def test_samples_are_never_asked_for_all_at_once(monkeypatch):
    class Counted:
        """Samples that note which of them are asked for."""

        def __init__(self, x):
            self.x, self.asked = x, []

        def __len__(self):
            return len(self.x)

        def __getitem__(self, rows):
            self.asked.append(len(self.x[rows]))
            return self.x[rows]

    a, b = (Counted(normal(50, 4, seed=i)) for i in range(2))
    monkeypatch.setattr(hdf5, "PART_BYTES", 8 * a.x[:1].nbytes)

    assert sliced_wasserstein(a, b) == sliced_wasserstein(a.x, b.x)

    for x in (a, b):
        assert max(x.asked) == 8
        assert sum(rows for rows in x.asked if rows > 1) == 50  # each once


def entropic_cost(a: np.ndarray, b: np.ndarray, strength: float) -> float:
    """The regularized cost by the definition: plain iterations, then the primal objective."""
    cost = ((a[:, None] - b[None]) ** 2).sum(axis=-1)
    weight = 1 / (len(a) * len(b))
    kernel = np.exp(-cost / strength)
    u = np.ones(len(a))
    for _ in range(5000):
        v = 1 / len(b) / (kernel.T @ u)
        u = 1 / len(a) / (kernel @ v)
    plan = u[:, None] * kernel * v
    return (plan * cost).sum() + strength * (plan * np.log(plan / weight)).sum()


def test_sinkhorn_divergence_by_its_definition():
    a, b = normal(40, 2), 0.5 * normal(30, 2, seed=1) + 1
    strength = 0.1

    expected = entropic_cost(a, b, strength) - 0.5 * (
        entropic_cost(a, a, strength) + entropic_cost(b, b, strength)
    )
    actual = sinkhorn_divergence(a, b, strength, tolerance=1e-5, iterations=10_000)

    assert actual == pytest.approx(expected, rel=1e-4)
    assert sinkhorn_divergence(a, b, strength) == pytest.approx(expected, rel=1e-2)


def test_entropic_cost_by_its_definition():
    # In the divergence, errors that the three terms share cancel.
    a, b = normal(40, 2), 0.5 * normal(30, 2, seed=1) + 1

    for x, y in ((a, b), (a, a)):
        actual = _entropic_cost(x, y, regularization=0.1, tolerance=1e-5, iterations=10_000)
        assert actual == pytest.approx(entropic_cost(x, y, 0.1), rel=1e-4)


def test_sinkhorn_divergence_of_equal_sets():
    a = normal(200, 3)

    assert sinkhorn_divergence(a, a.copy()) < 1e-4
    assert sinkhorn_divergence(a, a[::-1].copy()) < 1e-4


def test_sinkhorn_divergence_of_a_shift_is_its_square():
    a = normal(300, 5)

    assert sinkhorn_divergence(a, a + 1) == pytest.approx(5, rel=1e-3)


def test_sinkhorn_divergence_in_one_dimension():
    # Nearly unregularized, it is the squared distance between sorted values.
    a, b = normal(100, 1), 2 * normal(100, 1, seed=1) + 1

    expected = np.mean((np.sort(a[:, 0]) - np.sort(b[:, 0])) ** 2)

    assert sinkhorn_divergence(a, b, regularization=1e-5) == pytest.approx(expected, rel=1e-3)


def test_sinkhorn_divergence_of_two_gaussians():
    # W_2^2 of isotropic Gaussians in two dimensions is |1|^2 + 2 (0.5 - 1)^2.
    a, b = normal(600, 2), 0.5 * normal(600, 2, seed=1) + np.array([1.0, 0.0])

    assert sinkhorn_divergence(a, b, regularization=0.1) == pytest.approx(1.5, rel=0.1)


def test_sinkhorn_divergence_is_small_between_halves():
    a = normal(800, 2)

    halves = sinkhorn_divergence(a[:400], a[400:])

    assert 0 < halves < 0.1 * sinkhorn_divergence(a[:400], a[400:] + 1)


def test_sinkhorn_divergence_says_that_it_did_not_converge():
    with pytest.raises(DiemError, match="did not converge: after 2 iterations"):
        sinkhorn_divergence(normal(50, 3), normal(50, 3, seed=1), tolerance=1e-9, iterations=2)
    with pytest.raises(DiemError, match="did not converge: after 1024 iterations"):
        sinkhorn_divergence(normal(3, 2), normal(3, 2, seed=1), tolerance=0.0)


@pytest.mark.parametrize("iterations", [1, 11, 101])
@pytest.mark.parametrize(("n", "m", "scale"), [(60, 40, 1.0), (40, 60, 10.0), (50, 50, 0.01)])
def test_truncated_transport_is_log_domain_sinkhorn_from_zero(n, m, scale, iterations):
    import ot

    a, b = scale * normal(n, 3), scale * normal(m, 3, seed=1) + 0.5
    regularization = 1e-3

    expected = ot.sinkhorn2(
        [],
        [],
        ot.dist(a, b),
        regularization,
        method="sinkhorn_log",
        numItermax=iterations,
        stopThr=0,
        warn=False,
    )
    actual = truncated_transport(a, b, regularization, 0, iterations)

    assert actual.iterations == iterations or actual.violation == 0
    assert actual.cost == pytest.approx(float(expected), rel=1e-6)
    chunked = truncated_transport(a, b, regularization, 0, iterations, chunk=7 * m)
    assert chunked.cost == pytest.approx(actual.cost, rel=1e-6)


@pytest.mark.slow
def test_truncated_transport_of_many_iterations_is_the_optimum():
    import ot

    a, b = normal(40, 2), normal(40, 2, seed=1)

    plan = truncated_transport(a, b, 1e-2, tolerance=1e-4, iterations=100_000)

    assert plan.violation <= 1e-4
    assert plan.iterations < 100_000
    assert plan.cost == pytest.approx(ot.emd2([], [], ot.dist(a, b)), rel=0.02)


def test_truncated_transport_ends_at_the_tolerance():
    a, b = normal(100, 2), normal(100, 2, seed=1)

    loose, tight = (truncated_transport(a, b, 0.1, tolerance) for tolerance in (0.3, 0.01))

    assert loose.violation <= 0.3
    assert tight.violation <= 0.01
    assert loose.iterations < tight.iterations < 1024


def test_the_truncated_divergence_is_above_that_of_halves_of_the_clean_data(monkeypatch):
    monkeypatch.setattr(truncated, "_cost", lambda a, b, keep: float(np.mean((a - b) ** 2)))
    test, x = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 9.0]), np.full(5, 3.0)  # the last is left
    evaluation = SimpleNamespace(
        test=test,
        samples=[("prior", x, {"lap": 1}), ("samples", test[3:6], {"lap": 2})],
        settings={"sinkhorn_samples": 64},
        some=lambda rows, count: rows[:count],
        job=Job(),
    )

    found = list(truncated.TruncatedDivergence().measure(evaluation))

    assert [row.value for row in found] == [9.0 - 1.0, 1e-6]
    compared = {"samples": 3, "reference": "clean test", "reference_samples": 6}
    assert [row.card for row in found] == [{"lap": lap, **compared} for lap in (1, 2)]


def test_truncated_transport_leaves_out_masses_between_distant_modes():
    # Half of the mass has to move by 10, and a few iterations from zero do not tell.
    a = np.repeat([0.0, 10.0], [75, 25])[:, None] + 0.1 * normal(100, 1)
    b = np.repeat([0.0, 10.0], [25, 75])[:, None] + 0.1 * normal(100, 1, seed=1)

    plan = truncated_transport(a, b, 1e-3)

    assert plan.cost < 1
    assert plan.violation > 0.5
    assert sinkhorn_divergence(a, b) > 45


def test_truncated_transport_refuses_values_that_are_not_finite():
    with pytest.raises(DiemError, match="not finite"):
        truncated_transport(normal(5, 2), np.full((5, 2), np.nan))


def with_moments(samples: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Returns samples whose sample moments are exactly the given ones."""
    centred = samples - samples.mean(axis=0)
    root = np.linalg.cholesky(np.cov(centred.T))
    return np.linalg.solve(root, centred.T).T @ np.linalg.cholesky(covariance).T + mean


def test_frechet_distance_of_commuting_gaussians():
    # (1, 2) apart; standard deviations 1, 2 and 3, 2.
    a = with_moments(normal(50, 2), np.zeros(2), np.diag([1.0, 4.0]))
    b = with_moments(normal(60, 2, seed=1), np.array([1.0, 2.0]), np.diag([9.0, 4.0]))

    assert frechet_distance(a, b) == pytest.approx(1 + 4 + (3 - 1) ** 2, rel=1e-9)


def test_frechet_distance_of_gaussians_that_do_not_commute():
    s, t = np.array([[2.0, 1.0], [1.0, 2.0]]), np.diag([1.0, 4.0])
    a = with_moments(normal(50, 2), np.zeros(2), s)
    b = with_moments(normal(60, 2, seed=1), np.zeros(2), t)

    # The trace of the root of a 2x2 matrix M is sqrt(tr M + 2 sqrt(det M)).
    m = s @ t
    root = math.sqrt(np.trace(m) + 2 * math.sqrt(np.linalg.det(m)))

    assert frechet_distance(a, b) == pytest.approx(4 + 5 - 2 * root, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-9)


def test_frechet_distance_of_a_rank_deficient_fit():
    a = np.concatenate([normal(100, 3), np.zeros((100, 1))], axis=1)

    assert frechet_distance(a, a.copy()) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(a, a + np.array([0, 0, 0, 2.0])) == pytest.approx(4, rel=1e-9)


def test_frechet_distance_of_halves_is_small():
    x = torch.from_numpy(normal(4000, 8))

    assert frechet_distance(x[:2000], x[2000:]) < 0.05
    assert frechet_distance(x[:2000], 2 * x[2000:]) == pytest.approx(8, rel=0.1)


@pytest.mark.parametrize("count", [1, 8])
def test_frechet_distance_needs_more_samples_than_features(count: int):
    with pytest.raises(DiemError, match=f"more than 8 samples, got {count}"):
        frechet_distance(normal(100, 8), normal(count, 8))


@pytest.mark.parametrize("count", [2, 9, 40, 500])
def test_moments_of_parts_are_those_of_the_whole(count: int):
    # A mean that would cost digits if squares were summed.
    x = 1e4 + normal(count, 9) @ np.diag(np.arange(9.0))
    expected = torch.from_numpy(np.cov(x.T))

    for size in (1, 4, 33, count):
        fit = feature_moments(torch.from_numpy(x[i : i + size]) for i in range(0, count, size))

        torch.testing.assert_close(fit.mean, torch.from_numpy(x.mean(axis=0)), rtol=1e-14, atol=0)
        covariance = fit.root.T @ fit.root
        torch.testing.assert_close(covariance, expected, rtol=1e-9, atol=1e-9)
        assert frechet_distance_of_moments(fit, feature_moments(x)) < 1e-6


def test_moments_of_what_is_no_features():
    for parts in ([], [normal(1, 3)]):
        with pytest.raises(DiemError, match="two samples"):
            feature_moments(parts)
    with pytest.raises(ValueError, match=r"\(5, 3, 1\)"):
        feature_moments([normal(5, 3, 1)])
    with pytest.raises(DiemError, match="more than 3 samples, got 3"):
        feature_moments([normal(2, 3), normal(1, 3)], full=True)


@pytest.mark.parametrize("metric", [sliced_wasserstein, sinkhorn_divergence, frechet_distance])
def test_distances_check_their_inputs(metric):
    a = normal(20, 3)
    bad = a.copy()
    bad[0, 0] = np.nan

    with pytest.raises(ValueError, match=r"\(20, 4\)"):
        metric(a, normal(20, 4))
    with pytest.raises(ValueError, match=r"\(20,\)"):
        metric(a[:, 0], a[:, 0])
    with pytest.raises(DiemError, match="not finite"):
        metric(a, bad)


# Distances of each sample


def test_psnr_by_hand():
    reference = np.zeros((3, 1, 2, 2), dtype=np.float32)
    x = reference.copy()
    x[0] = 0.4  # a tenth of the range
    x[1, 0, 0, 0] = 4.0  # a mean square of a quarter of the range's square

    ratios = psnr(x, reference)

    assert ratios.shape == (3,)
    assert ratios[0].item() == pytest.approx(20, rel=1e-6)
    assert ratios[1].item() == pytest.approx(10 * math.log10(4), rel=1e-6)
    assert ratios[2].item() == math.inf
    assert psnr(x, reference, data_range=0.4)[0].item() == pytest.approx(0, abs=1e-5)
    with pytest.raises(ValueError, match="shapes"):
        psnr(x, reference[:1])


def test_distance_to_manifold_by_hand():
    # An L: from (0, 0) to (1, 0), there twice, to (1, 2).
    curve = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 2.0]])
    x = np.array([[0.5, -3.0], [-3.0, -4.0], [1.5, 1.3], [1.0, 0.7], [4.0, 6.0], [0.0, 1.0]])

    distances = distance_to_manifold(x, curve)

    assert distances.tolist() == pytest.approx([3, 5, 0.5, 0, 5, 1], abs=1e-12)


def test_distance_to_manifold_is_that_to_segments_not_to_points():
    angles = np.linspace(0, np.pi, 7)
    curve = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    x = normal(300, 3)

    # Points so dense on the segments that their distance is nearly exact.
    dense = np.concatenate(
        [a + np.linspace(0, 1, 2000)[:, None] * (b - a) for a, b in itertools.pairwise(curve)]
    )
    expected = torch.cdist(torch.from_numpy(x), torch.from_numpy(dense)).min(dim=1).values

    torch.testing.assert_close(distance_to_manifold(x, curve), expected, rtol=0, atol=1e-5)


def test_distance_to_manifold_does_not_depend_on_the_chunk():
    x, curve = normal(50, 4), normal(30, 4, seed=1)

    for chunk in (1, 100):
        chunked = distance_to_manifold(x, curve, chunk=chunk)
        torch.testing.assert_close(chunked, distance_to_manifold(x, curve))
    with pytest.raises(ValueError, match=r"\(50, 4\) and \(30, 3\)"):
        distance_to_manifold(x, curve[:, :3])


def test_residual_by_hand():
    y, y_hat = np.array([[1.0, 2.0]]), np.array([[0.0, 4.0]])

    assert residual(y, y_hat, 0.5).tolist() == [[2, -4]]
    assert residual(y, y_hat, np.array([0.5, 2.0])).tolist() == [[2, -1]]
    with pytest.raises(ValueError, match="shapes"):
        residual(y, y_hat[:, :1], 0.5)


def test_residual_summary_by_hand():
    residuals = np.array([[1.0, -2.0], [4.0, 0.0]])

    assert residual_summary(residuals) == pytest.approx(
        {"median": 1.5, "rms": math.sqrt(21 / 4), "beyond_3": 0.25}
    )
    observed = np.array([[True, True], [False, True]])
    assert residual_summary(residuals, observed) == pytest.approx(
        {"median": 1, "rms": math.sqrt(5 / 3), "beyond_3": 0}
    )


def test_residual_summary_of_a_mask_shared_by_channels():
    residuals = np.zeros((2, 3, 2, 2))
    residuals[:, :, 0, 0] = 10
    observed = np.ones((2, 1, 2, 2), dtype=bool)
    observed[..., 0, 0] = False

    assert residual_summary(residuals, observed) == {"median": 0, "rms": 0, "beyond_3": 0}
    with pytest.raises(DiemError, match="no value was observed"):
        residual_summary(residuals, np.zeros_like(observed))


def test_residual_summary_of_standard_normal_residuals():
    y_hat = normal(1000, 100)
    y = y_hat + 0.01 * normal(1000, 100, seed=1)

    summary = residual_summary(residual(y, y_hat, 0.01))

    assert summary["median"] == pytest.approx(0.6745, rel=0.02)
    assert summary["rms"] == pytest.approx(1, rel=0.01)
    assert summary["beyond_3"] == pytest.approx(0.0027, rel=0.3)


# The extractor


@pytest.fixture(scope="module")
def digits() -> dict[str, Split]:
    return DATASETS.parse({"name": "digits", "validation": 150, "test": 450}).load(seed=0)


@pytest.fixture(scope="module")
def extractor(digits: dict[str, Split]) -> Extractor:
    return train_extractor(*digits["train"][:2], *digits["validation"][:2], seed=0)


@pytest.fixture(scope="module")
def untrained(digits: dict[str, Split]) -> Extractor:
    """Two steps: enough where it does not matter what an extractor knows."""
    return train_extractor(*digits["train"][:2], *digits["validation"][:2], seed=0, steps=2)


def test_an_extractor_becomes_as_sure_as_its_smoothed_labels():
    # A tenth of the labels' weight is that of both classes, so that the best is 0.95 for one.
    x = np.ones((256, 1, 4, 4), np.float32)
    x[128:] = -1
    label = np.repeat([0, 1], 128)

    trained = train_extractor(x, label, x, label, seed=0, steps=80)

    sure = trained(torch.from_numpy(x[[0, -1]])).softmax(dim=1).diagonal()
    torch.testing.assert_close(sure, torch.full((2,), 0.95), rtol=0, atol=0.01)


@pytest.mark.slow
def test_extractor_recognizes_held_out_digits(extractor: Extractor, digits: dict[str, Split]):
    assert extractor.accuracy(*digits["test"][:2]) > 0.975
    assert extractor.validation_accuracy == extractor.accuracy(*digits["validation"][:2])
    assert not extractor.training


@pytest.mark.slow
def test_extractor_features_tell_digits_from_a_gaussian(
    extractor: Extractor, digits: dict[str, Split]
):
    train, test = digits["train"].x, digits["test"].x
    flat = train.reshape(len(train), -1).astype(np.float64)
    rng = np.random.default_rng(0)
    floor = rng.multivariate_normal(flat.mean(axis=0), np.cov(flat.T), len(test), method="eigh")

    features = extractor.features(train)
    real = frechet_distance(features, extractor.features(test))
    gaussian = frechet_distance(features, extractor.features(floor.reshape(test.shape)))

    assert features.shape == (len(train), 32)
    assert gaussian > 5 * real


@pytest.mark.parametrize(
    ("metric", "distance"),
    [(FrechetDistance, frechet_distance), (KernelDistance, kernel_distance)],
)
def test_pixels_of_samples_are_clipped_to_their_range(metric, distance, tmp_path: Path):
    Extractor((1, 8, 8), 3, validation_accuracy=0.5).eval().save(tmp_path / "extractor")
    x, test = (2 * normal(40, 1, 8, 8, seed=seed).astype("float32") for seed in range(2))

    def measured(x, test):
        samples, file = [("prior", x, {})], tmp_path.joinpath
        (row,) = metric().measure(SimpleNamespace(test=test, samples=samples, file=file))
        return row.value

    features = load_extractor(tmp_path / "extractor").features
    expected = distance(features(x.clip(-2, 2)), features(test))
    assert measured(x, test) == pytest.approx(expected, rel=1e-6)
    if metric is FrechetDistance:  # of 32 features
        for few in ((x[:32], test), (x, test[:32])):
            with pytest.raises(DiemError, match="needs more than 32 samples"):
                measured(*few)


def test_training_depends_on_the_seed_alone(digits: dict[str, Split]):
    def digest(seed: int) -> str:
        return train_extractor(
            *digits["train"][:2], *digits["validation"][:2], seed, steps=5
        ).digest()

    threads = torch.get_num_threads()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = digest(0)
    assert torch.equal(torch.get_rng_state(), state)

    torch.manual_seed(1)
    try:
        torch.set_num_threads(2)
        assert digest(0) == first
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert digest(1) != first


@pytest.mark.parametrize("cache_mb", [0, 1])
def test_training_from_the_disk_gives_the_same_extractor(tmp_path, cache_mb: float):
    x, label = normal(300, 1, 8, 8).astype(np.float32), np.arange(300) % 4
    write_hdf5(tmp_path / "x.h5", {"x": x}, {})
    rows = Rows([tmp_path / "x.h5"], "x", (1, 8, 8), cache_mb)
    assert (rows.held is None) == (cache_mb == 0)

    whole, read = (train_extractor(v, label, v, label, 0, steps=6) for v in (x, rows))

    assert read.digest() == whole.digest()
    assert read.validation_accuracy == whole.validation_accuracy


def test_extractor_of_images_of_another_shape():
    x = normal(64, 3, 12, 9).astype(np.float32)
    label = np.arange(64) % 4

    extractor = train_extractor(x, label, x, label, seed=0, steps=2)

    assert extractor.features(x).shape == (64, 32)
    with pytest.raises(ValueError, match=r"\(3, 12, 9\)"):
        extractor.features(x[:, :1])


@pytest.mark.slow
def test_extractor_round_trip(extractor: Extractor, digits: dict[str, Split], tmp_path: Path):
    path = tmp_path / "extractor.safetensors"

    extractor.save(path)
    loaded = load_extractor(path)

    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert loaded.digest() == extractor.digest()
    assert len(loaded.digest()) == 16
    assert loaded.validation_accuracy == extractor.validation_accuracy
    x = digits["test"].x
    assert torch.equal(loaded.features(x), extractor.features(x))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_digest_sees_one_weight(untrained: Extractor, tmp_path: Path):
    path = tmp_path / "extractor.safetensors"
    untrained.save(path)
    other = load_extractor(path)

    other.head.bias[0] += 1e-6

    assert other.digest() != untrained.digest()


def test_damaged_or_wrong_files_are_named(untrained: Extractor, tmp_path: Path):
    path = tmp_path / "extractor.safetensors"
    untrained.save(path)
    content = path.read_bytes()
    weights = untrained.state_dict()
    card = '{"name": "cnn32", "shape": [1, 8, 8], "classes": 10, "validation_accuracy": null}'

    bad = {
        "truncated": content[: len(content) // 2],
        "short": content[:4],
        "empty": b"",
        "text": b"hello, I am not a model of any kind",
        "no_card": safetensors.torch.save(weights),
        "not_json": safetensors.torch.save(weights, {"extractor": "{"}),
        "not_a_card": safetensors.torch.save(weights, {"extractor": "[]"}),
        "other_name": safetensors.torch.save(weights, {"extractor": card.replace("cnn", "vit")}),
        "other_shape": safetensors.torch.save(weights, {"extractor": card.replace("10", "9")}),
        "no_weights": safetensors.torch.save({}, {"extractor": card}),
    }
    for name, data in bad.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(DiemError, match=name) as caught:
            load_extractor(path)
        assert "\n" not in str(caught.value)

    with pytest.raises(DiemError, match="missing_file"):
        load_extractor(tmp_path / "missing_file")
    with pytest.raises(DiemError, match=tmp_path.name):
        load_extractor(tmp_path)


def test_ssim_of_equal_and_of_constant_images():
    x = torch.rand(3, 3, 16, 16) * 4 - 2

    torch.testing.assert_close(ssim(x, x), torch.ones(3, dtype=torch.float64))
    # Of constant images only the luminance is left: (2 a b + c) / (a^2 + b^2 + c).
    a, b, c = 1.0, -0.5, (0.01 * 4) ** 2
    flat = torch.full((1, 1, 12, 12), a), torch.full((1, 1, 12, 12), b)
    expected = (2 * a * b + c) / (a**2 + b**2 + c)
    assert ssim(*flat).item() == pytest.approx(expected, rel=1e-6)


def test_ssim_agrees_with_its_definition_at_every_window():
    x, y = torch.rand(2, 2, 3, 14, 15, dtype=torch.float64) * 4 - 2
    g = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
    window = torch.outer(g, g) / g.sum() ** 2

    def mean(image):
        return torch.nn.functional.conv2d(image.flatten(0, 1)[:, None], window[None, None])

    mu_x, mu_y = mean(x), mean(y)
    var_x, var_y, cov = mean(x * x) - mu_x**2, mean(y * y) - mu_y**2, mean(x * y) - mu_x * mu_y
    c1, c2 = (0.01 * 4) ** 2, (0.03 * 4) ** 2
    value = (2 * mu_x * mu_y + c1) * (2 * cov + c2)
    value = value / ((mu_x**2 + mu_y**2 + c1) * (var_x + var_y + c2))
    expected = value.reshape(2, -1).mean(dim=1)

    torch.testing.assert_close(ssim(x, y), expected, rtol=1e-6, atol=1e-6)


def test_ssim_refuses_small_images_and_other_shapes():
    with pytest.raises(DiemError, match="'ssim' needs images of 11 x 11"):
        ssim(torch.zeros(1, 1, 10, 16), torch.zeros(1, 1, 10, 16))
    with pytest.raises(ValueError, match="have shapes"):
        ssim(torch.zeros(1, 1, 16, 16), torch.zeros(2, 1, 16, 16))


def test_ssim_needs_a_window():
    x = torch.randn(2, 1, 11, 12)

    assert torch.equal(ssim(x, x), torch.ones(2, dtype=torch.float64))
    with pytest.raises(DiemError, match="11 x 11"):
        ssim(x[:, :, :10], x[:, :, :10])


@pytest.mark.parametrize(
    "values", [torch.tensor(1.0), torch.zeros(4, dtype=torch.int64), np.zeros(4), None]
)
def test_values_of_ones_own_that_are_not_one_number_a_reconstruction(values):
    class Own(Fidelity):
        name, labels = "own", {"own": Label("Own")}

        def values(self, x, truth, data_range=4.0, tool=None):
            return values

    with pytest.raises(DiemError, match="values of 'own' does not return a tensor of 4 floating"):
        Own().of_each(torch.zeros(2, 2, 5), torch.zeros(2, 5))
