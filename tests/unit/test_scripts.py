"""The scripts of the rules, run without Snakemake where a test of the workflow would be slow."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import observe, random_gaussian

from diem.data.observations import Observations, save_observations
from diem.data.sets.cifar10 import RECORD, TEST, TRAINING
from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.diffusion.prior import Prior, build_denoiser, read_prior
from diem.evaluation import dinov2, inception
from diem.evaluation.feature_network import FeatureNetwork, load_reference
from diem.files.hdf5 import Rows, write_hdf5
from diem.seeds import subset

SCRIPTS = Path(__file__).parents[2] / "workflow" / "scripts"
NETWORK = {"name": "mlp", "hidden": [8], "embedding": 4}
SCHEDULE = {"sigma_min": 0.01, "sigma_max": 10.0}
SHAPE, COUNT, LAP = (3,), 12, 4
CONFIG = {"results": "results", "threads": 1, "cache_mb": 1, "checkpoint_seconds": 0}
ENTRY = {"runs": {"base": {"e_step": {"batch": None}}}}
E_STEP = {
    "sampler": {"name": "ddpm", "steps": 2},
    "restart": [4.0, 1.0],
    "block": 4,
    "repeats": 1,
    "storage": "float32",
    "drop_last": False,
    "restart_residual": None,
}


class Named(list):
    """What Snakemake gives a script: values, which have names."""

    def __init__(self, **named):
        lists = (value if isinstance(value, list) else [value] for value in named.values())
        super().__init__(item for values in lists for item in values)
        self.__dict__.update(named)

    def get(self, name, default=None):
        return self.__dict__.get(name, default)

    def items(self):
        return self.__dict__.items()


@pytest.fixture
def files(tmp_path):
    """Writes the inputs of an E-step: a prior, observations, and the samples before."""
    gaussian = random_gaussian(SHAPE, 1, torch.float32)
    denoiser = build_denoiser(NETWORK, SCHEDULE, SHAPE, seed=0)
    Prior(gaussian, denoiser, {"network": NETWORK, "schedule": SCHEDULE}).save(tmp_path / "prior")
    spec = {"name": "projection", "rows": 1}
    splits = {s: observe(gaussian, spec, COUNT, 0.1)[0] for s in ("train", "validation")}
    save_observations(tmp_path / "observations.h5", splits, "projection", {})
    arrays = {}
    for split, observed in splits.items():
        arrays[f"{split}/x"] = gaussian.sample(COUNT, torch.Generator()).numpy()
        arrays[f"{split}/index"] = observed.index
    write_hdf5(tmp_path / "before.h5", arrays, {})
    return tmp_path


def e_step(folder, name, first):
    """Runs the E-step of lap 4, which restarts at a level that depends on the third's."""
    output = folder / name / "samples.h5"
    snakemake = SimpleNamespace(
        log=[str(folder / "log")],
        config={**CONFIG, "device": "cpu", "shards": 1, "experiments": {"line": ENTRY}},
        params=Named(e_step=E_STEP | {"restart": [first, 1.0]}, network=NETWORK, seed=0),
        wildcards=Named(experiment="line", run="base", lap=str(LAP), shard="1"),
        input=Named(
            prior=str(folder / "prior"),
            observations=str(folder / "observations.h5"),
            previous=[str(folder / "before.h5")],
        ),
        output=[str(output)],
    )
    runpy.run_path(str(SCRIPTS / "e_step.py"), {"snakemake": snakemake})
    return [Rows([output], f"{split}/x", SHAPE)[:] for split in ("train", "validation")]


@pytest.mark.slow
def test_blocks_of_another_restart_level_are_not_used(files, monkeypatch):
    original, calls = PosteriorSampler.__call__, []

    def stopped(self, *args, **kwargs):
        calls.append(kwargs["sigma_start"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(PosteriorSampler, "__call__", stopped)
        e_step(files, "cut", 6.0)
    assert calls == [pytest.approx(6 / 2**0.5)] * 3
    assert len(list((files / "cut").glob(".*/*/*.npz"))) == 2

    for one, other in zip(e_step(files, "cut", 9.0), e_step(files, "whole", 9.0), strict=True):
        assert (one == other).all()


def test_shards_are_gathered_where_there_is_no_gpu(files):
    # As on a cluster where the jobs that ask for no GPU run on nodes without one.
    whole = e_step(files, "whole", 9.0)
    output = files / "gathered.h5"
    snakemake = SimpleNamespace(
        log=[str(files / "log")],
        config={**CONFIG, "device": "nowhere", "shards": 1, "experiments": {"line": ENTRY}},
        params=Named(e_step=E_STEP, network=NETWORK, seed=0),
        wildcards=Named(experiment="line", run="base", lap=str(LAP)),
        input=Named(shards=[str(files / "whole" / "samples.h5")]),
        output=[str(output)],
    )

    runpy.run_path(str(SCRIPTS / "e_step.py"), {"snakemake": snakemake})

    for split, one in zip(("train", "validation"), whole, strict=True):
        assert (Rows([output], f"{split}/x", SHAPE)[:] == one).all()


@pytest.mark.slow
def test_an_interrupted_e_step_goes_on_where_it_was(files, monkeypatch):
    whole, original, calls = e_step(files, "whole", 9.0), PosteriorSampler.__call__, []

    def stopped(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(PosteriorSampler, "__call__", stopped)
    with pytest.raises(KeyboardInterrupt):
        e_step(files, "cut", 9.0)

    for one, other in zip(e_step(files, "cut", 9.0), whole, strict=True):
        assert (one == other).all()
    assert len(calls) == 6 + 1  # six blocks, of which the third was begun twice


def test_the_gaussian_prior_is_fitted_to_every_fourth_of_some_observations(files):
    def fitted(name, observations, every):
        entry = {"rank": 1, "iterations": 2, "observations": observations, "every": every}
        entry["shrinkage"] = 0.0
        output = files / name / "gaussian.safetensors"
        snakemake = SimpleNamespace(
            log=[str(files / "log")],
            config={**CONFIG, "device": "cpu"},
            params=Named(gaussian=entry, made={}, seed=0, code="0"),
            wildcards=Named(experiment="line"),
            input=Named(observations=str(files / f"{name}.h5")),
            output=[str(output)],
        )
        runpy.run_path(str(SCRIPTS / "gaussian_prior.py"), {"snakemake": snakemake})
        return read_prior(output)

    with Observations(files / "observations.h5") as file:
        some = file.load("train", subset(COUNT, 10, 0)[::4][np.argsort(subset(3, 3, 0))])
    save_observations(files / "some.h5", {"train": some}, "projection", {})
    one, other = fitted("observations", 10, 4), fitted("some", 3, 1)

    assert one.card["fitted_to"] == other.card["fitted_to"] == 3
    assert one.card["lap"] == one.card["optimizer_steps"] == 0
    assert torch.equal(one.gaussian.mean, other.gaussian.mean)
    assert torch.equal(one.gaussian.factors, other.gaussian.factors)


def extractor(folder, name, cache_mb=1):
    """Trains an extractor, and returns its file's bytes."""
    output = folder / name / "extractor.safetensors"
    snakemake = SimpleNamespace(
        log=[str(folder / "log")],
        config={**CONFIG, "cache_mb": cache_mb},
        params=Named(seed=0),
        wildcards=Named(),
        input=Named(clean=str(folder / "clean.h5")),
        output=[str(output)],
    )
    runpy.run_path(str(SCRIPTS / "extractor.py"), {"snakemake": snakemake})
    return output.read_bytes()


@pytest.mark.slow
def test_an_extractor_is_the_same_from_the_disk(tmp_path):
    generator, arrays = np.random.default_rng(0), {}
    for split, count in (("train", 60), ("test", 20)):
        arrays[f"{split}/x"] = generator.normal(size=(count, 1, 4, 4)).astype(np.float32)
        arrays[f"{split}/label"] = np.arange(count) % 3
    write_hdf5(tmp_path / "clean.h5", arrays, {})

    assert extractor(tmp_path, "disk", cache_mb=0) == extractor(tmp_path, "memory")


class MeanColours(torch.nn.Module):
    """Stands in for the Inception network: the features of an image are its mean colours."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        colours = x.double().mean(dim=(2, 3))
        return colours, colours


@pytest.mark.parametrize("source", [inception, dinov2])
def test_the_fid_compares_with_clean_training_images(tmp_path, monkeypatch, source):
    # Five training files of one image, and a test file of three, in the official layout.
    stream, records = np.random.default_rng(0), {}
    for name, count in [*((name, 1) for name in TRAINING), *((name, 3) for name in TEST)]:
        records[name] = stream.integers(0, 256, (count, RECORD), np.uint8)
        records[name][:, 0] = 0
        records[name].tofile(tmp_path / name)
    data = {"name": "cifar10", "path": str(tmp_path), "train": 5, "validation": 3, "test": 3}
    network = FeatureNetwork(MeanColours(), "a network", "0123")
    monkeypatch.setattr(source, "load", lambda path, device: network)
    named = {"clean": str(tmp_path / "clean.h5"), "weights": str(tmp_path / TEST[0])}
    common = {
        "log": [str(tmp_path / "log")],
        "config": {**CONFIG, "device": "cpu"},
        "wildcards": Named(experiment="e", network=source.__name__.rpartition(".")[2]),
    }
    made = SimpleNamespace(
        **common, input=Named(), params=Named(data=data, seed=0), output=[named["clean"]]
    )
    runpy.run_path(str(SCRIPTS / "clean_data.py"), {"snakemake": made})
    output = [str(tmp_path / "reference.safetensors")]
    made = SimpleNamespace(**common, input=Named(**named), params=Named(data=data), output=output)
    runpy.run_path(str(SCRIPTS / "feature_reference.py"), {"snakemake": made})

    reference = load_reference(output[0], network)

    assert (reference.samples, reference.split) == (5, "train")
    pixels = np.concatenate([records[name][:, 1:] for name in TRAINING]).reshape(5, 3, -1)
    np.testing.assert_allclose(reference.moments.mean, pixels.mean(axis=(0, 2)), rtol=1e-6)
