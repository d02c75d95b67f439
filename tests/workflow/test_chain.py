"""The chain as a user runs it: whole, in shards, interrupted, and on bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pandas as pd
import pytest
from running import copy_of_repository
from safetensors.numpy import load_file


def samples(workflow, lap):
    """Returns all arrays of a lap's samples."""
    with h5py.File(workflow.path(workflow.lap(lap, "samples.h5"))) as file:
        names = [(split, name) for split in ("train", "validation") for name in file[split]]
        return {f"{split}/{name}": file[split][name][:] for split, name in names}


def same_prior(one, other, lap):
    a, b = (load_file(w.path(w.lap(lap, "prior.safetensors"))) for w in (one, other))
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def one_sentence(result) -> str:
    """Returns the sentence that a failed run told, and asserts that it is one."""
    assert result.returncode != 0
    assert "Traceback" not in result.stderr + result.stdout, result.stderr
    lines = [line for line in (result.stderr + result.stdout).splitlines() if line.strip()]
    told = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
    if not told:
        starts = [i for i, line in enumerate(lines) if line.startswith("WorkflowError")]
        told = [lines[starts[-1] + 1]]
    assert told[0].endswith("."), told
    return told[0]


@pytest.mark.slow
def test_dry_run_and_lint_in_a_clean_copy(tmp_path):
    copy_of_repository(tmp_path)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    for arguments in (["-n"], ["--lint"]):
        result = subprocess.run(
            [sys.executable, "-m", "snakemake", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        assert result.returncode == 0, result.stderr + result.stdout
        if arguments == ["-n"]:
            assert "e_step" in result.stdout + result.stderr
            assert "digits" in result.stdout + result.stderr


@pytest.mark.slow
def test_every_observation_is_sampled(made):
    with h5py.File(made.path(made.lap(2, "samples.h5"))) as file:
        for split, count in (("train", 192), ("validation", 40)):
            index, occurrences = np.unique(file[split]["index"][:], return_counts=True)
            assert index.tolist() == list(range(count))
            assert (occurrences == 2).all()  # repeats
        assert file["train/x"].fletcher32
        card = json.loads(file.attrs["attributes"])
        assert (card["denoiser_evaluations"], card["lap"]) == (5, 2)


@pytest.mark.slow
def test_three_shards_give_the_samples_of_one(made, workflow):
    workflow.config["shards"] = 3
    workflow.make(workflow.lap(2, "prior.safetensors"))
    for lap in (1, 2):
        one, three = samples(made, lap), samples(workflow, lap)
        for name in one:
            np.testing.assert_array_equal(one[name], three[name])
        assert same_prior(made, workflow, lap)


@pytest.mark.slow
def test_one_process_makes_what_snakemake_makes(made, finished):
    for lap in (1, 2):
        one, other = samples(made, lap), samples(finished, lap)
        for split in one:
            np.testing.assert_array_equal(one[split], other[split])
        assert same_prior(made, finished, lap)


def kill_when(workflow, target, pattern):
    """Starts the workflow and kills all of it as soon as a file of that pattern is there."""
    process = workflow.start(target)
    deadline = time.monotonic() + 120
    while not list(workflow.folder.glob(pattern)):
        assert process.poll() is None, (workflow.folder / "stderr.txt").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_killed_in_an_e_step_and_in_an_m_step(finished, workflow):
    target = workflow.lap(2, "prior.safetensors")
    kill_when(workflow, target, workflow.lap(2, ".samples.h5.diem/pieces-*/1.*.npz"))
    assert not workflow.path(workflow.lap(2, "samples.h5")).exists()
    checkpoint = workflow.lap(2, ".prior.safetensors.diem/checkpoint")
    kill_when(workflow, target, checkpoint)
    assert not workflow.path(target).exists()

    # The success of another target takes nothing from what is unfinished, or is somebody's own.
    (workflow.path("results") / "thesis.resume-2").mkdir()
    own = [workflow.path("results") / name for name in ("cv.resume.pdf", ".draft.tmp", ".lock")]
    for path in own:
        path.write_text("mine")
    other = workflow.run("results/tables/hyperparameters.csv")
    assert other.returncode == 0, other.stderr
    assert workflow.path(checkpoint).exists()

    result = workflow.run(target)
    assert result.returncode == 0, result.stderr
    one, again = samples(finished, 2), samples(workflow, 2)
    for split in one:
        np.testing.assert_array_equal(one[split], again[split])
    assert same_prior(finished, workflow, 2)
    assert not workflow.path(checkpoint).exists()
    assert [path.read_text() for path in own] == ["mine"] * 3
    assert (workflow.path("results") / "thesis.resume-2").is_dir()
    leftovers = [p.name for p in workflow.path(workflow.lap(2, "")).iterdir()]
    assert sorted(leftovers) == ["losses.csv", "prior.safetensors", "samples.h5"]


@pytest.mark.slow
def test_rows_carry_what_made_them(made, workflow):
    shutil.copytree(made.path("results"), workflow.path("results"))
    name = workflow.lap(2, "metrics.csv")
    workflow.make(name)
    rows = pd.read_csv(workflow.path(name), keep_default_na=False)
    assert {"prior", "e_step", "posterior", "posterior_mean"} == set(rows.subject)
    prior = rows[(rows.subject == "prior") & (rows.metric == "sliced_wasserstein")].iloc[0]
    expected = {
        "samples": 64,
        "reference": "clean test",
        "reference_samples": 64,
        "sampler": "ddim",
        "sampler_steps": 4,
        "denoiser_evaluations": 5,
        "optimizer_steps": 200,
        "seed": 3,
        "lap": 2,
    }
    # Columns with empty cells are read as text.
    assert {key: str(prior[key]) for key in expected} == {k: str(v) for k, v in expected.items()}
    assert np.isfinite(rows.value).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(sed=1), ["tiny.yaml", "sed", "'seed'"]),
        (
            lambda c: c["experiments"]["tiny"]["e_step"].update(covarience="tweedie"),
            ["tiny.yaml", "experiments.tiny.e_step.covarience", "'covariance'"],
        ),
        (lambda c: c["experiments"]["tiny"].update(laps="two"), ["experiments.tiny.laps", "'two'"]),
        (
            lambda c: c["experiments"]["tiny"]["observations"]["plain"].update(
                operator={"name": "mask", "missing": 1.2}
            ),
            ["experiments.tiny.observations.plain.operator.missing", "1.2", "less than 1"],
        ),
    ],
)
def test_bad_config(workflow, change, words):
    change(workflow.config)
    sentence = one_sentence(workflow.run("-n"))
    for word in words:
        assert word in sentence
    assert not workflow.path("results").exists()


@pytest.mark.slow
def test_results_that_cannot_be_written(workflow):
    workflow.path("file").write_text("in the way")
    workflow.config["results"] = "file/results"
    sentence = one_sentence(workflow.run())
    assert "results" in sentence
    assert "file/results" in sentence
    assert workflow.path("file").read_text() == "in the way"


@pytest.mark.slow
def test_another_workflow_at_work(workflow):
    from diem.jobs.results import hold

    with hold(workflow.path("results")):
        sentence = one_sentence(workflow.run("results/tiny/clean.h5"))
    assert "another workflow" in sentence


def truncate(path):
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def not_finite(path):
    with h5py.File(path, "r+") as file:
        values = file["train/y"][:]
        values[3, 1] = np.nan
        file["train/y"][:] = values


def other_shape(path):
    with h5py.File(path, "r+") as file:
        y = file["train/y"][:]
        del file["train/y"]
        file["train/y"] = y[:, :1]


def no_attribute(path):
    with h5py.File(path, "r+") as file:
        told = json.loads(file.attrs["attributes"])
        del told["event_shape"]
        file.attrs["attributes"] = np.bytes_(json.dumps(told).encode())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncate, ["no complete HDF5 file"]),
        (not_finite, ["train/y", "non-finite"]),
        (other_shape, ["train/y", "(1,)"]),
        (no_attribute, ["event_shape"]),
    ],
)
@pytest.mark.slow
def test_bad_observations(finished, workflow, damage, words):
    shutil.copytree(finished.path("results"), workflow.path("results"))
    shutil.copytree(finished.path(".snakemake"), workflow.path(".snakemake"))
    name = "results/tiny/observations/plain/observations.h5"
    damage(workflow.path(name))
    result = workflow.run("--forcerun", "gaussian_prior", "--rerun-triggers", "mtime")
    sentence = one_sentence(result)
    for word in [name, *words]:
        assert word in sentence


@pytest.mark.slow
def test_checkpoint_of_another_network(finished, workflow):
    shutil.copytree(finished.path("results"), workflow.path("results"))
    shutil.copytree(finished.path(".snakemake"), workflow.path(".snakemake"))
    workflow.experiment["network"]["hidden"] = [48]
    target = workflow.lap(2, "samples.h5")
    workflow.path(target).unlink()
    result = workflow.run(target, "--rerun-triggers", "mtime")
    sentence = one_sentence(result)
    for word in (workflow.lap(1, "prior.safetensors"), "network.hidden", "[32]", "[48]"):
        assert word in sentence


@pytest.mark.slow
def test_results_that_were_copied_are_taken_as_they_are(finished, workflow):
    shutil.copytree(finished.path("results"), workflow.path("results"), copy_function=shutil.copy)
    for path in sorted(workflow.path("results").rglob("*"), reverse=True):
        path.touch()  # in another order than they were made in
        time.sleep(0.002)

    name = workflow.lap(2, "prior.safetensors")
    assert "Nothing to be done" not in workflow.run("-n", name).stdout
    result = workflow.run("--touch", name)

    assert result.returncode == 0, result.stderr
    planned = workflow.run("-n", name)
    assert "Nothing to be done" in planned.stdout + planned.stderr
