"""config/hour.yaml from its first job to its FID: few images, and a network as small as can be."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from diem.data.sets.cifar10 import RECORD

ROOT = Path(__file__).parents[2]
IMAGES, STEPS = 1000, 100
"""How many times fewer images and optimizer steps there are."""


@pytest.fixture
def records(tmp_path):
    """Records in the official layout: stripes whose colours and widths are random."""
    folder, rng = tmp_path / "records", np.random.default_rng(0)
    folder.mkdir()
    for name, count in (("data_batch_1.bin", 50), ("test_batch.bin", 10)):
        stripes = np.arange(32) // rng.integers(1, 8, (count, 1)) % 2
        colours = rng.integers(0, 256, (count, 3, 1, 1))
        pixels = colours * np.broadcast_to(stripes[:, None, None], (count, 1, 32, 32))
        records = np.zeros((count, RECORD), np.uint8)
        records[:, 0] = rng.integers(0, 10, count)
        records[:, 1:] = pixels.reshape(count, -1)
        records.tofile(folder / name)
    return folder


@pytest.fixture
def hour(workflow, records, inception_weights, monkeypatch):
    # The jobs import torchvision too.
    path = [str(ROOT / "tests" / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    text = (ROOT / "config" / "hour.yaml").read_text(encoding="utf-8")
    config = yaml.safe_load(text) | {"device": "cpu", "threads": 1, "results": "results"}
    entry = config["experiments"]["cifar10"]
    entry["data"] |= {"path": str(records)}
    for split in ("train", "validation", "test"):
        entry["data"][split] //= IMAGES
    entry["network"] |= {"channels": [8, 16], "blocks": 1, "embedding": 16, "attention": {"1": 2}}
    entry["gaussian"] |= {"rank": 4, "iterations": 2}
    entry["e_step"]["block"] = 10
    entry["m_step"]["steps"] //= STEPS
    entry["m_step"]["batch"] = 16
    for part in ("e_step", "m_step"):
        entry[part] |= {"precision": "float32", "compile": False}
    entry["evaluation"]["samples"] //= IMAGES
    entry["evaluation"] |= {"inception_weights": str(inception_weights), "test_observations": 2}
    workflow.config = config
    return workflow


@pytest.mark.slow
def test_an_hour_made_small(hour):
    lap = "results/cifar10/runs/missing_75/lap_16_final"

    hour.make(f"{lap}/metrics.csv")

    rows = pd.read_csv(hour.path(f"{lap}/metrics.csv"), keep_default_na=False)
    chosen = (rows["metric"] == "fid") & (rows["subject"] == "prior")
    (fid,) = rows[chosen].to_dict("records")
    assert np.isfinite(fid["value"])
    assert (fid["samples"], int(fid["reference_samples"])) == (50, 50)
    assert fid["reference"] == "clean train"
    assert (fid["sampler_steps"], fid["denoiser_evaluations"]) == (34, 35)
    losses = pd.read_csv(hour.path(f"{lap}/losses.csv"))
    assert losses["step"].iloc[-1] == 16 * 12
