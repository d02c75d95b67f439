"""The command `diem`: what it writes, what it says, and how it fails."""

import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch
from helpers import observe, random_gaussian

from diem import __version__, storage
from diem.cli import main
from diem.denoisers import Prior

SHAPE = (1, 2, 3)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a Gaussian prior and observations, as the current one."""
    gaussian = random_gaussian(SHAPE, 2, torch.float32)
    Prior(gaussian, None, {"lap": 0}).save(tmp_path / "prior.safetensors")
    observed, _ = observe(gaussian, {"name": "mask", "missing": 0.5}, 3, 0.1)
    storage.write_observations(tmp_path / "y.h5", {"test": observed}, "mask", {})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_help_needs_no_torch():
    code = (
        "import sys\nfrom diem.cli import main\n"
        "try: main(['--help'])\nfinally: assert 'torch' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for verb in ("sample", "posterior"):
        assert f"  {verb} " in result.stdout


def test_it_is_a_module_too():
    result = subprocess.run(
        [sys.executable, "-m", "diem", "--version"], capture_output=True, text=True
    )
    assert result.stdout == f"diem {__version__}\n"


@pytest.mark.parametrize("verb", ["sample", "posterior"])
def test_the_help_of_a_verb_has_examples(verb, capsys):
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])

    assert end.value.code == 0
    assert f"  diem {verb} " in capsys.readouterr().out


def run(command):
    return main(command.split())


def test_sample(folder, capsys):
    assert run("sample prior.safetensors -n 5 -o x.h5 --seed 3 --device cpu") == 0

    assert "5 samples" in capsys.readouterr().out
    with h5py.File("x.h5") as file:
        assert file["x"].shape == (5, *SHAPE)
        assert file.attrs["seed"] == 3


def test_posterior(folder, capsys):
    for name in ("one.h5", "other.h5"):
        assert run(f"posterior prior.safetensors y.h5 -n 4 --batch 5 --device cpu -o {name}") == 0

    assert "4 samples of each of 3 observations" in capsys.readouterr().out
    with h5py.File("one.h5") as one, h5py.File("other.h5") as other:
        assert one["test/x"].shape == (3, 4, *SHAPE)
        assert (one["test/x"][:] == other["test/x"][:]).all()
        np.testing.assert_allclose(one["test/mean"][:], one["test/x"][:].mean(axis=1), atol=1e-5)


@pytest.mark.parametrize(
    ("command", "part"),
    [
        ("sample nothing -n 3 -o x.h5", "nothing: there is no such file"),
        ("sample y.h5 -n 3 -o x.h5", "y.h5: this is no complete safetensors file"),
        ("sample prior.safetensors -n 0 -o x.h5", "n is 0"),
        ("sample prior.safetensors -n 3 -o x.h5 --sampler dpm", "sampler.name is 'dpm'"),
        ("sample prior.safetensors -n 3 -o x.h5 --device cuda:99", "device: 'cuda:99'"),
        ("sample prior.safetensors -n 3 -o prior.safetensors/x.h5", "cannot be written"),
        ("posterior prior.safetensors nothing -o x.h5", "nothing: there is no such file"),
        ("posterior prior.safetensors prior.safetensors -o x.h5", "no complete HDF5 file"),
        ("posterior prior.safetensors y.h5 -n 1 -o x.h5", "n is 1"),
        ("posterior prior.safetensors y.h5 --covariance x -o x.h5", "covariance is 'x'"),
    ],
)
def test_errors_are_one_sentence(folder, capsys, command, part):
    assert run(command) == 1

    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert part in error
    assert error.count("\n") == 1
    assert not (folder / "x.h5").exists()
