"""Results are read from end to end before they are taken as they are."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import random_gaussian
from test_tables_on_disk import ROWS

from diem.cli import main
from diem.diffusion.prior import Prior
from diem.evaluation.rows import write_rows
from diem.files.hdf5 import write_hdf5
from diem.files.tables import write_csv


@pytest.fixture
def results(tmp_path):
    lap = tmp_path / "results" / "some" / "runs" / "base" / "lap_01"
    lap.mkdir(parents=True)
    x = np.random.default_rng(0).random((500, 40))
    write_hdf5(lap / "samples.h5", {"train/x": x, "sigma": np.float64(1)}, {"lap": 1})
    Prior(random_gaussian((1, 4, 4), 2, torch.float32), None, {}).save(lap / "prior.safetensors")
    write_rows(lap / "metrics.csv", ROWS)
    write_csv(lap / "summary.csv", pd.DataFrame({"run": ["base"] * 9, "psnr": range(20, 29)}))
    (lap / "losses.csv").write_text("step\n1\n")
    (lap / ".samples.h5.diem").mkdir()
    (lap / ".samples.h5.diem" / "half.h5").write_text("half")
    return tmp_path / "results"


def test_results_that_are_whole(results, capsys):
    assert main(["verify", str(results)]) == 0
    assert "all 4 files are as they were written" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["samples.h5", "prior.safetensors", "metrics.csv", "summary.csv"])
def test_results_of_which_a_byte_is_another(results, capsys, name):
    path = results / "some" / "runs" / "base" / "lap_01" / name
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)

    assert main(["verify", str(results)]) == 1
    assert capsys.readouterr().err.startswith(f"Error: {path}: ")


def test_results_in_the_place_of_others(results, capsys):
    (results / "some" / "runs" / "base" / "lap_01").rename(results / "some/runs/base/lap_02")

    assert main(["verify", str(results)]) == 1
    assert "of another place: their lap is 1" in capsys.readouterr().err


def test_no_results(tmp_path, capsys):
    assert main(["verify", str(tmp_path)]) == 1
    assert "there are no results" in capsys.readouterr().err
