"""The plan of a configuration against what really runs: counted FLOPs, jobs, bytes on disk."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers import set_attributes

from diem.config.resolve import resolve
from diem.data import ingest as own
from diem.data import simulate as observing
from diem.data.observations import Observations
from diem.data.sets import DATASETS
from diem.diffusion.gaussian import fit_to_observations
from diem.diffusion.outside import outside_e_step
from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.diffusion.prior import Prior, build_denoiser, read_prior
from diem.em import loss
from diem.em.e_step import EStep, e_step
from diem.em.laps import evaluated_laps
from diem.em.m_step import Lap, m_step
from diem.em.training import CHUNK
from diem.errors import DiemError
from diem.evaluation.evaluate import Evaluation, evaluate
from diem.files.hdf5 import write_hdf5
from diem.inference.prior_denoiser import load_prior
from diem.inference.sample_files import write_posteriors
from diem.jobs.job import Job
from diem.networks import NETWORKS
from diem.paper.restoration.prior import architecture
from diem.planning import calibration, declared, estimate
from diem.planning.calls import calls_per_step
from diem.planning.experiment import Experiment
from diem.planning.flops import FlopCounter
from diem.planning.stages import stages
from diem.planning.work import Kinds, Work

ROOT = Path(__file__).parents[2]

# Large enough that the structure of an HDF5 file is little of it.
TINY = {
    "device": "cpu",
    "experiments": {
        "tiny": {
            "data": {"name": "phantoms", "train": 40, "validation": 8, "test": 8, "size": 16},
            "observations": {
                "half": {"operator": {"name": "mask", "missing": 0.5}, "sigma_y": 0.05}
            },
            "network": {
                "name": "unet",
                "channels": [8, 8],
                "blocks": 1,
                "embedding": 8,  # of which a batch needs one
                "attention": {"1": 2},
            },
            "schedule": {"sigma_min": 0.01, "sigma_max": 10.0},
            "gaussian": {"rank": 4, "iterations": 2, "observations": 32},
            "laps": 3,
            "e_step": {
                "sampler": {"name": "pc", "steps": 2, "spacing": "karras"},
                "iterations": 2,
                "block": 16,
                "repeats": 2,
            },
            "m_step": {"steps": 70, "batch": 16, "learning_rate": 0.001},
            "evaluation": {
                "laps": [1],
                "samples": 32,
                "block": 16,
                "sampler": {"name": "ddim", "steps": 3},
                "metrics": ["psnr"],
                "test_observations": 4,
                "posterior_samples": 3,
            },
            "runs": {"base": {"observations": "half"}},
        }
    },
}
SEED = 0


def resolved(config):
    return resolve(config, "tiny.yaml")


@pytest.fixture(scope="module")
def config():
    return resolved(TINY)


@pytest.fixture(scope="module")
def plan(config):
    """The rows by stage, from a calibration that may do each kind of work only once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "job_seconds", lambda: 1.5)
        return {row["stage"]: row for row in estimate.estimate(config, seconds=0.0, gpu=2.0)}


@pytest.fixture(scope="module")
def made(config, tmp_path_factory):
    """Really runs the first two laps of the chain; counts the FLOPs and bytes of each stage."""
    entry, folder = config["experiments"]["tiny"], tmp_path_factory.mktemp("made")
    clean, observed = folder / "clean.h5", folder / "observations.h5"
    splits = DATASETS.parse(entry["data"]).load(SEED)
    write_hdf5(clean, {f"{k}/x": split.x for k, split in splits.items()}, {})
    observing.corrupt(clean, observed, entry["observations"]["half"], SEED, "tiny")
    run = entry["runs"]["base"]
    sampler = PosteriorSampler.from_config(run["e_step"])
    outside = PosteriorSampler.from_config(outside_e_step(run["e_step"]))
    flops = {}
    with Observations(observed) as observations:
        some = observations.load("train", slice(0, 32))
        gaussian = fit_to_observations(
            some.operator, some.y, some.sigma_y, 4, 2, torch.Generator().manual_seed(0)
        )
        Prior(gaussian, None, {}).save(folder / "gaussian")
        denoiser = build_denoiser(entry["network"], entry["schedule"], (1, 16, 16), seed=0)
        prior = Prior(gaussian, denoiser.eval().requires_grad_(False), {})
        for lap, of in ((1, Prior(gaussian, None, {})), (2, prior)):
            samples = folder / f"samples_{lap}.h5"
            with FlopCounter() as counter:
                e_step(samples, of, observations, EStep(sampler, 16, 2), lap, Job(SEED))
            flops[f"E-step {lap}"] = counter.get_total_flops()
        with FlopCounter() as counter:
            parts = (run["m_step"], entry["network"], entry["schedule"], entry["gaussian"])
            m_step(Lap(2, [samples], *parts), folder / "prior", folder / "losses.csv", Job(SEED))
        flops["M-step"] = counter.get_total_flops()
        with FlopCounter() as counter:
            evaluation = Evaluation(
                read_prior(folder / "prior"),
                observations,
                outside,
                entry["evaluation"],
                entry["data"],
                {"clean": clean},
                Job(SEED),
            )
            _, arrays = evaluate(evaluation, {})
        flops["evaluation"] = counter.get_total_flops()
        write_hdf5(folder / "evaluation.h5", arrays, {})
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    return flops, sizes


@pytest.mark.slow
def test_flops_of_e_steps_are_those_that_run(plan, made):
    # Three laps: an exact one, and two of the sampler.
    flops, _ = made
    network = plan["E-steps"]["flops"] - flops["E-step 1"]
    assert network == pytest.approx(2 * flops["E-step 2"], rel=0.02)


def test_the_spread_and_redrawn_samples_are_planned_where_they_are_drawn():
    entry = copy.deepcopy(TINY["experiments"]["tiny"]) | {"recipe": "fast", "laps": 4}
    entry["e_step"] = {"restart": [4.0, 1.0], "restart_residual": 3.0}
    plan = Experiment(resolved({**TINY, "experiments": {"tiny": entry}}), "tiny")

    def planned(lap):
        """What kinds of work, and with which spread."""
        spread = [w.settings["e_step"]["sampler"]["spread"] for w in of(lap, "posterior")]
        return len(of(lap, "exact")), spread

    def of(lap, kind):
        return [work for work in plan.e_step("base", lap) if work.kind == kind]

    found = [planned(lap) for lap in (1, 2, 3, 4)]
    assert found == [(1, []), (0, ["none"]), (1, ["none"]), (1, ["all"])]


@pytest.mark.slow
def test_what_a_run_draws_with_is_planned_of_its_ceiling_too():
    entry = copy.deepcopy(TINY["experiments"]["tiny"])
    entry["runs"]["base"]["e_step"] = {"sampler": {"steps": 50}}
    plan = Experiment(resolved({**TINY, "experiments": {"tiny": entry}}), "tiny")

    (stage,) = [each for each in plan.stages() if each.name == "evaluation"]

    drawn = sum(count for work, count in stage.work.items() if work.kind == "posterior")
    evaluated = len(evaluated_laps(plan.entry, "base")) + len(plan.ceilings["half"])
    e_step = plan.outside(plan.entry["runs"]["base"]["e_step"])
    assert declared.evaluations(e_step["sampler"]) > 50
    assert drawn == evaluated * plan.evaluated * declared.evaluations(e_step["sampler"])


def test_operators_of_other_sizes_are_another_work():
    entry = resolved(TINY)["experiments"]["tiny"]
    kinds, e_step = Kinds(entry, (1, 8, 8)), entry["e_step"]

    def work(**options):
        return kinds.posterior({"operator": {"name": "fourier", **options}, "sigma_y": 0.1}, e_step)

    assert work(acceleration=2) == work(acceleration=4) != work(acceleration=4, coils=8)


def test_flops_of_m_steps_are_those_that_run(plan, made):
    flops, _ = made
    assert plan["M-steps"]["flops"] == pytest.approx(3 * flops["M-step"], rel=0.03)


@pytest.mark.slow
def test_flops_of_evaluations_are_those_that_run(plan, made):
    # Two laps and the ceiling have a network.
    flops, _ = made
    assert plan["evaluation"]["flops"] == pytest.approx(3 * flops["evaluation"], rel=0.03)


@pytest.mark.slow
def test_bytes_are_those_on_disk(plan, made):
    _, sizes = made
    disk = {stage: row["bytes"] for stage, row in plan.items()}
    assert disk["observations"] == pytest.approx(
        sizes["clean.h5"] + sizes["observations.h5"], rel=0.15
    )
    assert disk["Gaussian fit"] == pytest.approx(sizes["gaussian"], rel=0.1)
    assert disk["E-steps"] == pytest.approx(3 * sizes["samples_2.h5"], rel=0.15)
    assert disk["M-steps"] == pytest.approx(3 * sizes["prior"], rel=0.15)
    assert disk["evaluation"] == pytest.approx(4 * sizes["evaluation.h5"], rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("laps", "evaluated", "restart", "held"),
    [
        (1, [], None, 1),
        (4, [], None, 1),
        (4, [2], None, 2),  # it is evaluated while the third is drawn
        (4, [4], None, 1),  # with the last, which is always evaluated
        (4, [], [4.0, 1.0], 2),  # the third starts from the second's
        (2, [], [4.0, 1.0], 1),  # the second does not start from the first's
    ],
)
def test_samples_that_are_not_kept_take_the_disk_of_one_lap_or_two(
    plan, laps, evaluated, restart, held
):
    lap = plan["E-steps"]["bytes"] / 3
    for keep_samples, count in ((True, laps), (False, held)):
        entry = copy.deepcopy(TINY) | {"keep_samples": keep_samples}
        tiny = entry["experiments"]["tiny"]
        tiny["laps"], tiny["evaluation"]["laps"] = laps, evaluated
        tiny["e_step"]["restart"] = restart
        planned = {stage.name: stage for stage in stages(resolved(entry))}
        assert planned["E-steps"].size == count * lap


@pytest.mark.parametrize(("storage", "final"), [("float16", 1), ("float32", 4), ("float16", 3)])
def test_the_disk_of_samples_follows_their_storage_and_number(storage, final):
    entry = copy.deepcopy(TINY)
    entry["experiments"]["tiny"]["e_step"] |= {"storage": storage, "final": final}
    planned, usual = (
        {stage.name: stage for stage in stages(resolved(given))}["E-steps"]
        for given in (entry, copy.deepcopy(TINY))
    )

    data = resolved(entry)["experiments"]["tiny"]["data"]
    size = 4 * np.prod(DATASETS.parse(data).event_shape())
    laps = entry["experiments"]["tiny"]["laps"]
    stored = size / (2 if storage == "float16" else 1) + 8
    more = (laps - 1 + final) / laps * stored / (size + 8)
    assert planned.size == pytest.approx(more * usual.size)


def test_jobs_are_those_of_the_rules(plan):
    expected = {
        "observations": 2,  # clean data, observations
        "Gaussian fit": 1,
        "E-steps": 3,
        "M-steps": 3,
        "ceiling": 1,
        "evaluation": 4,  # floor, laps 1 and 3, ceiling
    }
    assert {stage: row["jobs"] for stage, row in plan.items()} == expected


def test_time_on_a_gpu_is_its_rate_and_the_jobs_fixed_cost(plan):
    row = plan["M-steps"]
    expected = row["flops"] / 2e12 + 3 * 1.5
    assert row["gpu_hours"] * 3600 == pytest.approx(expected)
    assert plan["Gaussian fit"]["gpu_hours"] is None


def test_time_is_proportional_to_the_work(config):
    longer = copy.deepcopy(config)
    longer["experiments"]["tiny"]["runs"]["base"]["laps"] = 5
    (e_steps,) = (s for s in stages(longer) if s.name == "E-steps")
    (before,) = (s for s in stages(config) if s.name == "E-steps")
    (exact, posterior), (exact_before, posterior_before) = e_steps.work.items(), before.work.items()
    assert exact == exact_before
    assert posterior[0] == posterior_before[0]
    assert posterior[1] == 2 * posterior_before[1]


def test_median_of_the_timed_runs_counts_and_not_the_first(monkeypatch):
    calls = []

    def prepare(settings, device):
        def run(count):
            calls.append(count)
            return count

        return run

    monkeypatch.setitem(calibration.KINDS, "nothing", prepare)
    cost = calibration.measure(Work("nothing", "", {}, 64), 0.5, torch.device("cpu"))
    assert calls[0] == 1
    assert calls[-calibration.REPEATS :] == [64] * calibration.REPEATS
    assert cost.flops == 0
    assert 0 < cost.seconds < 1e-3


def test_what_counting_costs_is_no_cost_of_the_work(monkeypatch):
    """As where the work is many small operations, and its first call finds nothing warm."""
    now, counted = [0.0], []

    class Slow(FlopCounter):
        def __enter__(self):
            counted.append(True)
            return super().__enter__()

        def __exit__(self, *error):
            counted.pop()
            return super().__exit__(*error)

    def prepare(settings, device):
        def run(count):
            now[0] += 0.2 if counted else 1e-3 * count
            return count

        return run

    monkeypatch.setattr(calibration, "FlopCounter", Slow)
    monkeypatch.setitem(calibration.KINDS, "small", prepare)
    work = Work("small", "", {}, 64)
    cost = calibration.measure(work, 0.3, torch.device("cpu"), clock=lambda: now[0])
    assert cost.seconds == pytest.approx(1e-3)


def test_work_longer_than_its_time_is_done_once(monkeypatch):
    calls = []

    def prepare(settings, device):
        def run(count):
            calls.append(count)
            torch.ones(2, 3) @ torch.ones(3, 4)
            return count

        return run

    monkeypatch.setitem(calibration.KINDS, "long", prepare)
    cost = calibration.measure(Work("long", "", {}, 64), 0.0, torch.device("cpu"))
    assert calls == [1]
    assert cost.flops == 2 * 2 * 3 * 4


@pytest.mark.parametrize(
    ("name", "evaluations", "products"),
    [
        ({"name": "mmps", "iterations": 3, "solver": "gmres"}, 1, 3),
        ({"name": "dps", "zeta": 1.0}, 1, 1),
        ({"name": "pgdm"}, 1, 1),
        ({"name": "diffpir", "lmbda": 10.0, "iterations": 5}, 1, 0),
    ],
)
def test_calls_of_a_posterior_sampler(name, evaluations, products):
    assert calls_per_step(name) == (evaluations, products)


def test_counter_counts_attention_and_products_with_the_jacobian():
    unet = {"name": "unet", "channels": [8], "blocks": 1}
    network = NETWORKS.parse({**unet, "attention": {"0": 2}}).build((1, 4, 4))
    plain = NETWORKS.parse(unet).build((1, 4, 4))
    x, counts = torch.randn(1, 1, 4, 4, requires_grad=True), []
    for net in (network, plain):
        with FlopCounter() as counter:
            y = net(x, torch.zeros(1))
        forward = counter.get_total_flops()
        with FlopCounter() as counter:
            torch.autograd.grad(y.sum(), x)
        counts.append((forward, counter.get_total_flops()))
    # Two blocks: query, key, value, their product, its product with the values, the output; and
    # the modulation's two layers.
    pixels, c, e = 16, 8, 256
    block = 2 * pixels * c * 4 * c + 2 * 2 * pixels**2 * c + 2 * (e * e + e * 3 * c)
    assert counts[0][0] - counts[1][0] == 2 * block
    assert counts[0][1] > counts[1][1]


@pytest.mark.slow
def test_paper_is_planned_from_its_config_alone():
    path = ROOT / "config" / "paper.yaml"
    config = resolve(yaml.safe_load(path.read_text(encoding="utf-8")), path.name)
    data = config["experiments"]["cifar10"]["data"]
    assert DATASETS.parse(data).event_shape() == (3, 32, 32)
    assert DATASETS.parse(data).counts() == {"train": 50000, "validation": 10000, "test": 10000}
    planned = list(stages(config))
    named = [s for s in planned if (s.entry, s.run) == ("cifar10", "missing_75")]
    e_steps = next(s for s in named if s.name == "E-steps")
    _, evaluations = e_steps.work.values()
    assert evaluations == 31 * 60000 * 257
    assert e_steps.size == 32 * 60000 * (4 * 3072 + 8)
    assert e_steps.jobs == 32 * (config["shards"] + 1)  # one gathers them
    assert len({work for stage in planned for work in stage.work}) < 40


def test_size_of_data_by_name(tmp_path):
    config = resolved(TINY)
    assert DATASETS.parse(config["experiments"]["tiny"]["data"]).event_shape() == (1, 16, 16)
    digits = {"name": "digits", "validation": 150, "test": 450}
    counts = DATASETS.parse(digits).counts()
    real = DATASETS.parse(digits).load(SEED)
    assert DATASETS.parse(digits).event_shape() == real["train"].x.shape[1:]
    assert counts == {name: len(split.x) for name, split in real.items()}
    fastmri = {"name": "fastmri", "path": str(tmp_path / "none.tar"), "validation_path": None}
    fastmri |= {"validation": 99, "test": 100, "slices": [10, 40], "size": 320}
    assert DATASETS.parse(fastmri).counts() == {"train": 774 * 30, "validation": 2970, "test": 3000}


def test_own_observations_are_planned_from_their_file(config, tmp_path):
    path, entry = tmp_path / "own.h5", copy.deepcopy(TINY["experiments"]["tiny"])
    y = np.random.default_rng(0).standard_normal((100, 1, 16, 16)).astype(np.float32)
    y[:, :, ::2] = np.nan
    own.write_observations(path, {"train": y, "test": y[:20]}, "mask", 0.1)
    entry["data"] = {"name": "hdf5", "path": str(path)}
    entry["observations"] = {"half": {}}
    del entry["evaluation"]["metrics"]
    resolved_entry = resolved({"device": "cpu", "experiments": {"mine": entry}})

    data = resolved_entry["experiments"]["mine"]["data"]
    assert DATASETS.parse(data).event_shape() == (1, 16, 16)
    assert DATASETS.parse(data).counts() == {"train": 95, "validation": 5, "test": 20}
    planned = {stage.name: stage for stage in stages(resolved_entry)}
    assert "ceiling" not in planned
    assert planned["evaluation"].jobs == 3
    work, draws = next(iter(planned["E-steps"].work.items()))
    assert draws == 2 * 100
    cost = calibration.measure(work, 0.0, torch.device("cpu"))
    assert cost.seconds > 0


def test_own_observations_of_an_operator_that_the_config_names_are_planned(config, tmp_path):
    path, entry = tmp_path / "own.h5", copy.deepcopy(TINY["experiments"]["tiny"])
    y = np.random.default_rng(0).standard_normal((20, 1, 16, 16)).astype(np.float32)
    own.write_observations(path, {"train": y}, "mask", 0.1)
    set_attributes(path, operator=None)
    entry["data"] = {"name": "hdf5", "path": str(path), "validation": 0.1, "test": 0.2}
    entry["observations"] = {"half": {"operator": {"name": "mask"}}}
    del entry["evaluation"]["metrics"]
    resolved_entry = resolved({"device": "cpu", "experiments": {"mine": entry}})

    e_steps = next(s for s in stages(resolved_entry) if s.name == "E-steps")
    work, draws = next(iter(e_steps.work.items()))
    assert draws == 2 * (14 + 2)
    assert calibration.measure(work, 0.0, torch.device("cpu")).seconds > 0


def test_validation_losses_are_planned_as_often_as_they_are_computed():
    assert declared.CHUNK == CHUNK
    assert (declared.ERROR_LEVELS, declared.ERROR_SAMPLES) == (loss.LEVELS, loss.SAMPLES)


@pytest.fixture(scope="module")
def posteriors(config, tmp_path_factory):
    """Really draws posterior samples of a file, by a prior of the config's network."""
    folder = tmp_path_factory.mktemp("posteriors")
    y = np.random.default_rng(0).standard_normal((200, 1, 16, 16)).astype(np.float32)
    y[:, :, ::2] = np.nan
    own.write_observations(folder / "new.h5", {"train": y}, "mask", 0.1)
    entry = config["experiments"]["tiny"]
    denoiser = build_denoiser(entry["network"], entry["schedule"], (1, 16, 16), seed=0)
    gaussian = calibration._gaussian((1, 16, 16), 4, torch.device("cpu"))
    card = {key: entry[key] for key in ("network", "schedule", "data")}
    prior = Prior(gaussian, denoiser, {**card, "e_step": entry["runs"]["base"]["e_step"]})
    prior.save(folder / "prior.safetensors")
    Prior(gaussian, None, {}).save(folder / "gaussian.safetensors")
    flops = {}
    for name in ("prior", "gaussian"):
        with (
            Observations(folder / "new.h5") as observations,
            FlopCounter() as counter,
        ):
            output, loaded = (
                folder / f"{name}.h5",
                load_prior(folder / f"{name}.safetensors"),
            )
            sampler = {"name": "ddim", "steps": 3}
            write_posteriors(output, loaded, observations, 5, batch=100, sampler=sampler)
        flops[name] = counter.get_total_flops()
    return folder, flops


def test_a_timed_training_is_not_judged():
    # Of one value, a few steps at random noise can seem to diverge.
    settings = {
        "m_step": {"steps": 1, "batch": 4, "learning_rate": 1e3, "learning_rate_final": 1e3},
        "network": {"name": "residual_mlp", "width": 32, "blocks": 1},
        "schedule": {"sigma_min": 0.01, "sigma_max": 20.0},
        "shape": (1, 1, 1),
    }
    run = calibration.KINDS["training"](settings, torch.device("cpu"))
    torch.manual_seed(0)
    assert all(run(1) == 1 + 2 / 3 for _ in range(50))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prior", "drawn_by"),
    [
        ("prior.safetensors", "prior"),
        ({"experiment": "tiny", "run": "base"}, "prior"),
        ("gaussian.safetensors", "gaussian"),
        ({"experiment": "tiny", "run": "base", "lap": 0}, "gaussian"),
    ],
)
def test_posteriors_are_planned_from_their_file(posteriors, prior, drawn_by):
    folder, flops = posteriors
    entry = {
        "prior": str(folder / prior) if isinstance(prior, str) else prior,
        "observations": str(folder / "new.h5"),
        "samples": 5,
        "batch": 100,
        "sampler": {"name": "ddim", "steps": 3},
    }
    config = resolved({**TINY, "posterior": {"new": entry}})
    *_, stage = stages(config)

    assert (stage.entry, stage.name, stage.jobs) == ("new", "posteriors", 1)
    assert stage.network == (drawn_by == "prior")
    ((work, count),) = stage.work.items()
    cost = calibration.measure(work, 1.0, torch.device("cpu"))
    # The exact sampler's iterations depend on what is sampled.
    assert count * cost.flops == pytest.approx(flops[drawn_by], rel=0.05 if stage.network else 0.3)
    # Chunks of 64 KiB are written whole.
    assert stage.size == pytest.approx((folder / f"{drawn_by}.h5").stat().st_size, rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["prior", "observations"])
def test_posteriors_of_files_that_are_not_there_cannot_be_planned(posteriors, missing):
    folder, _ = posteriors
    entry = {"prior": str(folder / "prior.safetensors"), "observations": str(folder / "new.h5")}
    config = resolved({"posterior": {"new": {**entry, missing: "none.h5"}}})

    with pytest.raises(DiemError, match=rf"^posterior\.new\.{missing}: none\.h5"):
        estimate.estimate(config)


def test_predictions_of_hidden_halves_are_planned(config):
    def draws(metrics):
        entry = copy.deepcopy(TINY)
        entry["experiments"]["tiny"]["evaluation"] |= {
            "metrics": metrics,
            "predicted_observations": 6,
        }
        planned = {stage.name: stage for stage in stages(resolved(entry))}
        *_, floor = planned["evaluation"].work.values()
        return floor

    assert draws(["psnr"]) == 4 * 3
    assert draws(["prediction"]) == (4 + 2 * 6) * 3


def test_unknown_gpu_is_refused(config):
    with pytest.raises(DiemError, match=r"estimate_gpu: 'H20' is unknown.*H200"):
        estimate.estimate(config, gpu="H20")


def test_table_for_the_eye(plan):
    made = estimate.readable(list(plan.values()))
    assert [cell for line in made.header for cell in line][-2:] == ["Time at 2 TFLOP/s", "Disk"]
    assert made.body[-1][0] == "all"
    assert made.body[-1][3] == "14"
    assert math.prod(len(row) == len(made.header) for row in made.body)
    assert "E-steps" in estimate.text(made)


def test_restoration_is_planned_and_measured():
    config = resolved(
        {
            "device": "cpu",
            "restoration": {
                "restored": {
                    "data": {
                        "name": "photographs",
                        "size": 12,
                        "train": 52,
                        "validation": 8,
                        "test": 8,
                    },
                    "train": {
                        "network": {"name": "residual_mlp", "width": 8, "blocks": 1},
                        "m_step": {"steps": 20, "batch": 16, "learning_rate": 0.001},
                    },
                    "tasks": {"hole": {"operator": {"name": "mask", "box": 4}, "sigma_y": 0.1}},
                    "methods": {"ours": {"name": "mmps", "iterations": 3}},
                    "steps": [2, 10],
                    "images": 4,
                    "block": 2,
                }
            },
        }
    )
    data, prior, method = stages(config)
    assert (data.name, prior.name, method.name, method.run) == (
        "observations",
        "prior",
        "restoration",
        "ours",
    )
    assert prior.jobs == method.jobs == 1
    (both, products), (alone, rest) = method.work.items()
    assert (products, rest) == (4 * 12 * 3, 4 * 12 * (1 - 3))
    costs = [calibration.measure(work, 0.0, torch.device("cpu")) for work in (both, alone)]
    assert costs[0].flops > costs[1].flops > 0
    assert list(prior.work.values()) == [20 * 16, 8 * 2 + 24 * 8]


def test_architecture_has_the_pretrained_shape():
    with torch.device("meta"):
        denoiser = architecture("ffhq_256x256")
    assert sum(p.numel() for p in denoiser.parameters()) == 93563910
