"""config/hour.yaml is planned to fit an hour of a GPU, and its FID has one protocol."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from diem.config.resolve import resolve
from diem.data.sets import DATASETS
from diem.networks import NETWORKS
from diem.planning.experiment import Experiment
from diem.replicates import all_entries

ROOT = Path(__file__).parents[2]
RUN = "missing_75"


@pytest.fixture(scope="module")
def config():
    path = ROOT / "config" / "hour.yaml"
    return resolve(yaml.safe_load(path.read_text(encoding="utf-8")), path.name)


@pytest.fixture(scope="module")
def entry(config):
    return config["experiments"]["cifar10"]


@pytest.fixture(scope="module")
def flops(config):
    """The operations of a seed, from the observations to the FID of the last lap, by stage."""
    found = []
    for name in all_entries(config, "experiments"):
        experiment = Experiment(config, name)
        run = experiment.entry["runs"][RUN]
        laps = range(1, run["laps"] + 1)
        counted = experiment.kinds.flops
        evaluation = experiment.evaluation(run["observations"], run["e_step"])
        found.append(
            {
                "e_step": sum(counted(experiment.e_step(RUN, lap)) for lap in laps),
                "m_step": sum(counted(experiment.m_step(RUN, lap)) for lap in laps),
                "evaluation": counted(evaluation),
            }
        )
    assert found == [found[0]] * len(config["seeds"])
    return found[0]


def test_a_seed_takes_no_more_than_it_may(flops):
    assert 5e17 < sum(flops.values()) <= 6e17


def test_the_network_has_36_million_parameters(entry):
    data = DATASETS.parse(entry["data"])
    with torch.device("meta"):
        network = NETWORKS.parse(entry["network"]).build(data.event_shape())
    assert sum(w.numel() for w in network.parameters()) == pytest.approx(36e6, rel=0.05)


def test_a_seed_fits_an_hour_at_the_measured_rates(flops, entry):
    engine = json.loads((ROOT / "benchmarks" / "gpu.json").read_text(encoding="utf-8"))
    rows = {
        row["case"]: row["values"].get("tflop_per_s")
        for row in engine["NVIDIA H200"]["engine"]["rows"]
    }
    setting = "bfloat16, channels-last, compiled, 256"
    rates = {part: rows[f"{part}, {setting}"] for part in ("e_step", "m_step")}
    rates["evaluation"] = rows["e_step, float32, 256"]  # prior samples are drawn in it
    for part in ("e_step", "m_step"):
        asked = {key: entry[part][key] for key in ("precision", "channels_last", "compile")}
        assert asked == {"precision": "bfloat16", "channels_last": True, "compile": True}

    minutes = sum(flops[part] / (rates[part] * 1e12) for part in flops) / 60

    # What is left is for jobs to start and to compile, the data, the exact first lap, Inception.
    assert minutes < 45


def test_blocks_of_an_e_step_have_one_shape(entry):
    counts = DATASETS.parse(entry["data"]).counts()
    assert {counts[split] % entry["e_step"]["block"] for split in ("train", "validation")} == {0}


def test_the_protocol_of_its_fid(config, entry):
    evaluation = entry["evaluation"]
    assert config["seeds"] == [0, 1, 2]
    assert entry["data"]["train"] == evaluation["samples"] == 50000
    assert "fid" in evaluation["metrics"]
    assert evaluation["inception_weights"] is None  # torch-fidelity's, by their SHA256
    assert entry["published"] == "cifar10"
    assert not DATASETS.parse(entry["data"]).shares_images()
