"""Exported priors: one file with weights and metrics, and a card for people."""

import json

import numpy as np
import pytest
import torch
from helpers import random_gaussian

import diem
from diem.cli import main
from diem.diffusion.prior import Prior, build_denoiser
from diem.errors import DiemError
from diem.evaluation.rows import CARD, write_rows
from diem.files.hdf5 import write_hdf5
from diem.files.tensors import load_tensors
from diem.report.export import export

SHAPE = (1, 2, 3)
NETWORK = {"name": "mlp", "hidden": [8], "embedding": 4}
SCHEDULE = {"sigma_min": 0.01, "sigma_max": 10.0}


def write_prior(folder, lap, **card):
    gaussian = random_gaussian(SHAPE, 2, torch.float32)
    denoiser = build_denoiser(NETWORK, SCHEDULE, SHAPE, seed=lap)
    made = {"network": NETWORK, "schedule": SCHEDULE}
    card = {"experiment": "some", "run": "base", "lap": lap, "seed": 7, **made, **card}
    Prior(gaussian, denoiser, card).save(folder / "prior.safetensors")


def write_metrics(folder, value):
    row = dict.fromkeys(CARD, "")
    lap = int(folder.name[4:]) if folder.name.startswith("lap_") else 0
    row |= {"experiment": "some", "run": "base", "observations": "half", "lap": lap}
    row |= {"subject": "prior", "metric": "psnr", "value": value, "samples": 12}
    row |= {"split": "test", "sampler": "ddim", "sampler_steps": 3, "denoiser_evaluations": 4}
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "metrics.csv", [row])


@pytest.fixture
def run(tmp_path):
    """A run of three laps, of which the last has not been evaluated."""
    folder = tmp_path / "results" / "some" / "runs" / "base"
    for lap in (1, 2, 10):
        (folder / f"lap_{lap:02d}").mkdir(parents=True)
        write_prior(folder / f"lap_{lap:02d}", lap)
        if lap < 10:
            write_metrics(folder / f"lap_{lap:02d}", 10.0 * lap)
    return folder


def test_a_lap_is_exported_with_its_metrics(run, tmp_path):
    output = tmp_path / "given.safetensors"
    export(run, output, lap=2)

    card = diem.load_prior(output).card
    (row,) = card["metrics"]
    assert (row["metric"], row["value"], row["sampler_steps"]) == ("psnr", 20.0, "3")
    assert "extractor" not in row
    paths = (run / "lap_02" / "prior.safetensors", output)
    stored, exported = (load_tensors(path)[0] for path in paths)
    assert stored.keys() == exported.keys()
    assert all(torch.equal(stored[key], exported[key]) for key in stored)
    text = (tmp_path / "given.md").read_text()
    assert text.startswith("# Prior some/base, lap 2\n")
    assert 'diem.load_prior("given.safetensors")' in text
    assert "| PSNR (dB) |" in text
    assert "ddim with 3 steps" in text
    assert "{name: mlp, hidden: [8], embedding: 4}" in text


def test_an_exported_prior_draws_as_its_evaluation(run, tmp_path):
    shaping = {"covariance": "tweedie", "iterations": 2, "limit": None}
    drawn = {**shaping, "sampler": {"name": "ddpm", "steps": 48}}
    evaluation = run / "lap_02" / "evaluation.h5"
    write_hdf5(evaluation, {"x": np.zeros(1)}, {"posterior": json.dumps({**drawn, "block": 4})})

    assert export(run, tmp_path / "given.safetensors", lap=2)["posterior"] == drawn
    draw = diem.load_prior(tmp_path / "given.safetensors").posterior_sampler()
    assert (draw.sampler.steps, draw.iterations, draw.limit) == (48, 2, None)
    assert "steps: 48" in (tmp_path / "given.md").read_text()

    # An earlier version's evaluation does not tell.
    write_hdf5(evaluation, {"x": np.zeros(1)}, {})
    assert "posterior" not in export(run, tmp_path / "given.safetensors", lap=2)


def test_the_last_lap_is_exported_unless_another_was_chosen(run, tmp_path):
    output = tmp_path / "given.safetensors"
    assert export(run, output)["lap"] == 10
    assert "not been evaluated" in (tmp_path / "given.md").read_text()

    (run / "chosen").mkdir()
    write_prior(run / "chosen", 2, chosen_by={"metric": "prediction"})
    card = export(run, output)
    assert (card["lap"], card["metrics"][0]["value"]) == (2, 20.0)
    assert "prediction" in (tmp_path / "given.md").read_text()


def test_a_gaussian_that_was_chosen_is_exported_with_the_metrics_of_its_floor(run, tmp_path):
    output, (experiment, observations) = tmp_path / "given.safetensors", (run.parents[1], "half")
    write_metrics(experiment / "observations" / observations / "floor", 5.0)
    card = {"experiment": "some", "run": "base", "lap": 0, "observations": {"name": observations}}
    (run / "chosen").mkdir()
    gaussian = random_gaussian(SHAPE, 2, torch.float32)
    Prior(gaussian, None, card).save(run / "chosen" / "prior.safetensors")

    card = export(run, output)

    assert (card["lap"], card["metrics"][0]["value"]) == (0, 5.0)
    assert (tmp_path / "given.md").read_text().startswith("# Prior some/base, lap 0 (Gaussian)\n")
    prior = diem.load_prior(output)
    assert prior.exact
    assert prior.sample(2).shape == (2, *SHAPE)


def test_the_command_writes_over_no_file_of_another_program(run, tmp_path, capsys):
    weights, given = tmp_path / "weights.safetensors", tmp_path / "given.safetensors"
    weights.write_text("of another program")

    assert main(["export", str(run), "-o", str(weights)]) == 1
    assert "is there already, and it holds no prior" in capsys.readouterr().err
    assert weights.read_text() == "of another program"
    for _ in range(2):
        assert main(["export", str(run), "-o", str(given)]) == 0
    (tmp_path / ".diem.lock").touch()
    assert main(["export", str(run), "-o", str(given)]) == 1
    assert "it is in a folder of results" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("folder", "name", "options", "part"),
    [
        ("", "given.safetensors", {"lap": 5}, "lap_05/prior.safetensors: there is no such file"),
        ("nothing", "given.safetensors", {}, "there is no lap with a prior"),
        ("", "given.pt", {}, "must end in .safetensors"),
    ],
)
def test_what_cannot_be_exported(run, tmp_path, folder, name, options, part):
    with pytest.raises(DiemError, match=part):
        export(run / folder, tmp_path / name, **options)
    assert not (tmp_path / name).exists()


def test_an_export_writes_over_nothing_but_an_export(run, tmp_path):
    source, notes = run / "lap_02" / "prior.safetensors", tmp_path / "given.md"
    before = source.read_bytes()
    for lap in (2, 10):
        with pytest.raises(DiemError, match="this is in the run's own folder"):
            export(run, source, lap=lap)
    assert source.read_bytes() == before

    notes.write_text("My notes.")
    with pytest.raises(DiemError, match="this file is no card of a prior"):
        export(run, tmp_path / "given.safetensors")
    assert notes.read_text() == "My notes."
    assert not (tmp_path / "given.safetensors").exists()

    notes.unlink()
    for lap in (10, 2):
        export(run, tmp_path / "given.safetensors", lap=lap)
    assert "lap 2" in notes.read_text()
