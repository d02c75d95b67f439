"""Each long job, interrupted at any of its pieces, goes on to the same bits and repeats nothing."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from azula.noise import VPSchedule
from helpers import observe, random_gaussian

from diem.data.observations import Observations, save_observations
from diem.diffusion import gaussian
from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.diffusion.prior import Prior, build_denoiser
from diem.diffusion.samplers.ddpm import DDPM
from diem.em.e_step import EStep, e_step
from diem.evaluation import evaluate as evaluation
from diem.evaluation import feature_network, transport
from diem.evaluation.feature_network import FeatureNetwork, Reference
from diem.evaluation.reconstruct import Reconstruction as Task
from diem.evaluation.reconstruct import reconstruct
from diem.files.hdf5 import Reader, write_hdf5
from diem.inference.prior_denoiser import PriorDenoiser
from diem.inference.sample_files import write_posteriors, write_samples
from diem.jobs import job as jobs
from diem.jobs.resume import Pieces, no_cache
from diem.paper.heuristics.divergences import divergences
from diem.paper.restoration.prior import HalvedDenoiser
from diem.paper.restoration.restore import compare

SHAPE = (1, 12, 12)
SIGMA_Y = 0.1
CPU = torch.device("cpu")


class Job:
    """A job with what it needs in a folder. Its work is ``run(keep)``, which returns its results.

    Attributes:
        pieces: How many pieces it has.
        calls: How often its network was asked.
    """

    calls = 0

    def __init__(self, folder):
        self.folder = folder

    def prior(self):
        denoiser = build_denoiser(
            {"name": "residual_mlp", "width": 8, "blocks": 1, "embedding": 4},
            {"sigma_min": 0.05, "sigma_max": 5.0},
            SHAPE,
            seed=0,
        )
        self.count_calls(denoiser.backbone)
        fitted = random_gaussian(SHAPE, 2, torch.float32)
        return Prior(fitted, denoiser.eval(), {"lap": 1, "optimizer_steps": 9})

    def count_calls(self, network):
        network.register_forward_hook(self.called)

    def called(self, *_):
        self.calls += 1

    def observations(self, splits=("test",)):
        path = self.folder / "observations.h5"
        if not path.exists():
            spec, truth = {"name": "mask", "missing": 0.4}, random_gaussian(SHAPE, 3)
            parts = {s: observe(truth, spec, 7, SIGMA_Y, i)[0] for i, s in enumerate(splits)}
            save_observations(path, parts, "mask", {})
        return Observations(path)

    def clean(self):
        path = self.folder / "clean.h5"
        if not path.exists():
            x = random_gaussian(SHAPE, 3, torch.float32).sample(9, torch.Generator().manual_seed(1))
            write_hdf5(path, {"test/x": x.numpy(), "train/x": x.numpy()}, {})
        return path


SETTINGS = {
    "samples": 10,
    "block": 4,
    "sampler": {"name": "ddim", "steps": 3},
    "metrics": ["sliced_wasserstein", "sinkhorn_divergence", "prediction", "psnr", "residual"],
    "sinkhorn_samples": 8,
    "test_observations": 4,
    "posterior_samples": 2,
    "predicted_observations": 7,
}
POSTERIOR = PosteriorSampler(DDPM(steps=2))


class Evaluation(Job):
    pieces = 3 + 1 + 2 * 2 + 2  # samples, a distance, the predictions' draws, the posteriors'

    def run(self, keep):
        with self.observations(("validation", "test")) as file:
            files, job = {"clean": self.clean()}, jobs.Job(keep=keep)
            evaluated = evaluation.Evaluation(
                self.prior(), file, POSTERIOR, SETTINGS, {}, files, job
            )
            rows, arrays = evaluation.evaluate(evaluated, {})
            arrays["prior/x"] = np.concatenate(list(arrays["prior/x"]))
        return rows, arrays


class Reconstruction(Job):
    pieces = 2 + 2  # from the Gaussian and from the prior

    def run(self, keep):
        prior = self.prior()
        floor = Prior(prior.gaussian, None, {"lap": 0, "optimizer_steps": 0})
        with self.observations() as file:
            job = jobs.Job(keep=keep)
            task = Task(prior, floor, file, self.clean(), SETTINGS, POSTERIOR, job)
            return reconstruct(task, {})


class Restoration(Job):
    pieces = 2 * 2 * 3  # tasks, numbers of steps, blocks

    def run(self, keep):
        denoiser = HalvedDenoiser(self.prior().denoiser.backbone, VPSchedule())
        shared = {"sigma_y": SIGMA_Y, "shared": False}
        mask = {"operator": {"name": "mask", "missing": 0.3}, **shared}
        more = {"operator": {"name": "mask", "missing": 0.7}, **shared}
        entry = {
            **{"respaced": False, "clip": False},
            "tasks": {"some": mask, "more": more},
            "methods": {"dps": {"name": "dps", "zeta": 1.0}},
            "steps": [2, 3],
            **{"images": 5, "block": 2, "metrics": ["psnr"], "data": "test images"},
        }
        columns = {"experiment": "e", "optimizer_steps": 3, "prior": "a network"}
        job = jobs.Job(keep=keep)
        return compare(denoiser.eval(), self.clean(), entry, "dps", columns, job)


class Heuristics(Job):
    pieces = 2 * 4 * (1 + 3 + 1)  # noise levels; transports, each of a start, kernels, and a cost

    def run(self, keep):
        entry = {
            **{"dimensions": 3, "components": 50, "thickness": 0.01, "alpha": 3.0},
            **{"epsilon": 1e-3, "rows": 1, "sigma_y": 0.01, "sigmas": [0.1, 1.0]},
            **{"covariances": ["tweedie", "cov_t"], "prior_samples": 200, "samples": 10},
            **{"floor": 1e-6, "regularization": 0.05, "tolerance": 0.0, "iterations": 5},
        }
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(transport, "PER_KERNEL", 2)
            return divergences("a", entry, [1], jobs.Job(keep=keep))


class GaussianFit(Job):
    pieces = 5  # iterations

    def run(self, keep):
        with self.observations() as file:
            observed = file.load("test")
        arguments = observed.operator, observed.y, observed.sigma_y, 2, self.pieces
        generator = torch.Generator().manual_seed(3)
        return vars(gaussian.fit_to_observations(*arguments, generator, keep))


class DrawnGaussianFit(GaussianFit):
    """The fit of large events, which draws."""

    def run(self, keep):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gaussian, "DENSE_SIZE", 0)
            return super().run(keep)


class TwoLayers(torch.nn.Module):
    """Stands in for the Inception network."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn(6, 144, generator=generator) / 255)

    def forward(self, x):
        y = x.float().flatten(1) @ self.weight.T
        return y[:, :4], y[:, 4:]


class Features(Job):
    pieces = 3  # batches

    def run(self, keep):
        network = TwoLayers()
        self.count_calls(network)
        found = FeatureNetwork(network.eval(), "a network", "0123")
        with Reader(self.clean()) as file, pytest.MonkeyPatch.context() as patch:
            patch.setattr(feature_network, "BATCH", 3)
            reference = Reference.of(file.read("train/x"), "train", found, 4 / 256, keep)
        return reference.moments._asdict()


class Sampling(Job):
    pieces = 2 * 2 * 3  # repeats, splits, blocks

    def run(self, keep):
        settings, job = EStep(POSTERIOR, block=3, repeats=2), jobs.Job(keep=keep)
        with self.observations(("train", "validation")) as file:
            e_step(self.folder / "x.h5", self.prior(), file, settings, 2, job)
        return arrays_of(self.folder / "x.h5")


class Samples(Job):
    pieces = 3  # batches

    def run(self, keep):
        prior = PriorDenoiser(self.prior())
        write_samples(self.folder / "x.h5", prior, 8, jobs.Job(keep=keep), batch=3, steps=2)
        with Reader(self.folder / "x.h5") as file:
            return {"x": file.read("x")}


class Posteriors(Job):
    pieces = 3  # batches

    def run(self, keep):
        made = self.prior()
        prior = PriorDenoiser(made)
        with self.observations() as file:
            write_posteriors(
                *(self.folder / "x.h5", prior, file, 2, jobs.Job(keep=keep)),
                batch=6,
                sampler={"steps": 2},
            )
        return arrays_of(self.folder / "x.h5")


def arrays_of(path):
    with Reader(path) as file:
        names = [f"{group}/{name}" for group in file.file for name in file.names(group)]
        return {name: file.read(name) for name in names}


class Interrupted(Pieces):
    """Pieces of which only some can be made."""

    def __init__(self, *arguments, until=np.inf):
        super().__init__(*arguments)
        self.until, self.made = until, 0

    def __call__(self, name, make):
        def counted():
            self.check()
            piece = make()
            self.check()  # pieces may have been made within it
            self.made += 1
            return piece

        return super().__call__(name, counted)

    def check(self):
        if self.made == self.until:
            raise KeyboardInterrupt


def same(one, other):
    """Asserts that two results are the same, bit for bit."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            same(one[key], other[key])
    elif isinstance(one, tuple):
        for a, b in zip(one, other, strict=True):
            same(a, b)
    elif isinstance(one, list):
        pd.testing.assert_frame_equal(pd.DataFrame(one), pd.DataFrame(other), check_exact=True)
    else:
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


JOBS = [
    *(Evaluation, Reconstruction, Restoration, Heuristics, GaussianFit, DrawnGaussianFit),
    *(Features, Sampling, Samples, Posteriors),
]


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
def test_a_job_goes_on_with_the_piece_it_was_at(tmp_path, job):
    (tmp_path / "whole").mkdir()
    whole = job(tmp_path / "whole")
    keep = Interrupted()
    expected = whole.run(keep)
    assert keep.made == job.pieces
    if job not in (Heuristics, GaussianFit, DrawnGaussianFit):
        assert whole.calls > job.pieces / 2

    # Two attempts in which some pieces are finished, and one that ends it.
    for until in range(job.pieces):
        folder = tmp_path / str(until)
        folder.mkdir()
        cut, made = job(folder), 0
        for more in (until, (job.pieces - until) // 2):
            with (
                pytest.raises(KeyboardInterrupt),
                Interrupted(folder / "x.h5", "f", 1e9, until=more) as keep,
            ):
                cut.run(keep)
            made += keep.made
        with Interrupted(folder / "x.h5", "f", 0.0) as keep:
            same(cut.run(keep), expected)
        assert made + keep.made == job.pieces
        assert cut.calls == whole.calls  # the network is asked for nothing twice


@pytest.mark.parametrize("job", [Evaluation, Restoration, DrawnGaussianFit])
def test_nothing_is_kept_unless_asked(tmp_path, job):
    same(job(tmp_path).run(no_cache), job(tmp_path).run(Pieces()))
    assert not list(Path(tmp_path).glob("*resume*"))
