"""The ceilings: as many optimizer steps as all laps of a run, and one for runs that train alike."""

import copy
from pathlib import Path

import pandas as pd
import pytest
import yaml
from running import TINY

from diem.config.inputs import Inputs
from diem.config.paths import Paths
from diem.config.resolve import resolve
from diem.data.sets import DATASETS
from diem.em.blocks import blocks, whole_blocks
from diem.em.laps import (
    ceiling_labels,
    ceiling_of,
    ceiling_settings,
    ceiling_training,
    training_of_lap,
)
from diem.em.training import Training
from diem.planning.experiment import Experiment
from diem.report.drawing.laps import by_lap
from diem.report.tables.experiment import readable_summary

ROOT = Path(__file__).parents[2]


def read(name):
    return yaml.safe_load((ROOT / "config" / name).read_text(encoding="utf-8"))


def tiny():
    """A run in which everything counts that the number of steps depends on."""
    config = copy.deepcopy(TINY)
    tiny = config["experiments"]["tiny"]
    tiny["data"] |= {"train": 197, "validation": 64}
    tiny |= {"laps": 4}
    tiny["e_step"] |= {"block": 60, "repeats": 3, "drop_last": True}
    tiny["m_step"] = {"epochs": 3, "batch": 70, "first": 2, "final": 3, "drop_outside": 1.5}
    tiny["runs"] = {
        "base": {"observations": "plain", "label": "A"},
        "again": {"observations": "plain", "label": "B", "e_step": {"covariance": "cov_t"}},
        "whole": {"observations": "plain", "label": "C", "e_step": {"drop_last": False}},
        "blocks": {"observations": "plain", "e_step": {"drop_last": False, "block": 50}},
        "once": {"observations": "plain", "label": "D", "e_step": {"repeats": 1}},
        "final": {"observations": "plain", "label": "H", "e_step": {"final": 5}},
        "longer": {"observations": "plain", "label": "E", "laps": 5},
        "larger": {"observations": "plain", "label": "F", "m_step": {"batch": 80}},
        "steps": {"observations": "plain", "label": "G", "m_step": {"epochs": None, "steps": 7}},
    }
    return config


def mixed():
    """The demo, with a run that trains in another way."""
    config = read("config.yaml")
    run = config["experiments"]["digits"]["runs"]["missing_75"]
    run |= {"laps": 16, "m_step": {"steps": 384, "batch": 256}}
    return config


CONFIGS = {"demo": mixed(), "paper": read("paper.yaml"), "tiny": tiny()}


def trained(run, count):
    """Returns the trainings of all laps of a run, with the samples that its E-steps draw."""
    e_step, counts = run["e_step"], {"train": count}
    if e_step["drop_last"]:
        counts = whole_blocks(counts, e_step["block"])
    drawn = sum(map(len, blocks(counts, e_step["block"], e_step["repeats"])))
    finals = [lap == run["laps"] for lap in range(1, run["laps"] + 1)]
    return [
        Training.from_config(
            training_of_lap(run["m_step"], lap, final), drawn * (e_step["final"] if final else 1)
        )
        for lap, final in enumerate(finals, 1)
    ]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_ceiling_takes_the_optimizer_steps_of_all_laps_of_its_run(name):
    config = resolve(CONFIGS[name], name)
    for entry in config["experiments"].values():
        count = DATASETS.parse(entry["data"]).counts()["train"]
        for run in entry["runs"].values():
            laps = trained(run, count)
            settings = ceiling_settings(run)
            ceiling = Training.from_config(ceiling_training(settings, count), count)

            assert ceiling.steps == sum(lap.steps for lap in laps)
            for key in ("batch", "learning_rate", "clip", "ema", "ema_warmup", "augment"):
                assert getattr(ceiling, key) == getattr(laps[-1], key)


def test_the_counts_are_those_of_the_papers_mri_and_of_the_demos_digits():
    steps = {
        (config, experiment, run): ceiling_training(
            ceiling_settings(resolve(CONFIGS[config], "c")["experiments"][experiment]["runs"][run]),
            count,
        )
        for config, experiment, run, count in (
            ("paper", "mri", "tweedie", 24853),
            ("demo", "digits", "missing_50", 1197),
            ("demo", "digits", "missing_75", 1197),
        )
    }

    found = [(entry["steps"], entry["batch"]) for entry in steps.values()]
    assert found == [(198816, 256), (3840, 128), (6912, 256)]


def test_runs_that_train_alike_share_a_ceiling():
    entry = resolve(CONFIGS["tiny"], "c")["experiments"]["tiny"]

    runs = entry["runs"]

    named = {run: ceiling_of(entry, run) for run in runs}

    alone = {"base", "whole", "once", "longer", "larger", "steps", "final"}
    assert named == {**{name: name for name in alone}, "again": "base", "blocks": "whole"}
    assert ceiling_labels(entry)["plain"] == {
        "base": "ceiling of A, B",
        "whole": "ceiling of C, blocks",
        "once": "ceiling of D",
        "longer": "ceiling of E",
        "larger": "ceiling of F",
        "steps": "ceiling of G",
        "final": "ceiling of H",
    }
    for few, labels in (
        (["base", "again"], {"base": "ceiling"}),
        (["base", "once"], {"base": "ceiling of A", "once": "ceiling of D"}),
    ):
        entry["runs"] = {name: runs[name] for name in few}
        assert ceiling_labels(entry)["plain"] == labels
    entry["runs"] = {name: {**runs[name], "label": "A"} for name in ("base", "again", "once")}
    told = {"base": "ceiling of base, again", "once": "ceiling of once"}
    assert ceiling_labels(entry)["plain"] == told


@pytest.mark.slow
def test_an_experiment_whose_runs_train_alike_has_one_ceiling():
    config = resolve(CONFIGS["paper"], "c")
    entry = config["experiments"]["cifar10"]

    assert {ceiling_of(entry, run) for run in entry["runs"]} == {"missing_25"}
    sets = ("missing_25", "missing_50", "missing_75")
    assert ceiling_labels(entry) == {name: {"missing_25": "ceiling"} for name in sets}
    (stage,) = (s for s in Experiment(config, "cifar10").stages() if s.name == "ceiling")
    assert stage.run == ""


def test_files_and_stages_of_ceilings_name_their_run():
    config = resolve(CONFIGS["demo"], "c")
    rows = [path for path in Paths(config).metrics("digits") if "ceilings" in path]

    assert rows == [
        "results/digits/ceilings/missing_25/missing_25/metrics.csv",
        "results/digits/ceilings/missing_25/missing_50/metrics.csv",
        "results/digits/ceilings/missing_75/missing_75/metrics.csv",
        "results/digits/ceilings/missing_25/missing_75/metrics.csv",
    ]
    stages = [s for s in Experiment(config, "digits").stages() if s.name == "ceiling"]
    assert [stage.run for stage in stages] == ["missing_25", "missing_75"]


@pytest.mark.parametrize("name", ["demo", "tiny"])
def test_the_plan_of_a_ceiling_is_that_of_its_runs_laps(name):
    config = resolve(CONFIGS[name], "c")
    for key, entry in config["experiments"].items():
        planned = Experiment(config, key)
        for run, settings in entry["runs"].items():
            amount, _ = planned.ceiling(run).values()
            laps = [planned.m_step(run, lap) for lap in range(1, settings["laps"] + 1)]
            assert amount == sum(next(iter(lap.values())) for lap in laps)


ROW = {
    **{"experiment": "e", "observations": "plain", "subject": "prior", "metric": "psnr"},
    **{"split": "none", "samples": "8", "reference": "", "reference_samples": ""},
    **{"extractor": "", "extractor_digest": "", "extractor_accuracy": "", "sampler": "ddim"},
    **{"sampler_steps": "2", "denoiser_evaluations": "3", "precision": "float32", "seed": "0"},
    **{"optimizer_steps": "5", "diem": "0", "torch": "2", "standard_error": ""},
}


def test_tables_and_figures_tell_whose_ceiling_each_is():
    config = resolve(CONFIGS["tiny"], "c")
    names = type("Names", (), {"experiment": "tiny"})()
    inputs = Inputs(config)
    parts = [("ceiling", "base", 0), ("ceiling", "once", 0)]
    parts += [("floor", "floor", 0), ("lap", "base", 4), ("lap", "once", 4)]
    rows = pd.DataFrame(
        [
            {**ROW, "stage": stage, "run": run, "lap": lap, "value": 1.0 + number}
            for number, (stage, run, lap) in enumerate(parts)
        ]
    )
    ceilings, runs = inputs.ceiling_labels(names), inputs.labels_and_covariances(names)

    body = readable_summary(rows, runs, (), ceilings).body
    figure = by_lap(rows, ["psnr"], inputs.labels(names), "", ceilings=ceilings)

    assert [row[1] for row in body] == [
        "floor (fitted Gaussian)",
        *("A", "D", "ceiling of A, B (clean data)", "ceiling of D (clean data)"),
    ]
    (ax,) = figure.axes
    dotted = [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == ":"]
    assert dotted == [1.0, 2.0]
    texts = {text.get_text() for text in ax.texts}
    assert texts == {"floor", "A", "D", "ceiling of A, B", "ceiling of D"}
