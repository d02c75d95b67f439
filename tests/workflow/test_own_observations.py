"""Observations of one's own, through an operator of one's own: no clean data anywhere."""

import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from running import every_kind
from test_chain import one_sentence

import diem
from diem.data.sets import DATASETS
from diem.files.tensors import load_tensors

EXAMPLE = Path(__file__).parents[2] / "examples" / "telescope.py"


def observe(folder):
    """Writes photograph patches as the telescope of the example sees them, and forgets them."""
    shutil.copy(EXAMPLE, folder)
    namespace = {"__name__": "telescope"}
    exec(EXAMPLE.read_text(encoding="utf-8"), namespace)
    spec = {"name": "photographs", "size": 8, "reduce": 8}
    x = DATASETS.parse({**spec, "train": 240, "validation": 1, "test": 1}).load(0)["train"].whole()
    rng = np.random.default_rng(0)
    width = rng.uniform(0.4, 0.8, 240).astype(np.float32)
    alive = rng.random((240, 1, 8, 8)) < 0.7
    parameters = {"width": torch.from_numpy(width), "alive": torch.from_numpy(alive)}
    y = namespace["Beam"](x.shape[1:], parameters).forward(torch.from_numpy(x)).numpy()
    sigma_y = rng.uniform(0.05, 0.1, 240).astype(np.float32)
    y += sigma_y[:, None, None, None] * rng.standard_normal(y.shape) * alive
    train = {"y": y, "width": width, "alive": alive, "sigma_y": sigma_y}
    diem.write_observations(folder / "sky.h5", {"train": train})


@pytest.fixture
def own(workflow):
    observe(workflow.folder)
    workflow.config = every_kind("experiments", "sky")
    return workflow


@pytest.mark.slow
def test_from_a_file_to_tables_and_figures(own):
    own.make()

    for figure in ("prior", "inpainting", "lap_choice"):
        assert own.path(f"results/figures/sky_{figure}.pdf").stat().st_size > 1000
    rows = pd.read_csv(own.path("results/tables/sky_rows.csv"), keep_default_na=False)
    assert set(rows.stage) == {"floor", "lap"}
    metrics = {"residual_median", "residual_rms", "residual_beyond_3", "residual_outliers"}
    metrics |= {"prediction", "prediction_coverage_50", "prediction_coverage_90"}
    assert set(rows.metric) == {*metrics, "observation_distance"}
    assert np.isfinite(rows.value).all()
    exact = rows[(rows.stage == "floor") & (rows.metric == "residual_rms")].value.iloc[0]
    assert 0.8 < exact < 1.2  # each observation's own noise

    table = pd.read_csv(own.path("results/tables/sky_chosen_lap.csv"), keep_default_na=False)
    assert table.lap.tolist() == [0, 1, 2]
    (lap,) = table[table.verdict == "chosen"].lap
    assert lap == table.lap[table.prediction.idxmin()]
    gaussian = "observations/beam/gaussian.safetensors"
    source = f"runs/base/lap_{lap:02d}/prior.safetensors" if lap else gaussian
    chosen, of_lap = (
        load_tensors(own.path(f"results/sky/{name}"))[0]
        for name in ("runs/base/chosen/prior.safetensors", source)
    )
    assert chosen.keys() == of_lap.keys()
    assert all(torch.equal(chosen[key], of_lap[key]) for key in chosen)
    for name in ("observations/beam/gaussian.safetensors", "runs/base/lap_02/prior.safetensors"):
        prior = diem.load_prior(own.path(f"results/sky/{name}"))
        assert (prior.offset, prior.scale) == (0.1, 1.5)
    with h5py.File(own.path("results/sky/observations/beam/observations.h5")) as file:
        counts = [len(file[split]["y"]) for split in ("train", "validation", "test")]
    assert counts == [168, 24, 48]
    assert not own.path("results/sky/clean.h5").exists()


@pytest.mark.slow
def test_data_may_move_and_what_breaks_later_loses_none(own):
    assert own.run().returncode == 0
    assert "nothing to be done" in own.run().stderr.lower()

    # A copy has another time, and is the same data: only the page tells where it lies.
    own.path("elsewhere").mkdir()
    shutil.copy(own.path("sky.h5"), own.path("elsewhere/sky.h5"))
    own.config["experiments"]["sky"]["data"]["path"] = "elsewhere/sky.h5"
    planned = own.run("--dry-run")
    rules = re.findall(r"^(\w+) +\d+$", planned.stdout, re.MULTILINE)
    assert set(rules) == {"all", "page", "total"}, planned.stderr
    own.config["experiments"]["sky"]["data"]["path"] = "sky.h5"

    tables = {p.name: p.read_bytes() for p in own.path("results/tables").iterdir()}
    with h5py.File(own.path("sky.h5"), "r+") as file:
        file["train/y"][3] = np.nan
    sentence = one_sentence(own.run())
    for word in ("sky.h5", "'train/y'", "non-finite"):
        assert word in sentence
    own.path("sky.h5").unlink()
    sentence = one_sentence(own.run())
    for word in ("experiments.sky.data.path", "sky.h5", "no such file"):
        assert word in sentence
    assert tables == {p.name: p.read_bytes() for p in own.path("results/tables").iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("adjoint", ["'telescope:Beam'", "adjoint is not the adjoint"]),
        ("syntax", ["'telescope:Beam'", "cannot be imported", "SyntaxError"]),
    ],
)
def test_an_operator_that_is_none_stops_before_anything_is_spent(own, body, words):
    module = own.path("telescope.py")
    source = module.read_text(encoding="utf-8")
    if body == "adjoint":
        source = re.sub(r"return self\._blurred\(y .*", "return y", source)
    else:
        source += "\n)"
    module.write_text(source, encoding="utf-8")

    sentence = one_sentence(own.run())

    for word in ("sky.h5", *words):
        assert word in sentence
    assert not own.path("results/sky/observations/beam/gaussian.safetensors").exists()
    assert not own.path("results/sky/runs").exists()
