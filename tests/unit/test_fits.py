"""What the sizes of data refuse before anything runs: one sentence, with the key and what fits."""

import copy

import h5py
import numpy as np
import pytest
from PIL import Image

from diem.config.resolve import resolve
from diem.errors import DiemError
from diem.evaluation.extractor import Extractor
from diem.evaluation.metrics.frechet_distance import FEATURES

EXPERIMENT = {
    "data": {"name": "phantoms", "train": 100, "validation": 40, "test": 20, "size": 16},
    "observations": {"half": {"operator": {"name": "mask", "missing": 0.5}, "sigma_y": 0.1}},
    "network": {"name": "mlp", "hidden": [8]},
    "laps": 2,
    "evaluation": {"samples": 64, "metrics": ["psnr"], "test_observations": 20},
    "runs": {"base": {"observations": "half"}},
}

COMPARISON = {
    "data": {"name": "photographs", "size": 16, "train": 64, "validation": 8, "test": 8},
    "train": {"network": {"name": "mlp", "hidden": [8]}},
    "tasks": {"hole": {"operator": {"name": "mask", "box": 8}, "sigma_y": 0.1}},
    "images": 8,
}

UNET = {"name": "unet", "channels": [4, 4, 4], "blocks": 1, "embedding": 8}


def changed(entry, changes):
    """Returns an entry with other settings; what has a name takes the place of what was there."""
    entry = copy.deepcopy(entry)
    for key, value in changes.items():
        named = not isinstance(value, dict) or "name" in value
        entry[key] = value if named else changed(entry.get(key, {}), value)
    return entry


def experiment(**changes):
    return {"experiments": {"some": changed(EXPERIMENT, changes)}}


def observed(sigma_y=0.1, **operator):
    return experiment(observations={"half": {"operator": operator, "sigma_y": sigma_y}})


def comparison(tasks=None, **changes):
    entry = changed(COMPARISON, changes)
    return {"restoration": {"some": {**entry, "tasks": tasks or entry["tasks"]}}}


def run(**changes):
    return experiment(runs={"base": changes})


def evaluated(*metrics, data=None, **changes):
    given = {"data": data} if data else {}
    return experiment(evaluation={"metrics": list(metrics), **changes}, **given)


DIGITS = {"name": "digits", "validation": 40, "test": 32}
CIFAR = {"name": "cifar10"}

REFUSED = {
    "unet": (
        experiment(network=UNET, data={"size": 18}),
        ["experiments.some.network.channels", "divisible by 4", "not 18 x 18"],
    ),
    "unet of vectors": (
        experiment(
            network=UNET,
            data={"name": "manifold", "dimensions": 5, "test": 20},
            evaluation={"metrics": ["sliced_wasserstein"]},
        ),
        ["experiments.some.network.channels", "series whose length is divisible by", "not 5"],
    ),
    "heads": (
        experiment(network={**UNET, "attention": {"1": 3}}),
        ["experiments.some.network.attention.1 is 3", "divisor"],
    ),
    "hole": (
        observed(name="mask", box=16),
        ["experiments.some.observations.half.operator.box", "16 x 16", "larger images"],
    ),
    "kernel": (
        observed(name="blur", size=17, intensity=0.5),
        ["experiments.some.observations.half.operator.size", "17 x 17", "no smaller"],
    ),
    "factor": (
        observed(name="downsample", factor=3),
        ["experiments.some.observations.half.operator.factor is 3", "divisor"],
    ),
    "entries": (
        observed(name="sparse", rows=2, entries=257),
        ["experiments.some.observations.half.operator.entries is 257", "256 values"],
    ),
    "k-space": (
        experiment(
            data={"name": "photographs", "size": 16},
            observations={"half": {"operator": {"name": "fourier", "acceleration": 2}}},
        ),
        ["experiments.some.observations.half.operator.name", "'fourier' needs images of one"],
    ),
    "sigma_y": (
        observed(sigma_y=[0.1, 0.2], name="mask", missing=0.5),
        ["experiments.some.observations.half.sigma_y holds 2", "256"],
    ),
    "shift": (
        run(m_step={"augment": {"shift": 16}}),
        ["experiments.some.runs.base.m_step.augment.shift is 16", "too far"],
    ),
    "no training block": (
        run(e_step={"drop_last": True, "block": 128}),
        ["experiments.some.runs.base.e_step.drop_last", "100 train", "lower e_step.block"],
    ),
    "no validation block": (
        run(e_step={"drop_last": True, "block": 64}),
        ["experiments.some.runs.base.e_step.drop_last", "40 validation", "lower e_step.block"],
    ),
    "test observations": (
        evaluated("psnr", test_observations=21),
        ["experiments.some.evaluation.test_observations is 21", "20 test observations"],
    ),
    "ssim": (
        evaluated("ssim", data={"size": 8}),
        ["experiments.some.evaluation.metrics: 'ssim' needs images of 11 x 11", "not 8 x 8"],
    ),
    "inception score": (
        evaluated("inception_score", data={"name": "photographs", "size": 16}, samples=9),
        ["'inception_score' needs evaluation.samples of 10 or more"],
    ),
    "few test images": (
        evaluated("frechet_distance", data=DIGITS),
        ["'frechet_distance' needs more test images (data.test) than its 32 features"],
    ),
    "one test image": (
        evaluated("kernel_distance", data={**DIGITS, "test": 1}, test_observations=1),
        ["'kernel_distance' needs 2 test samples or more (data.test)"],
    ),
    "half a test image": (
        evaluated("truncated_divergence", data={**DIGITS, "test": 1}, test_observations=1),
        ["'truncated_divergence' needs 2 test samples or more (data.test)"],
    ),
    "few samples": (
        evaluated("frechet_distance", data={**DIGITS, "test": 40}, samples=32),
        ["'frechet_distance' needs more evaluation.samples than its 32 features"],
    ),
    "few samples of parts": (
        evaluated("frechet_distance_infinity", data={**DIGITS, "test": 165}, samples=164),
        ["'frechet_distance_infinity' needs 165 samples or more (evaluation.samples)"],
    ),
    "few test images of parts": (
        evaluated("frechet_distance_infinity", data={**DIGITS, "test": 164}, samples=165),
        ["'frechet_distance_infinity' needs 165 test samples or more (data.test)"],
    ),
    "few samples of Inception's parts": (
        evaluated("fid_infinity", data=CIFAR, samples=10244),
        ["'fid_infinity' needs 10245 samples or more (evaluation.samples)"],
    ),
    "few validation observations": (
        evaluated("prediction", data={"validation": 1}),
        ["'prediction' needs two validation observations or more (data.validation)"],
    ),
    "the same images": (
        evaluated("prediction", data={**CIFAR, "validation": 6000, "test": 6000}),
        ["experiments.some.data.validation and data.test hold the same images"],
    ),
    "more than the archive": (
        experiment(data={**CIFAR, "train": 50001}),
        ["experiments.some.data.train is 50001", "50000"],
    ),
    "rank": (
        experiment(gaussian={"rank": 256}),
        ["experiments.some.gaussian.rank is 256", "less than the data's size 256"],
    ),
    "restoration: hole": (
        comparison({"hole": {"operator": {"name": "mask", "box": 16}, "sigma_y": 0.1}}),
        ["restoration.some.tasks.hole.operator.box", "16 x 16"],
    ),
    "restoration: images": (
        comparison(images=9),
        ["restoration.some.images is 9", "8 test images"],
    ),
    "restoration: complex images": (
        comparison(data={"name": "phantoms", "test": 8, "complex": True}),
        ["restoration.some.data.name must be of images of one channel or three"],
    ),
    "restoration: unet": (
        comparison(train={"network": UNET}, data={"size": 18}),
        ["restoration.some.train.network.channels", "divisible by 4"],
    ),
    "restoration: ssim": (
        comparison(data={"size": 10}, metrics=["ssim"]),
        ["restoration.some.metrics: 'ssim' needs images of 11 x 11"],
    ),
    "restoration: shift": (
        comparison(train={"m_step": {"augment": {"shift": 20}}}),
        ["restoration.some.train.m_step.augment.shift is 20"],
    ),
}


def refused(config):
    with pytest.raises(DiemError) as error:
        resolve(config, "some.yaml")
    message = str(error.value)
    assert message.startswith("some.yaml: ")
    assert message.endswith(".")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_before_anything_runs(name):
    config, words = REFUSED[name]

    message = refused(config)

    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "config",
    [
        experiment(),
        experiment(network=UNET),
        observed(name="mask", box=15),
        observed(name="blur", size=15, intensity=0.5),
        observed(name="downsample", factor=4),
        observed(sigma_y=[0.1] * 256, name="mask", missing=0.5),
        run(m_step={"augment": {"shift": 15}}),
        run(e_step={"drop_last": True, "block": 40}),
        evaluated("ssim", "psnr"),
        comparison(),
    ],
)
def test_what_fits_is_taken(config):
    resolve(config, "some.yaml")


def test_images_that_are_not_there_are_refused_and_a_missing_folder_can_be_planned(tmp_path):
    data = {"name": "images", "path": str(tmp_path), "size": 16, "validation": 2, "test": 2}
    for number in range(5):
        Image.new("RGB", (16, 16)).save(tmp_path / f"{number}.png")
    given = comparison(images=2)
    given["restoration"]["some"]["data"] = data

    resolve(given, "some.yaml")
    given["restoration"]["some"]["data"] = {**data, "train": 2}
    assert "restoration.some.data.train, data.validation and data.test" in refused(given)
    given["restoration"]["some"]["data"] = {**data, "path": str(tmp_path / "none")}
    resolve(given, "some.yaml")


@pytest.mark.parametrize(("count", "shown"), [(60, 6), (400, 16)])
def test_without_a_number_as_many_test_observations_are_sampled_as_there_are(
    tmp_path, count, shown
):
    path = tmp_path / "own.h5"
    with h5py.File(path, "w") as file:
        file.attrs.update({"event_shape": (1, 4, 4), "operator": "mask"})
        file["train/y"] = np.zeros((count, 1, 4, 4), np.float32)
        file["sigma_y"] = 0.1
    entry = copy.deepcopy(EXPERIMENT)
    entry |= {"data": {"name": "hdf5", "path": str(path)}, "observations": {"half": {}}}
    del entry["evaluation"]

    resolved = resolve({"experiments": {"some": entry}}, "some.yaml")["experiments"]["some"]

    assert resolved["evaluation"]["test_observations"] == shown


def test_the_features_of_the_frechet_distance_are_the_extractors():
    assert Extractor.dimension == FEATURES
