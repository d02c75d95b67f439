"""What jobs ask of a cluster: against counted operations, and in what makes them more."""

import copy
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from diem.config.resolve import resolve
from diem.data.sets import DATASETS
from diem.errors import DiemError
from diem.networks import NETWORKS
from diem.planning import resources

ROOT = Path(__file__).parents[2]

CASES = [
    ({"name": "mlp", "hidden": [32, 48], "embedding": 16}, (5,)),
    ({"name": "residual_mlp", "width": 32, "blocks": 3, "embedding": 16}, (1, 8, 8)),
    ({"name": "residual_mlp", "width": 32, "blocks": 1, "gaussian": True}, (1, 8, 8)),
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


@pytest.mark.slow
@pytest.mark.parametrize(("network", "shape"), CASES)
def test_operations_are_near_the_counted(network, shape):
    x = torch.randn(2, *shape)
    with FlopCounterMode(display=False) as counter:
        NETWORKS.parse(network).build(shape).eval()(x, torch.tensor([0.5, 0.5]))
    counted = counter.get_total_flops() / 2
    assert 2 * NETWORKS.parse(network).multiplications(shape) == pytest.approx(counted, rel=0.15)


@pytest.fixture(scope="module")
def paper():
    config = yaml.safe_load((ROOT / "config/paper.yaml").read_text(encoding="utf-8"))
    return resolve(config, "paper.yaml")


CIFAR = {"experiment": "cifar10", "run": "missing_75", "lap": "02"}


def changed(config, *keys, **values):
    """A copy of a configuration with other values at some place."""
    config = place = copy.deepcopy(config)
    for key in keys:
        place = place[key]
    place |= values
    return config


def forward_flops(config):
    network = NETWORKS.parse(config["experiments"]["cifar10"]["network"])
    return 2 * network.multiplications((3, 32, 32))


def test_shapes(paper):
    shapes = {
        name: DATASETS.parse(entry["data"]).event_shape()
        for name, entry in paper["experiments"].items()
    }
    assert shapes == {"manifold": (5,), "cifar10": (3, 32, 32), "mri": (1, 320, 320)}
    complex_phantoms = {"name": "phantoms", "size": 16, "complex": True}
    assert DATASETS.parse(complex_phantoms).event_shape() == (2, 16, 16)


def test_work_of_an_e_step_is_its_passes(paper):
    forward = forward_flops(paper)
    one = resources.e_step(paper, CIFAR).flops
    # A pass and a product an evaluation, of 60000 observations at 256 steps and the end.
    assert one * paper["shards"] == 60000 * 257 * 2 * forward
    assert resources.e_step(changed(paper, shards=2 * paper["shards"]), CIFAR).flops == one / 2
    place = ("experiments", "cifar10", "runs", "missing_75", "e_step")
    three = changed(paper, *place, iterations=3)
    assert resources.e_step(three, CIFAR).flops == 2 * one  # 1 + 3 passes for 1 + 1
    # The other covariances need one product, however many iterations.
    identity = changed(three, *place, covariance="identity")
    assert resources.e_step(identity, CIFAR).flops == one
    twice = changed(paper, *place, repeats=2)
    assert resources.e_step(twice, CIFAR).flops == 2 * one
    final = changed(paper, *place, final=3)
    last = {**CIFAR, "lap": "32_final"}
    assert [resources.e_step(final, names).flops for names in (CIFAR, last)] == [one, 3 * one]
    assert resources.e_step(final, {**CIFAR, "lap": "01"}).flops == one


def test_corrections_are_evaluations(paper):
    names = {"experiment": "manifold", "run": "tweedie", "lap": "02"}
    place = ("experiments", "manifold", "runs", "tweedie", "e_step")
    corrected = resources.e_step(paper, names).flops
    predictor = changed(paper, *place, sampler={"name": "ddim", "steps": 4096})
    predicted = resources.e_step(predictor, names).flops
    assert corrected / predicted == pytest.approx(2, rel=1e-3)  # each step is corrected once


def test_work_of_trainings_is_that_of_their_lengths(paper):
    entry = paper["experiments"]["cifar10"]
    forward = forward_flops(paper)
    steps, batch = 256 * 50000 // 256, 256
    errors = 24 * 64  # at each level, of so many validation samples
    checks = (1 + -(-steps // 64)) * 10000 + errors
    expected = (3 * steps * batch + checks) * forward
    assert resources.training(paper, CIFAR).flops == expected
    ceiling = resources.training(paper, {"experiment": "cifar10", "run": "missing_75"}).flops
    assert ceiling == pytest.approx(entry["laps"] * expected, rel=1e-3)
    place = ("experiments", "cifar10", "runs", "missing_75", "m_step")
    short = resources.training(changed(paper, *place, epochs=None, steps=10), CIFAR).flops
    assert short == (3 * 10 * 256 + 2 * 10000 + errors) * forward
    two = resources.training(changed(paper, *place, processes=2), CIFAR)
    assert two.processes == 2
    assert resources.minutes(paper, two, 1) < resources.minutes(
        paper, resources.training(paper, CIFAR), 1
    )


def test_several_machines_ask_slurm_for_nodes(paper):
    place = ("experiments", "cifar10", "runs", "missing_75", "m_step")
    alone = resources.training(changed(paper, *place, processes=4), CIFAR)
    assert resources.on_slurm(paper, alone) == {}
    config = changed(paper, *place, processes=4, nodes=2)
    asked = resources.training(config, CIFAR)
    wanted = {"nodes": 2, "tasks": 2, "mpi": "srun"}
    assert resources.on_slurm(config, asked) == {**wanted, "gres": "gpu:4", "tasks_per_gpu": 0}
    assert resources.on_slurm({**config, "device": "cpu"}, asked) == wanted
    # Twice the GPUs take half of the time, and what a node needs is as before.
    assert resources.minutes(config, asked, 1) < resources.minutes(paper, alone, 1)
    memory = {resources.memory_mb(paper, each, 100, 1) for each in (alone, asked)}
    assert len(memory) == 1


def test_jobs_ask_for_the_part_of_their_observations_that_they_hold(paper):
    config, many = changed(paper, device="cpu"), 28 * 1024.0  # MiB, as the paper's scans
    run = next(iter(paper["experiments"]["mri"]["runs"]))
    drawing = resources.e_step(config, {"experiment": "mri", "run": run, "lap": "02"})
    fitting = resources.gaussian_fit(config, {"experiment": "mri", "observations": "r6"})

    for asked, most in ((drawing, many / 2), (fitting, 3 * many)):
        beside = asked.activations_mb
        assert resources.memory_mb(config, asked, many, 1) - beside < 3000 + most
        # Small files are held as a whole.
        assert resources.memory_mb(config, asked, 10, 1) - beside == pytest.approx(3040, abs=2)
    whole = changed(config, "experiments", "mri", "gaussian", observations=10**6)
    fitting = resources.gaussian_fit(whole, {"experiment": "mri", "observations": "r6"})
    assert resources.memory_mb(whole, fitting, many, 1) >= 3000 + 4 * many


def test_evaluations_ask_for_what_their_metrics_hold(paper):
    observed = next(iter(paper["experiments"]["manifold"]["observations"]))
    names = {"experiment": "manifold", "observations": observed, "stage": "ceiling"}
    place = ("experiments", "manifold", "evaluation")
    asked = {
        name: resources.evaluation(changed(paper, *place, metrics=[name]), names)
        for name in ("sliced_wasserstein", "sinkhorn_divergence")
    }

    memory = {name: resources.memory_mb(paper, each, 12, 1) for name, each in asked.items()}

    # Six matrices of 16,384 x 16,384 in double precision.
    assert memory["sinkhorn_divergence"] - memory["sliced_wasserstein"] == 12 * 1024


def test_evaluations_ask_for_what_they_draw(paper):
    place = ("experiments", "cifar10", "evaluation")
    few = changed(paper, *place, metrics=["psnr"], samples=10, test_observations=4)
    more = changed(few, *place, test_observations=8)
    predicted = changed(few, *place, metrics=["prediction"], predicted_observations=2)
    asked = [resources.evaluation(config, CIFAR).flops for config in (few, more, predicted)]
    assert asked[0] < asked[1] == asked[2]
    bound = {"experiment": "cifar10", "observations": "missing_75", "stage": "ceiling"}
    assert resources.evaluation(few, bound).flops == asked[0]
    ceiling = {"experiment": "cifar10", "run": "missing_75", "observations": "missing_75"}
    place = ("experiments", "cifar10", "runs", "missing_75", "e_step", "sampler")
    longer = changed(few, *place, steps=2048)
    assert resources.evaluation(longer, ceiling).flops > asked[0]
    assert resources.evaluation(longer, bound).flops == asked[0]
    rest = {"experiment": "cifar10", "run": "missing_75", "observations": "missing_50"}
    assert 0 < resources.reconstruction(few, rest).flops < asked[0]


def test_the_prior_of_restorations_asks_for_its_training():
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
    config = resolve(config, "config.yaml")
    (name,) = config["restoration"]
    assert resources.restoration_training(config, {"comparison": name}).flops > 0


def test_data_that_are_not_there_ask_for_the_start(paper, tmp_path):
    data = {"name": "images", "path": str(tmp_path / "none"), "size": 32, "train": None}
    data |= {"validation": 10, "test": 10}
    absent = changed(paper, "experiments", "cifar10", data=data)
    assert resources.e_step(absent, CIFAR).flops == 0
    assert resources.minutes(absent, resources.e_step(absent, CIFAR), 1) == resources.START


def test_a_bad_option_is_not_taken_for_data_that_are_not_there(paper):
    place = ("experiments", "cifar10", "runs", "missing_75", "e_step")
    bad = changed(paper, *place, sampler={"name": "ddim", "corrections": 2})
    with pytest.raises(DiemError, match="corrections"):
        resources.e_step(bad, CIFAR)


def test_retries_ask_for_twice_as_much(paper):
    gpu, cpu = {**paper, "device": "cuda"}, {**paper, "device": "cpu"}
    asked = resources.Asked(flops=1e15)
    for attempt in (1, 2):
        again = attempt + 1
        minutes = [resources.minutes(gpu, asked, number) for number in (attempt, again)]
        assert minutes[1] == 2 * minutes[0]
        memory = [resources.memory_mb(gpu, asked, 100, number) for number in (attempt, again)]
        assert memory[1] == 2 * memory[0]
        assert resources.long_minutes(again) == 2 * resources.long_minutes(attempt)
    long = [resources.Asked(flops=1e18, processes=processes) for processes in (4, 1)]
    minutes = [resources.minutes(gpu, each, 1) for each in long]
    assert minutes[0] < minutes[1] < resources.minutes(cpu, long[1], 1)


def test_memory_grows_with_the_batch_on_a_cpu(paper):
    place = ("experiments", "cifar10", "runs", "missing_75", "e_step")
    batches = [changed(paper, *place, batch=batch) for batch in (32, 64, 96)]
    asked = [resources.e_step(config, CIFAR) for config in batches]
    on_cpu = [resources.memory_mb({**paper, "device": "cpu"}, each, 100, 1) for each in asked]
    assert on_cpu[2] - on_cpu[1] == pytest.approx(on_cpu[1] - on_cpu[0], abs=2)
    assert on_cpu[0] < on_cpu[1]
    on_gpu = {resources.memory_mb({**paper, "device": "cuda"}, each, 100, 1) for each in asked}
    assert len(on_gpu) == 1


def test_memory_holds_no_more_than_the_cache(paper):
    small = {**paper, "cache_mb": 1000}
    asked = resources.training(small, CIFAR)
    memory = [resources.memory_mb(small, asked, size, 1) for size in (100, 10000, 100000)]
    assert memory[0] < memory[1] == memory[2]


def test_gpus(paper):
    devices = {"auto": 2, "cuda": 2, "cuda:1": 2, "cpu": 0, "mps": 0}
    for device, count in devices.items():
        assert resources.gpus({**paper, "device": device}, 2) == count


def test_a_cluster_is_asked_without_pytorch():
    code = (
        "import sys, yaml; from pathlib import Path\n"
        "from diem.config.resolve import resolve; from diem.planning import resources\n"
        "config = yaml.safe_load(Path('config/paper.yaml').read_text(encoding='utf-8'))\n"
        "config = resolve(config, 'paper.yaml')\n"
        f"names = {CIFAR!r}\n"
        "for job in (resources.e_step, resources.training, resources.evaluation):\n"
        "    assert job(config, names).flops > 0\n"
        "assert 'torch' not in sys.modules"
    )
    path = str(ROOT / "workflow")
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}
    )


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
            assert re.search(r"gpu=(GPUS|asked_gpus)", rules[owners[0]]), name
    assert on_gpus <= set(rules)
