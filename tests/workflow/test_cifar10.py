"""Corrupted CIFAR-10 at the smallest scale, on real records, with a random Inception network."""

import copy
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
MINI = ROOT.parent / "shared" / "data" / "cifar10-mini"


def masks(*rates):
    return {
        f"missing_{rate}": {"operator": {"name": "mask", "missing": rate / 100}, "sigma_y": 0.001}
        for rate in rates
    }


EXPERIMENT = {
    "data": {"name": "cifar10", "train": 12, "validation": 4, "test": 8},
    "observations": masks(75),
    "network": {
        "name": "unet",
        "channels": [8, 16],
        "blocks": 1,
        "embedding": 16,
        "attention": {"1": 2},
    },
    "gaussian": {"rank": 4, "iterations": 2},
    "laps": 2,
    "e_step": {"sampler": {"steps": 4}, "block": 16},
    "m_step": {
        "steps": 20,
        "batch": 16,
        "ema": 0.9,
        "augment": {"flip": True, "hue": 0.01, "saturation": [0.95, 1.05]},
    },
    "evaluation": {
        "laps": [],
        "samples": 10,
        "sampler": {"name": "ddim", "steps": 4},
        "metrics": ["fid", "inception_score", "fd_dinov2", "psnr"],
        "test_observations": 8,
        "posterior_samples": 2,
    },
    "published": "cifar10",
    "figures": ["distance", "prior", "inpainting"],
    "runs": {"tweedie": {"observations": "missing_75"}},
}


@pytest.fixture
def cifar10(workflow, monkeypatch):
    # The jobs import torchvision too.
    path = [str(Path(__file__).parents[1] / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    workflow.config["experiments"] = {"cifar10": copy.deepcopy(EXPERIMENT)}
    return workflow


@pytest.mark.slow
@pytest.mark.skipif(not MINI.is_dir(), reason="the real records are not here")
def test_tables_and_figures(cifar10, inception_weights, dinov2_weights):
    experiment = cifar10.config["experiments"]["cifar10"]
    experiment["data"]["path"] = str(MINI)
    experiment["evaluation"]["inception_weights"] = str(inception_weights)
    experiment["evaluation"]["dinov2_weights"] = str(dinov2_weights)

    cifar10.make()

    made = {path.name for path in cifar10.path("results/figures").iterdir()}
    assert made == {
        f"cifar10_{figure}.{kind}"
        for figure in ("distance", "prior", "inpainting")
        for kind in ("pdf", "png")
    }
    rows = pd.read_csv(cifar10.path("results/tables/cifar10_rows.csv"), keep_default_na=False)
    networks = {"fid": "inception-v3-compat", "fd_dinov2": "dinov2-vit-l-14"}
    for metric in ("fid", "inception_score", "fd_dinov2"):
        network = f"{networks.get(metric, networks['fid'])} with other weights"
        part = rows[(rows["metric"] == metric) & (rows["subject"] == "prior")]
        assert part["stage"].tolist() == ["floor", "ceiling", "lap"]
        assert np.isfinite(part["value"]).all()
        assert set(part["samples"]) == {10}
        assert set(part["extractor"]) == {network}
        assert (part["extractor_digest"].str.len() == 16).all()
    distances = rows[rows["metric"].isin(networks)]
    assert set(distances["reference"]) == {"clean train"}
    assert set(distances["reference_samples"].map(int)) == {12}
    published = cifar10.path("results/tables/cifar10_published.md").read_text(encoding="utf-8")
    lines = published.splitlines()
    here = [i for i, line in enumerate(lines) if line.startswith("| ours, tweedie | tweedie | 75%")]
    assert len(here) == 1
    assert lines[here[0] - 1] == "| DiEM | tweedie | 75% | - | - | 13.18 | 644 | 8.14 |"
    assert "10 samples, ddim with 4 steps" in published


@pytest.mark.slow
def test_what_is_not_given_is_downloaded(cifar10):
    # All of the paper's runs, in a plan: nothing is computed, and nothing is fetched.
    experiment = cifar10.config["experiments"]["cifar10"]
    experiment |= {
        "observations": masks(25, 50, 75),
        "runs": {
            "missing_25": {"observations": "missing_25"},
            "missing_50": {"observations": "missing_50"},
            "missing_75": {"observations": "missing_75"},
            "missing_75_identity": {
                "observations": "missing_75",
                "e_step": {"covariance": "identity"},
            },
            "missing_75_cov_t": {"observations": "missing_75", "e_step": {"covariance": "cov_t"}},
        },
    }

    result = cifar10.run("-n")

    told = result.stdout + result.stderr
    assert result.returncode == 0, told
    weights = ("weights-inception-2015-12-05-6726825d.pth", "dinov2_vitl14_pretrain.pth")
    for name in ("cifar-10-binary.tar.gz", *weights):
        assert f"Downloading {name}" in told
    counts = dict(line.split() for line in told.splitlines() if len(line.split()) == 2)
    assert (counts["download"], counts["m_step"]) == ("3", "10")
    assert (counts["evaluate_floor"], counts["evaluate_ceiling"]) == ("3", "3")

    experiment["data"]["path"] = "somewhere"
    told = cifar10.run("-n").stdout
    assert "Downloading cifar" not in told
    assert "Downloading weights" in told
