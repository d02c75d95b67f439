"""What jobs ask of a cluster: against counted operations, and in what makes them more."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from diem.config.resolve import resolve, training_of_lap
from diem.networks import NETWORKS
from diem.planning import resources as demands

ROOT = Path(__file__).parents[2]

CASES = [
    ({"name": "mlp", "hidden": [32, 48], "embedding": 16}, (5,)),
    ({"name": "residual_mlp", "width": 32, "blocks": 3, "embedding": 16}, (1, 8, 8)),
    (
        {
            "name": "unet",
            "channels": [16, 24],
            "blocks": 2,
            "kernel": 3,
            "embedding": 8,
            "dropout": 0.1,
            "attention": {"1": 2},
            "patch": 1,
        },
        (3, 16, 16),
    ),
]


@pytest.mark.parametrize(("network", "shape"), CASES)
def test_operations_are_near_the_counted(network, shape):
    x = torch.randn(2, *shape)
    with FlopCounterMode(display=False) as counter:
        NETWORKS.parse(network).build(shape).eval()(x, torch.tensor([0.5, 0.5]))
    counted = counter.get_total_flops() / 2
    assert demands.pass_flops(network, shape) == pytest.approx(counted, rel=0.15)


@pytest.fixture(scope="module")
def paper():
    config = yaml.safe_load((ROOT / "config/paper.yaml").read_text(encoding="utf-8"))
    return resolve(config, ROOT / "workflow/schemas/config.schema.yaml", "paper.yaml")


def test_shapes(paper):
    shapes = {k: demands.event_shape(e["data"]) for k, e in paper["experiments"].items()}
    assert shapes == {"manifold": (5,), "cifar10": (3, 32, 32), "mri": (1, 320, 320)}
    complex_phantoms = {"name": "phantoms", "size": 16, "complex": True}
    assert demands.event_shape(complex_phantoms) == (2, 16, 16)


def test_work_grows_with_what_makes_it(paper):
    entry = paper["experiments"]["cifar10"]
    run = entry["runs"]["missing_75"]
    one = demands.e_step_flops(entry, run, 1000)
    assert demands.e_step_flops(entry, run, 2000) == 2 * one
    three = {**run, "e_step": {**run["e_step"], "iterations": 3}}
    assert demands.e_step_flops(entry, three, 1000) == 2 * one  # 1 + 3 passes for 1 + 1
    training = training_of_lap(run["m_step"], 1, run["laps"])
    forward = demands.pass_flops(entry["network"], (3, 32, 32))
    assert demands.m_step_flops(entry, training, 1000) == 3 * 256 * 1000 * forward
    steps = {**training, "epochs": None, "steps": 10}
    assert demands.m_step_flops(entry, steps, 1000) == 3 * 10 * 256 * forward
    manifold = paper["experiments"]["manifold"]
    corrected = manifold["runs"]["tweedie"]
    predicted = {**corrected, "e_step": {**corrected["e_step"]}}
    predicted["e_step"]["sampler"] = {**corrected["e_step"]["sampler"], "name": "ddim"}
    ratio = demands.e_step_flops(manifold, corrected, 1) / demands.e_step_flops(
        manifold, predicted, 1
    )
    assert ratio == pytest.approx(2, rel=1e-3)  # each step is corrected once


def test_retries_ask_for_twice_as_much(paper):
    entry = paper["experiments"]["cifar10"]
    for attempt in (1, 2):
        again = attempt + 1
        assert demands.minutes(1e15, again, 1) == 2 * demands.minutes(1e15, attempt, 1)
        assert demands.memory_mb(100, again) == 2 * demands.memory_mb(100, attempt)
    assert demands.minutes(1e18, 1, 4) < demands.minutes(1e18, 1, 1) < demands.minutes(1e18, 1, 0)
    on_cpu = [demands.memory_mb(100, 1, entry, batch) for batch in (0, 32, 64)]
    assert on_cpu[2] - on_cpu[1] == pytest.approx(on_cpu[1] - on_cpu[0], abs=2)


def test_samples_of_a_file():
    entry = {"data": {"name": "cifar10"}}
    assert demands.samples_of(entry, 1000 * 3072 * 4 / 2**20) == pytest.approx(1000)


def test_every_job_that_can_use_a_gpu_asks_for_one():
    """A script that selects a device belongs to a rule with ``gpu``, on the GPU partition."""
    rules = {}
    for path in sorted((ROOT / "workflow/rules").glob("*.smk")):
        for part in re.split(r"^(?=rule |use rule )", path.read_text("utf-8"), flags=re.M)[1:]:
            name = re.match(r"(?:use rule \w+ as|rule) (\w+)", part)[1]
            rules[name] = part
    profile = yaml.safe_load((ROOT / "workflow/profiles/slurm/config.yaml").read_text("utf-8"))
    on_gpus = set(profile["set-resources"])
    for path in sorted((ROOT / "workflow/scripts").glob("*.py")):
        if "select_device" not in path.read_text("utf-8") or path.stem == "estimate":
            continue
        owners = [name for name, part in rules.items() if f"scripts/{path.name}" in part]
        owners += [n for n, part in rules.items() if part.startswith(f"use rule {owners[0]} as")]
        for name in owners:
            assert name in on_gpus, name
            assert re.search(r"gpu=(GPUS|training_gpus)", rules[owners[0]]), name
    assert on_gpus <= set(rules)
