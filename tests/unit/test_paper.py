"""The paper's settings in config/paper.yaml, and its numbers beside ours."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from diem.config.resolve import resolve
from diem.networks import NETWORKS
from diem.paper import hyperparameters
from diem.paper.pairs import Pair, pairs
from diem.paper.paper_vs_ours import paper_vs_ours, published_numbers, readable_numbers

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "workflow" / "published"


def load(name):
    path = ROOT / "config" / name
    return resolve(yaml.safe_load(path.read_text(encoding="utf-8")), name)


@pytest.fixture(scope="module")
def settings():
    return load("paper.yaml")


@pytest.fixture(scope="module")
def demo():
    return load("config.yaml")


# Section 5 and the appendices of arXiv 2405.13712.
NUMBERS = [
    ("experiments.manifold.data.train", 65536),
    ("experiments.manifold.data.dimensions", 5),
    ("experiments.manifold.data.alpha", 3),
    ("experiments.manifold.data.epsilon", 1e-3),
    ("experiments.manifold.observations.projections.operator", {"name": "projection", "rows": 2}),
    ("experiments.manifold.observations.projections.sigma_y", 1e-2),
    ("experiments.manifold.network", {"name": "mlp", "hidden": [256] * 3, "embedding": 64}),
    ("experiments.manifold.schedule", {"sigma_min": 1e-3, "sigma_max": 10}),
    ("experiments.manifold.gaussian.iterations", 16),
    ("experiments.manifold.laps", 64),
    ("experiments.manifold.e_step.sampler.name", "pc"),
    ("experiments.manifold.e_step.sampler.steps", 4096),
    ("experiments.manifold.e_step.sampler.corrections", 1),
    ("experiments.manifold.e_step.sampler.delta", 0.1),
    ("experiments.manifold.e_step.iterations", 2),
    ("experiments.manifold.m_step.steps", 65536),
    ("experiments.manifold.m_step.batch", 1024),
    ("experiments.manifold.m_step.learning_rate", 1e-3),
    ("experiments.manifold.m_step.learning_rate_final", 1e-6),
    ("experiments.manifold.m_step.drop_outside", 3),
    ("experiments.manifold.m_step.drop_from", 2),
    ("experiments.manifold.evaluation.laps", [1, 2, 4, 8, 16, 32]),
    ("experiments.manifold.evaluation.sinkhorn_samples", 16384),
    ("experiments.cifar10.data.train", 50000),
    ("experiments.cifar10.data.validation", 10000),
    ("experiments.cifar10.observations.missing_25.operator.missing", 0.25),
    ("experiments.cifar10.observations.missing_50.operator.missing", 0.5),
    ("experiments.cifar10.observations.missing_75.operator.missing", 0.75),
    ("experiments.cifar10.observations.missing_75.sigma_y", 1e-3),
    ("experiments.cifar10.network.channels", [128, 256, 384]),
    ("experiments.cifar10.network.blocks", 5),
    ("experiments.cifar10.network.kernel", 3),
    ("experiments.cifar10.network.embedding", 256),
    ("experiments.cifar10.network.dropout", 0.1),
    ("experiments.cifar10.network.attention", {"1": 4}),
    ("experiments.cifar10.schedule", {"sigma_min": 1e-3, "sigma_max": 100}),
    ("experiments.cifar10.gaussian.rank", 64),
    ("experiments.cifar10.gaussian.iterations", 16),
    ("experiments.cifar10.gaussian.observations", 16384),
    ("experiments.mri.gaussian.every", 4),
    ("experiments.cifar10.laps", 32),
    ("experiments.cifar10.e_step.sampler.name", "ddpm"),
    ("experiments.cifar10.e_step.sampler.steps", 256),
    ("experiments.cifar10.e_step.sampler.spacing", "log_linear"),
    ("experiments.cifar10.e_step.iterations", 1),
    ("experiments.cifar10.e_step.covariance", "tweedie"),
    ("experiments.cifar10.m_step.epochs", 256),
    ("experiments.cifar10.m_step.batch", 256),
    ("experiments.cifar10.m_step.learning_rate", 2e-4),
    ("experiments.cifar10.m_step.clip", 1),
    ("experiments.cifar10.m_step.ema", 0.9999),
    ("experiments.cifar10.m_step.warm_start", True),
    (
        "experiments.cifar10.m_step.augment",
        {"flip": True, "hue": 0.01, "saturation": [0.95, 1.05]},
    ),
    ("experiments.cifar10.evaluation.samples", 50000),
    ("experiments.cifar10.evaluation.sampler.name", "ddim"),
    ("experiments.cifar10.evaluation.sampler.steps", 256),
    ("experiments.cifar10.runs.missing_75_identity.e_step.covariance", "identity"),
    ("experiments.cifar10.runs.missing_75_cov_t.e_step.covariance", "cov_t"),
    ("experiments.mri.data.slices", [10, 41]),
    ("experiments.mri.data.size", 320),
    ("experiments.mri.observations.r6.operator.acceleration", 6),
    ("experiments.mri.observations.r6.sigma_y", 1e-2),
    ("experiments.mri.network.channels", [128, 256, 384, 512]),
    ("experiments.mri.network.blocks", 3),
    ("experiments.mri.network.attention", {"3": 4}),
    ("experiments.mri.network.patch", 4),
    ("experiments.mri.laps", 16),
    ("experiments.mri.e_step.sampler.steps", 64),
    ("experiments.mri.e_step.iterations", 3),
    ("experiments.mri.e_step.repeats", 2),
    ("experiments.mri.m_step.epochs", 64),
    ("experiments.mri.m_step.batch", 256),
    ("experiments.mri.m_step.learning_rate", 1e-4),
    ("experiments.mri.m_step.ema", 0.999),
    ("experiments.mri.m_step.augment", {"flip": True, "shift": 4}),
    ("heuristics.curves.cases", 64),
    ("heuristics.curves.components", 256),
    ("heuristics.curves.thickness", 1e-2),
    ("heuristics.curves.sigma_y", 1e-2),
    ("heuristics.curves.sigmas", [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10]),
    ("heuristics.curves.prior_samples", 2**20),
    ("heuristics.curves.samples", 16384),
    ("heuristics.curves.regularization", 1e-3),
    ("heuristics.curves.iterations", 1024),
    ("heuristics.curves.floor", 1e-6),
    ("heuristics.curves.coil.sigma", 0.25),
    ("restoration.ffhq.steps", [10, 100, 1000]),
    (
        "restoration.ffhq.tasks.inpainting_box",
        {"operator": {"name": "mask", "box": 128, "margin": 16}, "sigma_y": 1, "shared": False},
    ),
    ("restoration.ffhq.tasks.inpainting_random.operator.missing", 0.98),
    ("restoration.ffhq.tasks.inpainting_random.sigma_y", 0.01),
    ("restoration.ffhq.tasks.motion_deblur.operator.size", 61),
    ("restoration.ffhq.tasks.motion_deblur.operator.intensity", 0.5),
    ("restoration.ffhq.tasks.motion_deblur.sigma_y", 0.1),
    ("restoration.ffhq.tasks.super_resolution.operator.factor", 4),
    ("restoration.ffhq.tasks.super_resolution.sigma_y", 0.1),
    ("restoration.ffhq.methods.diffpir.iterations", 5),
]


@pytest.mark.parametrize(("key", "value"), NUMBERS, ids=[key for key, _ in NUMBERS])
def test_the_paper_config_holds_the_papers_numbers(settings, key, value):
    found = settings
    for part in key.split("."):
        found = found[part]

    assert found == value


def test_the_defaults_of_paper_yaml_are_honest(settings):
    for experiment in settings["experiments"].values():
        for run in experiment["runs"].values():
            assert run["e_step"]["drop_last"] is False
            assert run["e_step"]["limit"] is None
            assert run["e_step"]["restart"] is None
            assert run["m_step"]["first"] == run["m_step"]["final"] == 1


def test_the_cifar10_network_has_the_papers_size(settings):
    network = NETWORKS.parse(settings["experiments"]["cifar10"]["network"]).build((3, 32, 32))
    # The sum over the layers of the authors' priors/nn.py, see test_networks.py.
    assert sum(p.numel() for p in network.parameters()) == 57_560_451


def test_every_experiment_of_the_paper_has_a_place_in_the_demo(demo, settings):
    found = {(pair.section, pair.paper) for pair in pairs(demo, settings)}

    sections = ("experiments", "heuristics", "restoration")
    assert found == {(section, name) for section in sections for name in settings[section]}


def test_hyperparameters_are_those_of_both_configs(demo, settings):
    table = hyperparameters.settings_side_by_side(demo, settings)

    assert not table.duplicated(["section", "entry", "key"]).any()
    rows = table.set_index(["entry", "key"])
    assert tuple(rows.loc[("digits", "laps"), ["here", "paper"]]) == ("8", "32")
    assert rows.loc[("digits", "network.channels"), "here"] == ""
    assert rows.loc[("digits", "network.channels"), "paper"] == "128, 256, 384"
    name = "runs.missing_75_cov_t.e_step.covariance"
    assert tuple(rows.loc[("digits", name), ["here", "paper"]]) == ("cov_t", "cov_t")
    assert ("digits", "runs.missing_75_cov_t.e_step.iterations") not in rows.index
    readable = hyperparameters.readable_settings(table)
    assert len(readable.body) == len(table)


def test_only_the_paper_itself_differs_in_no_setting(demo, settings):
    same = hyperparameters.differences(hyperparameters.settings_side_by_side(settings, settings))
    assert set(same.values()) == {hyperparameters.SAME}

    for pair, text in hyperparameters.differences(
        hyperparameters.settings_side_by_side(demo, settings)
    ).items():
        assert text != hyperparameters.SAME, pair


def test_every_published_number_is_listed():
    table = published_numbers(PUBLISHED)

    counts = table["part"].value_counts()
    for part, name, columns in (
        ("heuristics", "heuristics_divergence", 4),
        ("cifar10", "cifar10", 2),
        ("restoration", "posterior_samplers_ffhq", 3),
    ):
        assert counts[part] == columns * len(pd.read_csv(PUBLISHED / f"{name}.csv"))
    assert table["source"].map(bool).all()
    assert not table.duplicated(["part", "key"]).any()


def test_our_numbers_stand_beside_those_whose_place_they_take():
    published = published_numbers(PUBLISHED)
    scale = {
        Pair("heuristics", "few", "curves"): "3 of 12 settings differ from the paper",
        Pair("experiments", "digits", "cifar10"): "40 of 60 settings differ from the paper",
        Pair("restoration", "patches", "ffhq"): hyperparameters.SAME,
    }
    heuristics = pd.DataFrame(
        [{"sigma": 0.1, "covariance": "zeros", "median": 0.01, "card": "8 curves"}]
    )
    row = {
        "stage": "lap",
        "subject": "prior",
        "metric": "frechet_distance",
        "run": "half",
        "samples": "64",
        "split": "none",
        "sampler": "ddim",
        "sampler_steps": "8",
        "denoiser_evaluations": "9",
        "reference": "clean test",
        "reference_samples": "450",
        "extractor": "cnn32",
        "extractor_accuracy": "0.99",
        "extractor_digest": "ab",
        "seed": "0",
    }
    rows = pd.DataFrame([{**row, "lap": 1, "value": 9.0}, {**row, "lap": 2, "value": 3.5}])
    runs = {"half": {"heuristic": "tweedie", "corruption": 0.5}}
    restoration = pd.DataFrame(
        [
            {
                "task": "super_resolution",
                "method": "MMPS",
                "iterations": "3",
                "steps": 100,
                "psnr": 20.5,
                "psnr_card": "64 images",
                "ssim": float("nan"),
            }
        ]
    )

    table = paper_vs_ours(
        published, scale, {"few": heuristics}, {"digits": (rows, runs)}, {"patches": restoration}
    )

    assert len(table) == len(published)
    ours = table[table["entry"] != ""]
    assert list(ours["ours"]) == [0.01, 3.5, 20.5]
    assert list(ours["published"]) == ["7.0e-3", "6.76", "27.18"]
    assert list(ours["our_metric"]) == [
        "truncated divergence (median)",
        "Frechet distance (cnn32 features)",  # and never a FID
        "PSNR",
    ]
    assert list(ours["scale"]) == list(scale.values())
    assert ours["card"].iloc[1].startswith("lap 2, 64 samples")
    assert len(readable_numbers(table).body) == len(table)
