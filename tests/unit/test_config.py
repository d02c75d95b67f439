"""The configuration: its defaults, its runs, and one sentence for each bad input."""

import copy
import math
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

from diem.components import merge
from diem.config.resolve import RECIPES, resolve
from diem.config.targets import NEEDED, nothing_told, targets, targets_by_name
from diem.data import ingest as own
from diem.em.laps import training_of_lap
from diem.em.training import Training
from diem.errors import DiemError

ROOT = Path(__file__).parents[2]
SOURCE = "some.yaml"

MANIFOLD = {
    "data": {"name": "manifold", "dimensions": 5},
    "observations": {
        "plain": {"operator": {"name": "projection", "rows": 2}, "sigma_y": 0.01},
        "masked": {"operator": {"name": "mask", "missing": 0.5}, "sigma_y": 0.01},
    },
    "network": {"name": "mlp"},
    "schedule": {"sigma_min": 0.001, "sigma_max": 10.0},
    "laps": 4,
    "e_step": {"sampler": {"name": "pc", "steps": 8}, "iterations": 3},
    "m_step": {"steps": 100},
    "evaluation": {"metrics": ["distance_to_manifold"]},
    "runs": {
        "base": {"observations": "plain"},
        "other": {
            "observations": "masked",
            "label": "The other",
            "laps": 2,
            "e_step": {"sampler": {"steps": 16}, "covariance": "cov_x"},
            "m_step": {"batch": 32},
        },
    },
}
DIGITS = {
    "data": {"name": "digits"},
    "observations": {"half": {"operator": {"name": "mask", "missing": 0.5}, "sigma_y": 0.01}},
    "network": {"name": "unet", "channels": [8], "attention": {"0": 2}},
    "laps": 1,
    "runs": {"base": {"observations": "half"}},
}
CONFIG = {"seed": 3, "experiments": {"line": MANIFOLD, "digits": DIGITS}}
LINE = "experiments.line"


@pytest.fixture
def config():
    return copy.deepcopy(CONFIG)


def put(config, key, value):
    """Sets ``a.b.c`` of a nested mapping; makes what is missing on the way."""
    *path, last = key.split(".")
    for part in path:
        config = config.setdefault(part, {})
    config[last] = value


def drop(config, key):
    *path, last = key.split(".")
    for part in path:
        config = config[part]
    del config[last]


def refused(config):
    """Returns the sentence with which a configuration is refused, and asserts that it is one."""
    with pytest.raises(DiemError) as error:
        resolve(config, SOURCE)
    message = str(error.value)
    assert message.startswith(f"{SOURCE}: ")
    assert message.endswith(".")
    assert not message.endswith("..")
    assert "\n" not in message
    assert len(message) < 500
    return message.removeprefix(f"{SOURCE}: ")


# What is filled in


def test_steps_of_a_run_take_the_place_of_epochs_of_the_experiment(config):
    (name,) = config["experiments"]["digits"]["runs"]
    put(config, "experiments.digits.m_step", {"epochs": 2, "batch": 16})
    put(config, f"experiments.digits.runs.{name}.m_step", {"steps": 5})
    m_step = resolve(config, SOURCE)["experiments"]["digits"]["runs"][name]["m_step"]
    assert (m_step["steps"], m_step["epochs"], m_step["batch"]) == (5, None, 16)

    drop(config, f"experiments.digits.runs.{name}.m_step.steps")
    m_step = resolve(config, SOURCE)["experiments"]["digits"]["runs"][name]["m_step"]
    assert m_step["epochs"] == 2


def test_a_metric_is_asked_for_once(config):
    twice = ["residual", {"name": "prediction", "divisions": 2}, "prediction"]
    put(config, "experiments.digits.evaluation.metrics", twice)

    assert "must be a list without repetitions" in refused(config)


def test_defaults_of_every_level(config):
    resolved = resolve(config, SOURCE)

    assert resolved["seed"] == 3
    assert (resolved["shards"], resolved["device"], resolved["results"]) == (1, "auto", "results")
    line, digits = resolved["experiments"]["line"], resolved["experiments"]["digits"]
    assert line["data"] == {
        "name": "manifold",
        "train": 65536,
        "validation": 16384,
        "test": 16384,
        "dimensions": 5,
        "alpha": 3.0,
        "epsilon": 0.001,
    }
    assert digits["data"] == {"name": "digits", "validation": 150, "test": 450}
    assert line["network"] == {"name": "mlp", "hidden": [256, 256, 256], "embedding": 64}
    assert digits["network"]["blocks"] == 5
    assert digits["network"]["attention"] == {"0": 2}
    assert digits["schedule"] == {"sigma_min": 0.001, "sigma_max": 100.0}
    assert digits["gaussian"] == {
        "rank": 63,
        "iterations": 16,
        "shrinkage": 0.0,
        "observations": 16384,
        "every": 1,
    }
    assert line["gaussian"]["rank"] == 4
    assert digits["evaluation"]["sampler"] == {
        "name": "ddim",
        "steps": 256,
        "spacing": "log_linear",
    }


def test_runs_hold_all_settings_of_their_own(config):
    runs = resolve(config, SOURCE)["experiments"]["line"]["runs"]

    base, other = runs["base"], runs["other"]
    assert set(base) == set(other) == {"observations", "label", "laps", "e_step", "m_step"}
    assert (base["label"], base["laps"], other["label"], other["laps"]) == (
        "base",
        4,
        "The other",
        2,
    )
    # What a run does not name is the experiment's, mapping by mapping; then the defaults.
    assert base["e_step"]["covariance"] == "tweedie"
    assert other["e_step"]["covariance"] == "cov_x"
    assert base["e_step"]["iterations"] == other["e_step"]["iterations"] == 3
    assert base["e_step"]["sampler"]["name"] == other["e_step"]["sampler"]["name"] == "pc"
    assert base["e_step"]["sampler"]["steps"] == 8
    assert other["e_step"]["sampler"]["steps"] == 16
    assert other["e_step"]["sampler"]["spacing"] == "log_linear"
    assert (base["m_step"]["steps"], other["m_step"]["steps"]) == (100, 100)
    assert (base["m_step"]["batch"], other["m_step"]["batch"]) == (256, 32)


def test_a_run_may_switch_off_what_the_experiment_switches_on(config):
    put(config, f"{LINE}.e_step.restart", [4.0, 1.0])
    put(config, f"{LINE}.e_step.limit", 2.0)
    put(config, f"{LINE}.runs.other.e_step.restart", None)

    runs = resolve(config, SOURCE)["experiments"]["line"]["runs"]

    assert runs["base"]["e_step"]["restart"] == [4.0, 1.0]
    assert runs["other"]["e_step"]["restart"] is None
    assert runs["other"]["e_step"]["limit"] == 2.0


def test_the_fast_recipe_fills_what_the_experiment_leaves_open(config):
    config["experiments"]["line"]["recipe"] = "fast"
    put(config, f"{LINE}.e_step", {"sampler": {"steps": 5}, "restart": None})
    put(config, f"{LINE}.m_step", {"ema": 0.5})
    fast = RECIPES["fast"]

    run = resolve(config, "c")["experiments"]["line"]["runs"]["base"]

    assert run["e_step"]["sampler"]["steps"] == 5
    assert run["e_step"]["sampler"]["spacing"] == fast["e_step"]["sampler"]["spacing"]
    assert run["e_step"]["restart"] is None
    assert run["e_step"]["limit"] == fast["e_step"]["limit"]
    assert run["m_step"]["ema"] == 0.5
    assert run["m_step"]["final"] == fast["m_step"]["final"]


def test_without_a_recipe_the_papers_is_meant(config):
    named = copy.deepcopy(config)
    named["experiments"]["line"]["recipe"] = "paper"

    assert resolve(config, "c") == resolve(named, "c")


@pytest.mark.parametrize(("steps", "epochs"), [(10, None), (10, 4)])
def test_the_first_lap_and_the_last_train_longer(steps, epochs):
    entry = {"steps": steps, "epochs": epochs, "batch": 2}
    entry |= {"first": 2, "final": 3, "final_decay": False, "drop_outside": 3.0, "drop_from": 2}
    length = "epochs" if epochs else "steps"

    trainings = [training_of_lap(entry, lap, lap == 5) for lap in range(1, 6)]

    assert [training[length] // entry[length] for training in trainings] == [2, 1, 1, 1, 3]
    assert training_of_lap(entry, 1, True)[length] == 3 * entry[length]
    bounds = [training["drop_outside"] for training in trainings]
    assert bounds == [None, 3.0, 3.0, 3.0, 3.0]
    assert (trainings[0]["epochs"] is None) == (epochs is None)


@pytest.mark.parametrize("decay", [True, False])
def test_the_rate_falls_to_zero_in_the_last_lap_alone(decay):
    entry = {"steps": 10, "epochs": None, "batch": 2, "first": 1, "final": 1, "final_decay": decay}
    entry |= {"drop_outside": None, "drop_from": 1}
    entry |= {"learning_rate": 0.1, "learning_rate_final": None}

    rates = [
        Training.from_config(training_of_lap(entry, lap, lap == 5), 20).rate(step)
        for lap, step in ((4, 0), (4, 9), (5, 0), (5, 9))
    ]

    assert rates == [0.1, 0.1, 0.1, 0.0 if decay else 0.1]


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.yaml")), ids=lambda p: p.name)
def test_the_configurations_of_benchmarks_are_valid(path):
    resolved = resolve(yaml.safe_load(path.read_text(encoding="utf-8")), str(path))

    assert resolved["experiments"]


def test_the_configuration_of_ones_own_data_is_valid(tmp_path):
    page = (ROOT / "docs" / "your_own_data.md").read_text(encoding="utf-8")
    (text,) = (part.split("```")[0] for part in page.split("```yaml\n")[1:])
    config = yaml.safe_load(text)
    path = tmp_path / "observations.h5"
    own.write_observations(path, {"train": np.ones((40, 1, 32, 32))}, sigma_y=0.1)
    config["experiments"]["sky"]["data"]["path"] = str(path)

    assert resolve(config, "sky.yaml")["experiments"]["sky"]["laps"] == 6


def test_the_configuration_that_was_read_is_not_changed(config):
    before = copy.deepcopy(config)

    resolved = resolve(config, SOURCE)
    resolved["experiments"]["line"]["runs"]["base"]["e_step"]["sampler"]["steps"] = 99

    assert config == before
    assert resolved["experiments"]["line"]["runs"]["other"]["e_step"]["sampler"]["steps"] == 16


def test_resolving_again_changes_nothing(config):
    once = resolve(config, SOURCE)

    assert resolve(once, SOURCE) == once


BESIDE = {"paper_evidence.yaml": "paper.yaml"}
"""Configurations that change others, given beside them."""

WHOLE = [p for p in sorted((ROOT / "config").glob("*.yaml")) if p.name not in BESIDE]


@pytest.mark.parametrize("name", BESIDE)
def test_evidence_changes_no_prior_of_the_paper(name):
    changes, base = (
        yaml.safe_load((ROOT / "config" / file).read_text(encoding="utf-8"))
        for file in (name, BESIDE[name])
    )

    with_evidence, plain = resolve(merge(base, changes), name), resolve(base, BESIDE[name])

    assert set(changes["experiments"]) == set(plain["experiments"])
    for key, entry in with_evidence["experiments"].items():
        before, evaluation = plain["experiments"][key], entry["evaluation"]
        assert {name for name in entry if entry[name] != before[name]} == {"evaluation", "figures"}
        assert set(before["evaluation"]["metrics"]) < set(evaluation["metrics"])
        assert set(before["figures"]) < set(entry["figures"])
        assert "calibration" in evaluation["metrics"] and "calibration" in entry["figures"]
        assert evaluation["test_observations"] >= 64 and evaluation["posterior_samples"] >= 32
    assert targets_by_name(with_evidence, [])["evidence"]
    assert not targets_by_name(plain, [])["evidence"]


@pytest.mark.parametrize("path", WHOLE, ids=lambda p: p.name)
def test_the_configurations_that_come_with_diem_are_valid(path):
    with path.open(encoding="utf-8") as file:
        once = resolve(yaml.safe_load(file), path.name)

    assert resolve(once, path.name) == once
    assert yaml.safe_load(yaml.safe_dump(once)) == once


def test_merge():
    base = {"a": {"b": 1, "c": {"d": 2}}, "e": [1, 2], "f": {"g": 1}, "h": 1}
    override = {"a": {"c": {"d": 3, "x": 4}}, "e": [5], "f": None, "h": {"i": 1}}

    merged = merge(base, override)

    assert merged == {
        "a": {"b": 1, "c": {"d": 3, "x": 4}},
        "e": [5],
        "f": None,
        "h": {"i": 1},
    }
    assert base["a"]["c"] == {"d": 2}
    merged["e"].append(6)
    merged["a"]["c"]["x"] = 5
    assert override == {"a": {"c": {"d": 3, "x": 4}}, "e": [5], "f": None, "h": {"i": 1}}


# Unknown keys

UNKNOWN = [
    ("sede", "seed"),
    ("experiment", "experiments"),
    (f"{LINE}.netwrok", "network"),
    (f"{LINE}.estep", "e_step"),
    (f"{LINE}.data.dimension", "dimensions"),
    (f"{LINE}.observations.plain.sigma", "sigma_y"),
    (f"{LINE}.observations.plain.operator.row", "rows"),
    (f"{LINE}.observations.masked.operator.mising", "missing"),
    (f"{LINE}.network.hiden", "hidden"),
    (f"{LINE}.schedule.sigma_mn", "sigma_min"),
    (f"{LINE}.gaussian.ranks", "rank"),
    (f"{LINE}.e_step.covarience", "covariance"),
    (f"{LINE}.e_step.sampler.step", "steps"),
    (f"{LINE}.m_step.learning-rate", "learning_rate"),
    (f"{LINE}.evaluation.metric", "metrics"),
    (f"{LINE}.runs.base.observation", "observations"),
    (f"{LINE}.runs.base.e_step.iteration", "iterations"),
    (f"{LINE}.runs.other.m_step.batchsize", "batch"),
    ("experiments.digits.network.chanels", "channels"),
]


@pytest.mark.parametrize(("key", "meant"), UNKNOWN)
def test_misspelt_keys_name_the_nearest(config, key, meant):
    put(config, key, 1)

    message = refused(config)

    assert message.startswith(f"{key} is unknown")
    assert f"did you mean {meant!r}" in message


@pytest.mark.parametrize(
    "key", ["zzz", f"{LINE}.zzz", f"{LINE}.e_step.zzz", f"{LINE}.network.zzz", f"{LINE}.data.zzz"]
)
def test_unknown_keys_are_told_with_what_is_known(config, key):
    put(config, key, 1)

    message = refused(config)

    assert message.startswith(f"{key} is unknown (known: ")


def test_a_key_of_another_kind_of_data(config):
    # `dimensions` is a key, but not of the digits.
    put(config, "experiments.digits.data.dimensions", 5)

    assert refused(config).startswith("experiments.digits.data.dimensions is unknown")


# Unknown names

NAMES = [
    (f"{LINE}.data.name", "manifod", "manifold"),
    ("experiments.digits.data.name", "digit", "digits"),
    (f"{LINE}.observations.plain.operator.name", "projektion", "projection"),
    (f"{LINE}.observations.plain.operator.name", "Mask", "mask"),
    (f"{LINE}.network.name", "mpl", "mlp"),
    (f"{LINE}.e_step.sampler.name", "dpm", "ddpm"),
    (f"{LINE}.e_step.sampler.spacing", "loglinear", "log_linear"),
    (f"{LINE}.runs.other.e_step.sampler.name", "ddimm", "ddim"),
    (f"{LINE}.e_step.covariance", "tweedy", "tweedie"),
    (f"{LINE}.runs.other.e_step.covariance", "covx", "cov_x"),
    (f"{LINE}.evaluation.sampler.name", "ddimm", "ddim"),
    (f"{LINE}.runs.base.observations", "plan", "plain"),
]


@pytest.mark.parametrize(("key", "value", "meant"), NAMES)
def test_unknown_names_name_the_nearest(config, key, value, meant):
    put(config, key, value)

    message = refused(config)

    assert message.startswith(key)
    assert repr(value) in message
    assert f"did you mean {meant!r}" in message


@pytest.mark.parametrize("value", ["psnrr", "nll"])
def test_unknown_metrics(config, value):
    put(config, f"{LINE}.evaluation.metrics", ["psnr", value])

    message = refused(config)

    assert message.startswith(f"{LINE}.evaluation.metrics.1")
    assert repr(value) in message
    assert "psnr" in message


# Missing keys

MISSING = [
    f"{LINE}.data",
    f"{LINE}.observations",
    f"{LINE}.network",
    f"{LINE}.laps",
    f"{LINE}.runs",
    f"{LINE}.observations.plain.operator",
    f"{LINE}.observations.plain.sigma_y",
    f"{LINE}.observations.plain.operator.rows",
    f"{LINE}.observations.masked.operator.missing",
    f"{LINE}.runs.base.observations",
]


@pytest.mark.parametrize("key", MISSING)
def test_missing_keys(config, key):
    drop(config, key)
    parent, _, last = key.rpartition(".")

    assert refused(config) == f"{parent or 'the configuration'} lacks the key {last!r}."


@pytest.mark.parametrize(
    "key",
    [
        f"{LINE}.data.name",
        f"{LINE}.network.name",
        "experiments.digits.network.name",
        f"{LINE}.observations.plain.operator.name",
    ],
)
def test_a_missing_name_is_told_before_what_depends_on_it(config, key):
    # The other keys are right: they are those of the name that is missing.
    drop(config, key)

    assert refused(config) == f"{key.rpartition('.')[0]} lacks the key 'name'."


# Wrong types and values

TYPES = [
    ("seed", "one"),
    ("seed", 1.5),
    ("seed", True),
    ("seed", -1),
    ("seed", None),
    ("shards", 0),
    ("threads", "all"),
    ("device", "gpu"),
    ("device", 0),
    ("results", ""),
    ("checkpoint_seconds", -1),
    ("on_divergence", "retry"),
    ("cache_mb", -1),
    ("keep_samples", "last"),
    (f"{LINE}.laps", 0),
    (f"{LINE}.laps", 2.5),
    (f"{LINE}.laps", 1000),
    (f"{LINE}.laps", "4"),
    (f"{LINE}.data.dimensions", 1),
    (f"{LINE}.data.epsilon", 1.0),
    (f"{LINE}.data.train", [1, 2]),
    (f"{LINE}.observations.plain.operator.rows", 0),
    (f"{LINE}.observations.plain.sigma_y", 0),
    (f"{LINE}.observations.plain.sigma_y", -0.1),
    (f"{LINE}.observations.plain.sigma_y", "x"),
    (f"{LINE}.observations.plain.sigma_y", []),
    (f"{LINE}.observations.plain.sigma_y", None),
    (f"{LINE}.observations.plain.sigma_y", {"std": 1}),
    (f"{LINE}.network.hidden", 256),
    (f"{LINE}.network.hidden", []),
    (f"{LINE}.network.embedding", 63),
    (f"{LINE}.schedule.sigma_min", 0),
    (f"{LINE}.gaussian.rank", -1),
    (f"{LINE}.e_step.iterations", 0),
    (f"{LINE}.e_step.limit", 0),
    (f"{LINE}.e_step.restart", 1.0),
    (f"{LINE}.e_step.restart", [1.0]),
    (f"{LINE}.e_step.restart", [3.0, 2.0, 1.0]),
    (f"{LINE}.e_step.sampler.steps", 0),
    (f"{LINE}.e_step.sampler.delta", 1.5),
    (f"{LINE}.m_step.ema", 1),
    (f"{LINE}.m_step.learning_rate", "fast"),
    (f"{LINE}.m_step.warm_start", "yes"),
    (f"{LINE}.evaluation.metrics", "psnr"),
    (f"{LINE}.evaluation.metrics", ["psnr", "psnr"]),
    (f"{LINE}.evaluation.laps", [0]),
    (f"{LINE}.runs.base.label", ""),
    (f"{LINE}.runs.base.laps", "two"),
    (f"{LINE}.figures", ["evolutions"]),
]


@pytest.mark.parametrize(("key", "value"), TYPES)
def test_values_that_cannot_be(config, key, value):
    put(config, key, value)

    message = refused(config)

    assert message.startswith(key)
    # The value, or the one of its parts that is wrong.
    parts = value if isinstance(value, list) and value else [value]
    assert any(repr(part) in message for part in parts)


@pytest.mark.parametrize("missing", [0, 1, -0.1, 1.5, 0.0, 1.0, "half", None, [0.5]])
def test_missing_rates_outside_of_zero_to_one(config, missing):
    key = "experiments.digits.observations.half.operator.missing"
    put(config, key, missing)

    message = refused(config)

    assert message.startswith(f"{key} is {missing!r}")


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    "key",
    [
        f"{LINE}.observations.plain.sigma_y",
        f"{LINE}.observations.masked.operator.missing",
        f"{LINE}.schedule.sigma_max",
        f"{LINE}.m_step.learning_rate",
    ],
)
def test_numbers_that_are_none(config, key, value):
    # YAML writes them .nan and .inf.
    put(config, key, value)

    assert refused(config).startswith(key)


@pytest.mark.parametrize("value", [math.nan, math.inf, -3, 0])
def test_rates_of_a_gpu_that_are_none(config, value):
    put(config, "estimate_gpu", value)

    assert refused(config).startswith(f"estimate_gpu is {value}, ")


@pytest.mark.parametrize("value", [math.nan, 0.0, -1.0, "x"])
def test_one_of_several_noises(config, value):
    put(config, f"{LINE}.observations.plain.sigma_y", [0.1, value])

    assert refused(config).startswith(f"{LINE}.observations.plain.sigma_y.1")


@pytest.mark.parametrize("key", [f"{LINE}.laps", f"{LINE}.m_step.steps", "seed"])
def test_whole_numbers_written_with_a_point_become_integers(config, key):
    # JSON schema takes 4.0 for an integer; range(4.0) does not.
    put(config, key, 4.0)

    value = resolve(config, SOURCE)
    for part in key.split("."):
        value = value[part]
    assert isinstance(value, int)


def test_numbers_without_a_point_are_numbers(config):
    # YAML reads 1e-3 as text, and 1.0e-3 as a number.
    text = yaml.safe_load("1e-3")
    assert text == "1e-3"
    put(config, f"{LINE}.m_step.learning_rate", text)
    put(config, f"{LINE}.observations.plain.sigma_y", "1E+1")

    made = resolve(config, SOURCE)

    for key, value in (("m_step.learning_rate", 1e-3), ("observations.plain.sigma_y", 10.0)):
        found = made
        for part in f"{LINE}.{key}".split("."):
            found = found[part]
        assert found == value


# Mappings that are none

NO_MAPPINGS = [None, [], [1, 2], "text", 3]


@pytest.mark.parametrize("value", NO_MAPPINGS)
@pytest.mark.parametrize(
    "key",
    [
        "experiments",
        LINE,
        f"{LINE}.data",
        f"{LINE}.observations",
        f"{LINE}.observations.plain",
        f"{LINE}.network",
        f"{LINE}.schedule",
        f"{LINE}.e_step",
        f"{LINE}.e_step.sampler",
        f"{LINE}.runs",
        f"{LINE}.runs.base",
        f"{LINE}.runs.other.e_step",
    ],
)
def test_what_is_no_mapping(config, key, value):
    put(config, key, value)

    message = refused(config)

    assert message.startswith(f"{key} is {value!r}")


@pytest.mark.parametrize("key", [f"{LINE}.observations", f"{LINE}.runs"])
def test_what_is_empty(config, key):
    put(config, key, {})

    assert refused(config).startswith(key)


def test_a_configuration_that_is_empty():
    assert "experiments" in refused({})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("experiments", [{"name": str(i)} for i in range(100)]),
        (f"{LINE}.e_step.iterations", list(range(1000))),
        (f"{LINE}.evaluation.metrics", ["psnr"] * 100),
        (f"{LINE}.observations.plain.operator.name", "mask" * 200),
        (f"{LINE}.runs.base.observations", "plain" * 200),
        (f"{LINE}.network.name", "first\nsecond"),
        (f"{LINE}.e_step.first\nsecond", 1),
        (f"{LINE}.e_step.{'long' * 200}", 1),
        (f"{LINE}.runs.base.label", {str(i): i for i in range(200)}),
    ],
)
def test_a_long_value_is_not_told_at_length(config, key, value):
    put(config, key, value)

    refused(config)


@pytest.mark.parametrize("name", ["with space", "a/b", "../x", "", "-x", "ä", "a.b"])
@pytest.mark.parametrize("where", ["experiments", f"{LINE}.runs", f"{LINE}.observations"])
def test_names_that_make_no_path(config, where, name):
    parent = config
    for part in where.split("."):
        parent = parent[part]
    parent[name] = copy.deepcopy(next(iter(parent.values())))

    message = refused(config)

    assert message.startswith(where)
    assert repr(name) in message


@pytest.mark.parametrize("where", ["experiments", f"{LINE}.runs", f"{LINE}.observations"])
def test_names_that_yaml_reads_as_numbers(config, where):
    # `50:` is a number to YAML, but names are parts of paths.
    parent = config
    for part in where.split("."):
        parent = parent[part]
    parent[50] = copy.deepcopy(next(iter(parent.values())))

    try:
        resolved = resolve(config, SOURCE)
    except DiemError as error:
        assert str(error).startswith(f"{SOURCE}: {where}")
        assert "50" in str(error)
    else:
        for part in where.split("."):
            resolved = resolved[part]
        assert "50" in resolved


# Keys that must fit each other


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (10.0, 0.001)])
def test_levels_that_do_not_ascend(config, low, high):
    put(config, f"{LINE}.schedule", {"sigma_min": low, "sigma_max": high})

    message = refused(config)

    assert message.startswith(f"{LINE}.schedule.sigma_min")
    assert "sigma_max" in message


def test_restarts_that_rise(config):
    put(config, f"{LINE}.e_step.restart", [1.0, 2.0])

    assert "e_step.restart is [1.0, 2.0], and must not rise" in refused(config)


@pytest.mark.parametrize("restart", [[11.0, 1.0], [1.0, 11.0], [1.0, 0.001], [0.0001, 1.0]])
@pytest.mark.parametrize("where", ["e_step", "runs.other.e_step"])
def test_restarts_outside_of_the_schedule(config, where, restart):
    put(config, f"{LINE}.{where}.restart", restart)

    message = refused(config)

    assert message.startswith(f"{LINE}.runs.{'other' if 'other' in where else 'base'}.e_step")
    assert "restart" in message
    assert "schedule.sigma_max" in message
    assert any(str(level) in message for level in restart)


def test_restarts_within_the_schedule(config):
    put(config, f"{LINE}.e_step.restart", [10.0, 0.01])

    resolve(config, SOURCE)


@pytest.mark.parametrize(
    ("experiment", "metric"),
    [
        ("line", "frechet_distance"),
        ("digits", "distance_to_manifold"),
        ("digits", "fid"),
        ("line", "inception_score"),
    ],
)
def test_metrics_that_do_not_fit_the_data(config, experiment, metric):
    put(config, f"experiments.{experiment}.evaluation.metrics", ["psnr", metric])

    message = refused(config)

    assert message.startswith(f"experiments.{experiment}.evaluation.metrics")
    assert repr(metric) in message


def test_colour_images(config):
    digits = config["experiments"]["digits"]
    digits["data"] = {"name": "cifar10"}
    digits["published"] = "cifar10"
    digits["evaluation"] = {"metrics": ["fid", "inception_score"]}
    digits["figures"] = ["distance", "prior", "inpainting"]
    digits["m_step"] = {"augment": {"flip": True, "hue": 0.01, "saturation": [0.95, 1.05]}}

    resolved = resolve(config, SOURCE)["experiments"]

    entry = resolved["digits"]
    counts = {"train": 50000, "validation": 10000, "test": 10000}
    assert entry["data"] == {"name": "cifar10", "path": None, **counts}
    assert entry["runs"]["base"]["m_step"]["augment"] == digits["m_step"]["augment"]
    assert entry["evaluation"]["inception_weights"] is None
    assert resolved["line"]["m_step"]["augment"] == {}
    assert "published" not in resolved["line"]


@pytest.mark.parametrize(
    ("experiment", "augment", "words"),
    [
        ("line", {"flip": True}, ["flip needs images"]),
        ("line", {"shift": 1}, ["shift needs images"]),
        ("digits", {"hue": 0.1}, ["hue needs colour images", "'cifar10'"]),
        ("digits", {"saturation": [1.05, 0.95]}, ["saturation"]),
        ("digits", {"flipp": True}, ["flipp", "'flip'"]),
        ("digits", {"hue": 0.6}, ["augment.hue", "at most 0.5"]),
        ("digits", {"shift": -1}, ["augment.shift", "at least 0"]),
        ("digits", {"saturation": 1.05}, ["augment.saturation", "array"]),
    ],
)
def test_augmentations_that_do_not_fit(config, experiment, augment, words):
    put(config, f"experiments.{experiment}.m_step.augment", augment)

    message = refused(config)

    assert message.startswith(f"experiments.{experiment}.")
    for word in words:
        assert word in message


def test_saturations_the_wrong_way_round(config):
    put(config, "experiments.digits.data", {"name": "cifar10"})
    put(config, "experiments.digits.m_step.augment", {"saturation": [1.05, 0.95]})

    assert "the lower factor comes first" in refused(config)


def test_the_first_of_several_mistakes_is_one_sentence(config):
    put(config, f"{LINE}.laps", 0)
    put(config, f"{LINE}.e_step.covarience", "cov_x")
    put(config, "experiments.digits.network", None)
    put(config, "sede", 1)

    refused(config)


def test_heuristics_alone_and_their_defaults():
    resolved = resolve({"heuristics": {"curves": {"cases": 2}}}, SOURCE)

    entry = resolved["heuristics"]["curves"]
    assert resolved["experiments"] == {}
    assert entry["cases"] == 2
    assert entry["prior_samples"] == 2**20
    assert entry["covariances"] == ["tweedie", "cov_x", "cov_t", "zeros"]
    assert entry["coil"]["sigma"] == 0.25


@pytest.mark.parametrize("config", [{}, {"experiments": {}}, {"heuristics": {}, "seed": 1}])
def test_a_configuration_of_nothing(config):
    with pytest.raises(DiemError, match="none of experiments, heuristics, restoration"):
        resolve(config, SOURCE)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("sigmas", [0.1, 0], "greater than 0"),
        ("covariances", ["tweedi"], "did you mean 'tweedie'"),
        ("iteration", 5, "did you mean 'iterations'"),
        ("samples", 0, "at least 1"),
    ],
)
def test_heuristics_that_do_not_fit(key, value, words):
    with pytest.raises(DiemError, match=words) as error:
        resolve({"heuristics": {"curves": {key: value}}}, SOURCE)

    assert "heuristics.curves" in str(error.value)


# Comparisons of posterior samplers

COMPARISON = {"data": {"name": "images", "path": "faces"}, "train": {"network": {"name": "unet"}}}


def test_defaults_of_a_comparison_are_the_papers(config):
    config["restoration"] = {"faces": COMPARISON}

    entry = resolve(config, SOURCE)["restoration"]["faces"]

    assert entry["steps"] == [10, 100, 1000]
    assert entry["tasks"] == {
        "inpainting_box": {
            "operator": {"name": "mask", "box": 128, "margin": 16},
            "sigma_y": 1.0,
            "shared": False,
        },
        "inpainting_random": {
            "operator": {"name": "mask", "missing": 0.98},
            "sigma_y": 0.01,
            "shared": False,
        },
        "motion_deblur": {
            "operator": {"name": "blur", "size": 61, "intensity": 0.5, "boundary": "reflect"},
            "sigma_y": 0.1,
            "shared": True,
        },
        "super_resolution": {
            "operator": {"name": "downsample", "factor": 4, "filter": "bicubic"},
            "sigma_y": 0.1,
            "shared": False,
        },
    }
    mmps = [m["iterations"] for m in entry["methods"].values() if m["name"] == "mmps"]
    assert mmps == [1, 3, 5]
    assert entry["methods"]["diffpir"]["iterations"] == 5
    assert entry["methods"]["dps"]["zeta"] == 0.5
    assert entry["lpips_weights"] is None
    assert entry["train"]["m_step"]["steps"] == 65536


def test_no_more_steps_are_respaced_than_there_are_levels(config):
    config["restoration"] = {"faces": {**COMPARISON, "respaced": True, "steps": [10, 1001]}}

    with pytest.raises(DiemError, match=r"restoration\.faces\.steps has 1001"):
        resolve(config, SOURCE)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("pretrained", {"name": "ffhq_256x256", "weights": "w.pt"}, "either 'train' or"),
        ("data", {"name": "manifold"}, "data.name must be of images"),
        ("train.schedule", {"sigma_min": 1.0, "sigma_max": 0.1}, "train.schedule.sigma_min"),
        ("metrics", ["lpips"], "'lpips' alone needs lpips_weights"),
        ("metrics", [], "metrics names none"),
        ("train.m_step", {"batch": 2, "processes": 4}, "train.m_step.processes is 4, and a batch"),
        ("methods.other", {"name": "dpss"}, "did you mean 'dps'"),
        ("methods.other", {"name": "tmpd", "zeta": 0.5}, "zeta is unknown"),
        ("steps", [10, 10], "a list without repetitions"),
        ("tasks.t", {"operator": {"name": "mask"}, "sigma_y": 0.1}, "lacks the key 'missing'"),
        (
            "tasks.t",
            {"operator": {"name": "mask", "missing": 0.5, "box": 4}, "sigma_y": 0.1},
            "either 'missing' or 'box'",
        ),
        (
            "tasks.t",
            {"operator": {"name": "mask", "missing": 0.5, "place": "centre"}, "sigma_y": 0.1},
            "'place' belongs to 'box'",
        ),
        (
            "tasks.t",
            {"operator": {"name": "mask", "missing": 0.5, "margin": 4}, "sigma_y": 0.1},
            "'margin' belongs to a 'box'",
        ),
        (
            "tasks.t",
            {"operator": {"name": "blur", "size": 4, "intensity": 0.5}, "sigma_y": 0.1},
            "must be odd",
        ),
    ],
)
def test_comparisons_that_do_not_fit_are_refused(config, key, value, told):
    config["restoration"] = {"faces": copy.deepcopy(COMPARISON)}
    put(config, f"restoration.faces.{key}", value)

    message = refused(config)

    assert "restoration.faces" in message
    assert told in message


def test_the_former_name_of_the_comparisons_is_told(config):
    config["samplers"] = {"faces": copy.deepcopy(COMPARISON)}

    assert "samplers is unknown (did you mean 'restoration'?)" in refused(config)


def test_a_comparison_needs_a_prior(config):
    config["restoration"] = {"faces": {"data": {"name": "photographs"}}}
    assert "either 'train' or 'pretrained'" in refused(config)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (f"{LINE}.evaluation.metrics", ["ssim"], ["'ssim' needs images"]),
        (f"{LINE}.evaluation.metrics", ["nmse"], ["'nmse' needs images"]),
        (f"{LINE}.evaluation.metrics", [], [f"{LINE}.evaluation.metrics names none"]),
        ("experiments.digits.evaluation.reconstruct", ["halff"], ["'halff'", "did you mean"]),
        ("experiments.digits.figures", ["slices"], ["'slices' cannot be drawn"]),
        ("experiments.digits.figures", ["uncertainty"], ["'uncertainty' cannot be drawn"]),
        (
            "experiments.digits",
            {**DIGITS, "data": {"name": "phantoms", "complex": True}, "figures": ["prior"]},
            ["experiments.digits.figures", "'prior' cannot be drawn", "can: divergence, losses)"],
        ),
        (
            "experiments.digits.gaussian",
            {"rank": 64},
            ["experiments.digits.gaussian.rank is 64", "the data's size 64"],
        ),
        ("experiments.digits.observations.half.operator", {"name": "fourier"}, ["acceleration"]),
        (
            "experiments.digits.observations.half.operator",
            {"name": "fourier", "acceleration": 0.5},
            ["acceleration", "at least 1"],
        ),
        (
            "experiments.digits.data",
            {"name": "fastmri"},
            ["experiments.digits.data", "'path'"],
        ),
        (
            "experiments.digits.data",
            {"name": "phantoms", "size": 4},
            ["experiments.digits.data.size", "at least 8"],
        ),
    ],
)
def test_images_and_reconstructions_that_do_not_fit(config, key, value, words):
    put(config, key, value)

    message = refused(config)

    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "operator",
    [
        {"name": "projection", "rows": 16},
        {"name": "sparse", "rows": 16, "entries": 4},
        {"name": "fourier", "acceleration": 2},
        {"name": "downsample", "factor": 2},
    ],
)
def test_inpainting_of_observations_of_another_shape(config, operator):
    put(config, "experiments.digits.figures", ["inpainting"])
    put(config, "experiments.digits.observations.small", {"operator": operator, "sigma_y": 0.01})
    resolve(config, SOURCE)  # no run is on them
    put(config, "experiments.digits.runs.other", {"observations": "small"})

    message = refused(config)

    assert message.startswith("experiments.digits.figures: 'inpainting'")
    assert "observations.small" in message


@pytest.mark.parametrize(
    ("y", "event", "words"),
    [
        ((40, 2, 8, 8), (1, 8, 8), ["'inpainting'", "needs observations of the data's shape"]),
        ((40, 30), (1, 8, 8), ["'inpainting'", "needs observations of the data's shape"]),
        ((40, 4, 8, 8), (4, 8, 8), ["'inpainting' cannot be drawn"]),
        ((40, 3, 8, 8), (3, 8, 8), []),
        (
            None,
            (1, 8, 8),
            ["digits.data.path", "observations.h5: the data set 'train/y' is missing"],
        ),
    ],
)
def test_inpainting_of_ones_own_observations(config, tmp_path, y, event, words):
    path = tmp_path / "observations.h5"
    with h5py.File(path, "w") as file:
        file.attrs["event_shape"] = event
        if y is not None:
            file["train/y"] = np.zeros(y, np.float32)
    digits = config["experiments"]["digits"]
    digits |= {
        "data": {"name": "hdf5", "path": str(path)},
        "observations": {"half": {"operator": "telescope:Beam", "sigma_y": 0.1}},
        "figures": ["inpainting"],
    }
    if not words:
        resolve(config, SOURCE)
        return

    message = refused(config)

    for word in words:
        assert word in message


# Names


@pytest.mark.parametrize(
    "name",
    [
        *("line_rows", "line_published", "line_chosen_lap", "line_reconstructions"),
        "line_reconstructions_rows",
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_names_of_two_experiments_that_would_write_one_table(config, name, first):
    config["experiments"][name] = config["experiments"].pop("digits")
    if first:
        config["experiments"] = dict(reversed(config["experiments"].items()))

    message = refused(config)

    assert "experiments.line" in message
    assert f"experiments.{name}" in message
    assert f"the same table, {name!r}" in message


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hyperparameters", "the workflow would write the same table"),
        ("estimate", "the workflow would write the same table"),
        ("heuristics_exact", "would write the same table, 'heuristics_exact'"),
        ("restoration_patches_rows", "would write the same table, 'restoration_patches_rows'"),
        ("figures", "the name of a folder of the results"),
        ("posterior", "the name of a folder of the results"),
    ],
)
def test_names_that_are_taken(config, name, words):
    config["heuristics"] = {"exact": {}}
    config["restoration"] = {"patches": copy.deepcopy(COMPARISON)}
    config["restoration"]["patches"]["train"]["network"] = {"name": "mlp"}
    resolve(config, SOURCE)
    config["experiments"][name] = config["experiments"]["digits"]

    assert words in refused(config)


def test_endings_of_tables_are_no_names_to_avoid_by_themselves(config):
    config["experiments"] = {"line_rows": MANIFOLD, "line_published": DIGITS}

    assert resolve(config, SOURCE)["experiments"].keys() == config["experiments"].keys()


def test_parts_of_the_targets_have_names():
    config = resolve(yaml.safe_load((ROOT / "config/config.yaml").read_text()), SOURCE)
    named = targets_by_name(config, [])
    everything = set(targets(config, []))

    entries = [*config["experiments"], *config["heuristics"], *config["restoration"]]
    assert list(named) == [*entries, "figures", "tables", "evidence", "quick"]
    assert named["quick"] == named[entries[0]]
    pages = {f"results/pages/{name}.html" for name in entries}
    assert set().union(*(named[name] for name in entries)) == everything | pages
    assert sum(len(named[name]) for name in entries) == len(everything) + len(entries)
    assert {path.split("/")[1] for path in named["figures"]} == {"figures"}
    assert set(named["figures"]) | set(named["tables"]) < everything


def test_a_name_that_can_stand_for_nothing_tells_what_it_needs(config):
    config["experiments"] = {"line": MANIFOLD}
    resolved = resolve(config, SOURCE)
    nothing = resolved | {"experiments": {}}

    empty = {name for name, files in targets_by_name(nothing, []).items() if not files}

    assert empty - {"quick"} == {*NEEDED} - {"posterior"}  # there is an entry, which is quick
    assert nothing_told("evidence", SOURCE) == (
        f"{SOURCE}: there is nothing to make of 'evidence', which needs an experiment with"
        " calibration among its evaluation.metrics."
    )


def test_a_batch_has_a_part_for_each_process_of_all_machines(config):
    put(config, f"{LINE}.runs.other.m_step", {"batch": 7, "processes": 4})
    resolve(config, SOURCE)
    put(config, f"{LINE}.runs.other.m_step.nodes", 2)
    assert "processes is 4 on each of 2 nodes, and a batch of 7 has no part" in refused(config)
