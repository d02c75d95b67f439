"""Evaluations: what they read, how much of it at a time, and that it changes no number."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import observe, random_gaussian
from test_resume_jobs import POSTERIOR, SETTINGS, Job, TwoLayers

from diem.data.observations import Observations, save_observations
from diem.data.sets import DATASETS
from diem.diffusion.denoisers import Prior
from diem.errors import DiemError
from diem.evaluation import evaluate as evaluation
from diem.evaluation import inception, metrics
from diem.files import hdf5
from diem.files.hdf5 import Reader, write_hdf5
from diem.jobs.resume import Pieces

IMAGE, VECTOR = (1, 12, 12), (5,)
MANIFOLD = {"name": "manifold", "dimensions": 5, "alpha": 3.0, "epsilon": 1e-3}
OF_IMAGES = [
    *("sliced_wasserstein", "sinkhorn_divergence", "frechet_distance", "fid", "inception_score"),
    *("observation_distance", "psnr"),
]
OF_VECTORS = ["sliced_wasserstein", "distance_to_manifold", "observation_distance"]
PART = 7
"""The rows of a part."""


def rows(job, metrics):
    with job.observations() as file:
        rows, _ = evaluation.evaluate(
            *(job.prior(), file, job.clean(), {}, {**SETTINGS, "metrics": metrics}),
            *(POSTERIOR, 0, {}),
            e_step_samples=["nowhere.h5"],
        )
    return rows


def test_many_samples_are_read_for_their_metrics_alone(tmp_path):
    job = Job(tmp_path)

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
            self.extractor = metrics.Extractor(shape, 3, validation_accuracy=0.5).eval()
            self.extractor.save(folder / "extractor")
            self.network = inception.Inception(TwoLayers().eval(), "a network", "0123")
            monkeypatch.setattr(inception, "load", lambda path, device: self.network)
            self.reference = inception.Reference.of(self.test, "train", self.network)
            self.reference.save(folder / "reference")

    def run(self, cache_mb=0, keep=None):
        settings = {**SETTINGS, "samples": 50, "block": 16, "metrics": self.wanted}
        images = self.shape == IMAGE
        with Observations(self.folder / "y.h5") as file:
            rows, arrays = evaluation.evaluate(
                *(self.prior, file, self.folder / "clean.h5", MANIFOLD, settings, POSTERIOR, 0, {}),
                e_step_samples=self.shards,
                extractor=self.folder / "extractor",
                inception_weights="weights" if images else None,
                inception_reference=self.folder / "reference",
                keep=keep,
                cache_mb=cache_mb,
            )
            arrays["prior/x"] = np.concatenate(list(arrays["prior/x"]))
        return pd.DataFrame(rows), arrays


CASES = pytest.mark.parametrize(
    ("shape", "wanted"), [(IMAGE, OF_IMAGES), (VECTOR, OF_VECTORS)], ids=["images", "vectors"]
)


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


@CASES
def test_numbers_are_those_of_all_samples_at_once(tmp_path, monkeypatch, shape, wanted):
    job = Streamed(tmp_path, shape, wanted, monkeypatch)
    monkeypatch.setattr(hdf5, "PART_BYTES", PART * job.test[:1].nbytes)

    rows, arrays = job.run()

    for subject, x in (("prior", arrays["prior/x"]), ("e_step", job.trained)):
        found = rows[rows["subject"] == subject].set_index("metric")["value"]
        expected = {"sliced_wasserstein": metrics.sliced_wasserstein(x, job.test)}
        if shape == VECTOR:
            curve = DATASETS.parse(MANIFOLD).curve(0, evaluation.CURVE_POINTS)
            expected["distance_to_manifold"] = metrics.distance_to_manifold(x, curve).mean()
        else:
            ((pooled, logits),) = job.network.features(x)
            expected |= {
                "sinkhorn_divergence": metrics.sinkhorn_divergence(x[:8], job.test[:8]),
                "frechet_distance": metrics.frechet_distance(
                    job.extractor.features(x.clip(-2, 2)), job.extractor.features(job.test)
                ),
                "fid": metrics.frechet_distance_of_moments(
                    metrics.feature_moments(pooled), job.reference.moments
                ),
                "inception_score": inception.inception_score([logits], len(x), 0),
            }
        for name, value in expected.items():
            assert found[name] == pytest.approx(float(value), rel=1e-5), (subject, name)


@CASES
def test_no_data_set_is_read_whole(tmp_path, monkeypatch, shape, wanted):
    job = Streamed(tmp_path, shape, wanted, monkeypatch)
    monkeypatch.setattr(hdf5, "PART_BYTES", PART * job.test[:1].nbytes)
    monkeypatch.setattr(inception, "BATCH", PART)
    asked, read, made = [], Reader._rows_of, evaluation._Blocks.__getitem__

    def reading(self, dataset, rows=slice(None)):
        found = read(self, dataset, rows)
        asked.append(len(np.atleast_1d(found)))
        return found

    def making(self, rows):
        found = made(self, rows)
        asked.append(len(np.atleast_1d(found)))
        return found

    monkeypatch.setattr(Reader, "_rows_of", reading)
    monkeypatch.setattr(evaluation._Blocks, "__getitem__", making)

    job.run(cache_mb=0)

    assert max(asked) == 16  # a block, and the others are parts, or what Sinkhorn is of
    asked.clear()
    job.run(cache_mb=1)
    assert max(asked) == 47  # the test split, which is held
