"""Evaluations: what they read, how much of it at a time, and metrics of one's own."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import observe, random_gaussian, simulate
from test_resume_jobs import POSTERIOR, SETTINGS, TwoLayers
from test_resume_jobs import Job as Made

from diem.data.observations import Observations, Observed, save_observations
from diem.data.sets import DATASETS
from diem.data.sets.base import from_bytes
from diem.diffusion.gaussian import Gaussian
from diem.diffusion.prior import Prior
from diem.diffusion.samplers.ddim import DDIM
from diem.errors import DiemError
from diem.evaluation import dinov2, feature_network, inception
from diem.evaluation.draws import Blocks, prior_samples
from diem.evaluation.evaluate import Evaluation, Samples, evaluate
from diem.evaluation.extractor import Extractor
from diem.evaluation.extrapolation import frechet_distance_infinity
from diem.evaluation.feature_network import FeatureNetwork, Reference
from diem.evaluation.gaussians import (
    feature_moments,
    frechet_distance,
    frechet_distance_of_moments,
)
from diem.evaluation.kernel import kernel_distance
from diem.evaluation.metrics import METRICS, Label, by_quality, labels, panels
from diem.evaluation.metrics.distance_to_manifold import CURVE_POINTS, distance_to_manifold
from diem.evaluation.metrics.inception_score import inception_score
from diem.evaluation.metrics.psnr import psnr
from diem.evaluation.metrics.sinkhorn_divergence import sinkhorn_divergence
from diem.evaluation.metrics.sliced_wasserstein import sliced_wasserstein
from diem.evaluation.rows import read_rows, write_rows
from diem.evaluation.transport import truncated_transport
from diem.files import hdf5
from diem.files.hdf5 import Reader, write_hdf5
from diem.jobs.job import Job
from diem.jobs.resume import Pieces
from diem.report.tables.experiment import summary
from diem.seeds import Stage, subset, torch_generator

IMAGE, VECTOR = (1, 12, 12), (5,)
MANIFOLD = {"name": "manifold", "dimensions": 5, "alpha": 3.0, "epsilon": 1e-3}
OF_IMAGES = [
    *("sliced_wasserstein", "sinkhorn_divergence", "frechet_distance", "fid", "inception_score"),
    *("kernel_distance", "kid", "observation_distance", "psnr", "fid_infinity", "fd_dinov2"),
]
OF_VECTORS = [
    *("sliced_wasserstein", "truncated_divergence", "distance_to_manifold"),
    "observation_distance",
]
PART = 7
"""The rows of a part."""


def rows(job, metrics):
    settings = {**SETTINGS, "metrics": metrics}
    files = {"clean": job.clean(), "samples": ["nowhere.h5"]}
    with job.observations() as file:
        evaluation = Evaluation(job.prior(), file, POSTERIOR, settings, {}, files, Job())
        return evaluate(evaluation, {})[0]


def test_many_samples_are_read_for_their_metrics_alone(tmp_path):
    job = Made(tmp_path)

    assert [row["metric"] for row in rows(job, ["psnr"])] == ["psnr", "psnr"]
    with pytest.raises(DiemError, match=r"nowhere\.h5"):
        rows(job, ["psnr", "sliced_wasserstein"])


class Streamed:
    """An evaluation of 50 samples, of 47 test samples, and of 43 samples of an E-step."""

    def __init__(self, folder, shape, wanted, monkeypatch):
        self.folder, self.shape, self.wanted = folder, shape, wanted
        truth = random_gaussian(shape, 2, torch.float32)
        self.x = truth.sample(90, torch.Generator().manual_seed(1)).numpy()
        self.test, self.trained = self.x[:47], self.x[47:]
        write_hdf5(folder / "clean.h5", {"test/x": self.test}, {})
        made = {"sampler": "ddpm", "denoiser_evaluations": 3, "precision": "float32", "steps": 3}
        self.made = made
        self.shards = [folder / f"{i}.h5" for i in range(2)]
        for path, x in zip(self.shards, (self.trained[:20], self.trained[20:]), strict=True):
            write_hdf5(path, {"train/x": x, "train/index": np.arange(len(x))}, made)
        spec = {"name": "mask", "missing": 0.4}
        if shape == VECTOR:
            spec = {"name": "projection", "rows": 2}
        observed = observe(random_gaussian(shape, 3), spec, 30, 0.1)[0]
        save_observations(folder / "y.h5", {"test": observed}, spec["name"], {})
        self.prior = Prior(truth, None, {})
        if shape == IMAGE:
            torch.manual_seed(0)
            self.extractor = Extractor(shape, 3, validation_accuracy=0.5).eval()
            self.extractor.save(folder / "extractor")
            self.network = FeatureNetwork(TwoLayers().eval(), "a network", "0123")
            for source in (inception, dinov2):
                monkeypatch.setattr(source, "load", lambda path, device: self.network)
            self.reference = Reference.of(self.test, "train", self.network, 4 / 256)
            self.reference.save(folder / "reference")

    def run(self, cache_mb=0, keep=None):
        settings = {**SETTINGS, "samples": 50, "block": 16, "metrics": self.wanted}
        names = {"clean": "clean.h5", "extractor": "extractor", "inception_reference": "reference"}
        names |= {"dinov2_reference": "reference"}
        files = {key: self.folder / name for key, name in names.items()}
        files |= {
            "samples": self.shards,
            "inception_weights": "weights",
            "dinov2_weights": "others",
        }
        job = Job(keep=Pieces() if keep is None else keep, cache_mb=cache_mb)
        with Observations(self.folder / "y.h5") as file:
            evaluation = Evaluation(self.prior, file, POSTERIOR, settings, MANIFOLD, files, job)
            rows, arrays = evaluate(evaluation, {})
            arrays["prior/x"] = np.concatenate(list(arrays["prior/x"]))
        return pd.DataFrame(rows), arrays


def test_of_several_samples_of_each_observation_one_is_measured(tmp_path, monkeypatch):
    job = Streamed(tmp_path, VECTOR, ["sliced_wasserstein"], monkeypatch)
    job.shards = job.shards[:1]
    once, _ = job.run()
    x, index = job.trained[:20], np.arange(20)
    both = {"train/x": np.concatenate([x, 9 + x]), "train/index": np.tile(index, 2)}
    write_hdf5(job.shards[0], both, {**job.made, "repeats": 2})

    twice, _ = job.run()

    assert once[once["subject"] == "e_step"]["samples"].tolist() == [20]
    pd.testing.assert_frame_equal(once, twice)


CASES = pytest.mark.parametrize(
    ("shape", "wanted"), [(IMAGE, OF_IMAGES), (VECTOR, OF_VECTORS)], ids=["images", "vectors"]
)


@pytest.mark.slow
@CASES
def test_no_number_depends_on_what_is_in_memory(tmp_path, monkeypatch, shape, wanted):
    job = Streamed(tmp_path, shape, wanted, monkeypatch)
    together, _ = job.run()
    monkeypatch.setattr(hdf5, "PART_BYTES", PART * job.test[:1].nbytes)

    held, arrays = job.run(cache_mb=1)
    streamed, others = job.run(cache_mb=0)
    with Pieces(tmp_path / "evaluation.h5", "f", seconds=0.0) as pieces:
        written, _ = job.run(cache_mb=0, keep=pieces)

    for other in (streamed, written):
        pd.testing.assert_frame_equal(held, other, check_exact=True)
    assert arrays.keys() == others.keys()
    for name in arrays:
        assert np.array_equal(arrays[name], others[name])
    # Larger parts change the last digits.
    pd.testing.assert_frame_equal(held, together, rtol=1e-6)


@pytest.mark.slow
@CASES
def test_numbers_are_those_of_all_samples_at_once(tmp_path, monkeypatch, shape, wanted):
    job = Streamed(tmp_path, shape, wanted, monkeypatch)
    monkeypatch.setattr(hdf5, "PART_BYTES", PART * job.test[:1].nbytes)

    rows, arrays = job.run()

    pair, most = job.test[subset(47, 16, 0, 2)], job.test[subset(47, 8, 0, 2)]
    for subject, x in (("prior", arrays["prior/x"]), ("e_step", job.trained)):
        found = rows[rows["subject"] == subject].set_index("metric")["value"]
        expected = {"sliced_wasserstein": sliced_wasserstein(x, job.test)}
        few = x[subset(43, 8, 0, 2)] if subject == "e_step" else x[:8]
        if shape == VECTOR:
            curve = DATASETS.parse(MANIFOLD).curve(0, CURVE_POINTS)
            expected["distance_to_manifold"] = distance_to_manifold(x, curve).mean()
            # Of two clean sets, the first is moved to the samples and to the second.
            costs = [
                truncated_transport(pair[:8], other, tolerance=1e-3 * 8**0.5).cost
                for other in (few, pair[8:])
            ]
            expected["truncated_divergence"] = max(costs[0] - costs[1], 1e-6)
        else:
            ((pooled, logits),) = job.network.features(x, 4 / 256)
            expected |= {
                "sinkhorn_divergence": sinkhorn_divergence(few, most),
                "frechet_distance": frechet_distance(
                    job.extractor.features(x.clip(-2, 2)), job.extractor.features(job.test)
                ),
                "fid": frechet_distance_of_moments(feature_moments(pooled), job.reference.moments),
                "inception_score": inception_score([logits], len(x), 0),
                "kernel_distance": kernel_distance(
                    job.extractor.features(x.clip(-2, 2)), job.extractor.features(job.test)
                ),
                "kid": kernel_distance(pooled, next(job.network.features(job.test, 4 / 256))[0]),
            }
            expected["fd_dinov2"] = expected["fid"]  # the same stands in for both networks
            if subject == "prior":
                extrapolated = frechet_distance_infinity(pooled, job.reference.moments)
                expected["fid_infinity"] = extrapolated
        for name, value in expected.items():
            assert found[name] == pytest.approx(float(value), rel=1e-5), (subject, name)


@pytest.mark.slow
@CASES
def test_no_data_set_is_read_whole(tmp_path, monkeypatch, shape, wanted):
    job = Streamed(tmp_path, shape, wanted, monkeypatch)
    monkeypatch.setattr(hdf5, "PART_BYTES", PART * job.test[:1].nbytes)
    monkeypatch.setattr(feature_network, "BATCH", PART)
    asked, read, made = [], Reader._rows_of, Blocks.__getitem__

    def reading(self, dataset, rows=slice(None), *options):
        found = read(self, dataset, rows, *options)
        if np.ndim(found) > 1:  # not the indices, of which all are read
            asked.append(len(found))
        return found

    def making(self, rows):
        found = made(self, rows)
        asked.append(len(np.atleast_1d(found)))
        return found

    monkeypatch.setattr(Reader, "_rows_of", reading)
    monkeypatch.setattr(Blocks, "__getitem__", making)

    job.run(cache_mb=0)

    assert max(asked) == 16  # a block, and the others are parts, or what Sinkhorn is of
    asked.clear()
    job.run(cache_mb=1)
    assert max(asked) == 47  # the test split, which is held


def test_the_posterior_mean_is_that_of_all_draws(tmp_path):
    job, settings = Made(tmp_path), {**SETTINGS, "metrics": ["psnr"], "posterior_samples": 3}
    with job.observations() as file:
        files = {"clean": job.clean()}
        evaluation = Evaluation(job.prior(), file, POSTERIOR, settings, {}, files, Job())
        rows, arrays = evaluate(evaluation, {})

    x, truth = (arrays[f"posterior/{name}"] for name in ("x", "truth"))
    values = {row["subject"]: row["value"] for row in rows}
    assert x.shape[1] == 3
    mean = psnr((x[:, 0] + x[:, 1] + x[:, 2]) / 3, truth, 4.0).mean()
    assert values["posterior_mean"] == pytest.approx(float(mean), rel=1e-5)
    draws = torch.cat([psnr(x[:, i], truth, 4.0) for i in range(3)])
    assert values["posterior"] == pytest.approx(float(draws.mean()), rel=1e-5)


def test_each_block_of_samples_has_a_stream_of_its_own():
    prior = Prior(random_gaussian(VECTOR, 2, torch.float32), None, {})
    settings = {**SETTINGS, "samples": 40, "block": 16}

    x = prior_samples(prior, DDIM(), settings, Job(seed=5))[:]

    assert len(np.unique(x, axis=0)) == len(x) == 40
    for number, rows in enumerate((slice(0, 16), slice(16, 32), slice(32, 40))):
        generator = torch_generator(5, Stage.PRIOR, 0, number)
        expected = prior.gaussian.sample(len(x[rows]), generator)
        assert np.array_equal(x[rows], expected)


def test_complex_images_are_compared_by_their_magnitudes():
    truth = torch.randn(3, 2, 12, 12, dtype=torch.float64)
    turned = torch.stack((-truth[:, 1], truth[:, 0]), dim=1)  # by a right angle in phase

    nmse = METRICS.find("nmse")()

    assert nmse.of_each(turned, truth) == pytest.approx(0, abs=1e-12)
    assert nmse.of_each(turned[:, :1], truth[:, :1]).mean() > 0.1
    draws = torch.stack((turned, truth), dim=1)
    assert nmse.of_each(draws, truth) == pytest.approx(0, abs=1e-12)


def test_exact_samples_are_told_to_be_so():
    settings = {**SETTINGS, "metrics": []}
    prior = Prior(random_gaussian(VECTOR, 2, torch.float32), None, {})

    card = Evaluation(prior, None, POSTERIOR, settings, {}, {}, Job()).card

    sampled = {"sampler": "exact", "sampler_steps": 0, "denoiser_evaluations": 0}
    assert card == {"samples": 10, "split": "none", **sampled, "precision": "exact"}


@pytest.mark.slow
def test_observations_of_samples_have_the_noise_of_observations(tmp_path):
    # Of one image that is known nothing differs but noise.
    one = random_gaussian(IMAGE, 2, torch.float32)
    one = Gaussian(one.mean, torch.tensor(1e-12), 0 * one.factors)
    operator = simulate({"name": "mask", "missing": 0.4}, IMAGE, 400, torch.float32)
    x, sigma_y = one.mean.expand(400, *IMAGE), torch.tensor(0.5)
    y = operator.forward(x) + sigma_y * torch.randn(400, *IMAGE) * operator.observed()
    observed = Observed(operator, y, sigma_y, np.arange(400))
    save_observations(tmp_path / "y.h5", {"test": observed}, "mask", {})
    settings = {**SETTINGS, "samples": 400, "block": 150, "metrics": ["observation_distance"]}
    with Observations(tmp_path / "y.h5") as file:
        prior = Prior(one, None, {})
        (row,), _ = evaluate(Evaluation(prior, file, POSTERIOR, settings, {}, {}, Job()), {})

    # A direction sees 60 % of the noise, 0.39, and means of 400 to 7 % of that; none is as far off.
    assert 0 < row["value"] < 0.1


@pytest.mark.parametrize("name", ["cifar10", "images", "photographs"])
def test_samples_have_the_pixels_of_their_data_set(tmp_path, monkeypatch, name):
    job, seen = Streamed(tmp_path, IMAGE, [], monkeypatch), []
    monkeypatch.setattr(TwoLayers, "forward", lambda self, x: (seen.append(x), (x, x))[1])
    pixels = np.arange(256, dtype=np.uint8)[:144].reshape(1, *IMAGE) + np.uint8(112)
    x = from_bytes(pixels, DATASETS.find(name).step)
    settings = {**SETTINGS, "metrics": []}
    files = {"inception_weights": tmp_path / "weights"}
    with Observations(tmp_path / "y.h5") as file:
        evaluation = Evaluation(
            job.prior, file, POSTERIOR, settings, {"name": name}, files, Job(keep=Pieces())
        )
        list(inception.features_of(evaluation, Samples("prior", x, {})))

    assert np.array_equal(torch.cat(seen), pixels)


SHARPNESS = """
from diem.evaluation.metrics import Label, Metric


class Sharpness(Metric):
    name = "sharpness"
    labels = {"sharpness": Label("Sharpness", "a unit", better="↑")}

    def measure(self, evaluation):
        return evaluation.posterior.x.diff(dim=-1).abs().mean()


class Nameless(Metric):
    def measure(self, evaluation):
        return 0.0


class Taken(Sharpness):
    name = "psnr"
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine_metrics.py").write_text(SHARPNESS, encoding="utf-8")
    monkeypatch.setenv("DIEM_PATH", str(tmp_path))
    yield "mine_metrics"
    sys.modules.pop("mine_metrics", None)


def test_a_metric_of_ones_own_has_rows_and_a_column(tmp_path, mine):
    job, settings = Made(tmp_path), {**SETTINGS, "metrics": ["psnr", f"{mine}:Sharpness"]}
    files = {"clean": job.clean()}
    with job.observations() as file:
        evaluation = Evaluation(job.prior(), file, POSTERIOR, settings, {}, files, Job())
        rows, arrays = evaluate(evaluation, {"stage": "lap", "run": "r", "lap": 1})

    assert [row["metric"] for row in rows] == ["psnr", "psnr", "sharpness"]
    expected = np.abs(np.diff(arrays["posterior/x"])).mean()
    assert rows[-1]["value"] == pytest.approx(expected, rel=1e-5)
    assert (rows[-1]["subject"], rows[-1]["samples"]) == ("posterior", 8)
    assert labels(settings["metrics"])["sharpness"] == Label("Sharpness", "a unit", "↑")
    write_rows(tmp_path / "rows.csv", [{**row, "optimizer_steps": 3} for row in rows])
    table = summary(read_rows([tmp_path / "rows.csv"]), {"r": {}})
    (name,) = (name for name in table.columns if name.startswith("sharpness"))
    assert table[name].item() == rows[-1]["value"]


def test_what_is_no_metric_is_refused(mine):
    for name, words in (
        (f"{mine}:Nameless", "does not define name, labels"),
        (f"{mine}:Taken", "has the name of another, 'psnr'"),
        ("numpy:ndarray", "no subclass of"),
        ("psnrr", "did you mean 'psnr'"),
    ):
        with pytest.raises(DiemError, match=words):
            METRICS.find(name)


def test_declarations_agree_with_each_other():
    known = METRICS.all()

    for name, metric in known.items():
        assert metric.name == name
        assert all(row.startswith(name) for row in metric.labels)
        assert metric.needs <= {"clean", "images", "colour", "labels", "curve"}
        assert metric.sections <= {"experiments", "restoration"}
    assert len({metric.order for metric in known.values()}) == len(known)
    places = [(m.panel.figure, m.panel.place) for m in known.values() if m.panel is not None]
    assert len(set(places)) == len(places)
    assert panels("divergence") == [
        "sinkhorn_divergence",
        "truncated_divergence",
        "sliced_wasserstein",
        "distance_to_manifold",
    ]
    assert panels("distance") == ["frechet_distance", "fid", "inception_score"]
    assert by_quality() == ["fid", "frechet_distance", "distance_to_manifold", "sliced_wasserstein"]


def test_declarations_are_read_without_pytorch():
    code = (
        "import sys; from diem.evaluation.metrics import METRICS; METRICS.all();"
        "print({'torch', 'azula', 'h5py', 'pandas', 'ot'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "set()"


def test_a_metric_without_its_file_tells_which(tmp_path):
    job = Made(tmp_path)
    for metric, missing in (("psnr", "clean"), ("frechet_distance", "clean")):
        settings = {**SETTINGS, "metrics": [metric]}
        with job.observations() as file, pytest.raises(DiemError, match=missing):
            evaluate(Evaluation(job.prior(), file, POSTERIOR, settings, {}, {}, Job()), {})
