"""Laps: the last one has a place of its own where it is done otherwise than the others."""

import copy
from types import SimpleNamespace

import pytest
from running import TINY

from diem.config.inputs import Inputs
from diem.config.resolve import resolve
from diem.em.laps import is_final, lap_name, lap_number

PAPER, FAST = {}, {"recipe": "fast"}
TINY_KEYS = {key: TINY["experiments"]["tiny"][key] for key in ("e_step", "m_step")}


def inputs(laps, **changes):
    config = copy.deepcopy(TINY)
    config["experiments"]["tiny"] |= {"laps": laps, **changes}
    config["experiments"]["tiny"]["evaluation"]["laps"] = [1, 2]
    return Inputs(resolve(config, "tiny.yaml"))


@pytest.mark.parametrize(
    ("changes", "last"),
    [
        (PAPER, "06"),
        (FAST, "06_final"),
        ({"m_step": {"steps": 10, "final": 3}}, "06_final"),
        ({"m_step": {"steps": 10, "final_decay": True}}, "06_final"),
        ({"e_step": {"final": 2}}, "06_final"),
        ({"m_step": {"steps": 10, "first": 3}}, "06"),
        ({"e_step": {"sampler": {"name": "ddpm", "steps": 4, "spread": "last"}}}, "06_final"),
        ({"e_step": {"sampler": {"name": "ddpm", "steps": 4, "spread": "all"}}}, "06"),
    ],
)
def test_the_name_of_the_last_lap_tells_whether_it_differs(changes, last):
    run = inputs(6, **changes).config["experiments"]["tiny"]["runs"]["base"]

    assert [lap_name(run, lap) for lap in (1, 5, 6)] == ["01", "05", last]
    assert lap_number(last) == 6
    assert is_final(last) is (last != "06")


@pytest.mark.parametrize(
    ("key", "value"), [("e_step.final", 9), ("m_step.final", 9), ("m_step.final_decay", True)]
)
def test_what_the_last_lap_does_is_nothing_to_the_others(key, value):
    section, name = key.split(".")
    plain = inputs(6, **FAST)
    other = inputs(6, **FAST, **{section: {**TINY_KEYS[section], name: value}})
    told = ("e_step", "m_step", "provenance", "drawing", "lap_card", "evaluation")

    for lap in ("01", "05"):
        names = SimpleNamespace(experiment="tiny", run="base", lap=lap)
        for what in told:
            assert getattr(plain, what)(names) == getattr(other, what)(names), (lap, what)
    floor = SimpleNamespace(experiment="tiny", observations="plain")
    assert plain.drawing(floor) == other.drawing(floor)


def test_how_samples_are_kept_is_nothing_to_other_posteriors():
    names = SimpleNamespace(experiment="tiny", run="base", lap="02")
    kept = {"storage": "float16", "repeats": 3, "restart_residual": 7.0}
    plain, other = inputs(6), inputs(6, e_step={**TINY_KEYS["e_step"], **kept})

    assert plain.drawing(names) == other.drawing(names)
    assert plain.e_step(names) != other.e_step(names)


@pytest.mark.parametrize("changes", [PAPER, FAST])
def test_what_a_lap_does_does_not_depend_on_how_many_follow(changes):
    few, many = inputs(6, **changes), inputs(12, **changes)
    shared = [f"{lap:02d}" for lap in range(1, 6)]
    if not changes:
        shared.append("06")
    for lap in shared:
        names = SimpleNamespace(experiment="tiny", run="base", lap=lap)
        for told in ("e_step_input", "e_step", "m_step_input", "m_step", "provenance"):
            assert getattr(few, told)(names) == getattr(many, told)(names), (lap, told)
        for told in ("lap_input", "lap_card", "evaluation", "drawing"):
            assert getattr(few, told)(names) == getattr(many, told)(names), (lap, told)


def test_a_final_lap_reads_the_lap_before_and_is_read_as_the_last():
    made = inputs(6, **FAST)
    names = SimpleNamespace(experiment="tiny", run="base", lap="06_final")
    folder = "results/tiny/runs/base"

    assert made.e_step_input(names)["prior"] == f"{folder}/lap_05/prior.safetensors"
    assert made.e_step_input(names)["previous"] == [f"{folder}/lap_05/samples.h5"]
    assert made.m_step_input(names) == {
        "samples": [f"{folder}/lap_06_final/samples.h5"],
        "prior": f"{folder}/lap_05/prior.safetensors",
    }
    assert made.lap_input(names)["prior"] == f"{folder}/lap_06_final/prior.safetensors"
    assert made.lap_card(names)["lap"] == 6
    assert made.e_step(names)["sampler"]["spread"] == "all"
    assert made.m_step(names)["steps"] == 3 * 100
    for lap in (6, None):
        assert made.paths.best_prior("tiny", "base", lap) == made.lap_input(names)["prior"]
    assert f"{folder}/lap_06_final/metrics.csv" in made.paths.metrics("tiny")
