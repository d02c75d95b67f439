"""The command `diem`: what it writes, what it says, and how it fails."""

import os
import shutil
import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch
from helpers import attributes, observe, random_gaussian

from diem import __version__
from diem.cli import main
from diem.data.observations import save_observations
from diem.diffusion.prior import Prior, build_denoiser
from diem.files.hdf5 import Reader, write_hdf5
from diem.jobs import resume
from diem.report.drawing import style

SHAPE = (1, 2, 3)
MASK = {"name": "mask", "missing": 0.5}
VERBS = ("check", "init", "sample", "posterior", "estimate", "export")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a Gaussian prior and observations, as the current one."""
    gaussian = random_gaussian(SHAPE, 2, torch.float32)
    Prior(gaussian, None, {"lap": 0}).save(tmp_path / "prior.safetensors")
    observed, _ = observe(gaussian, MASK, 3, 0.1)
    save_observations(tmp_path / "y.h5", {"test": observed}, "mask", {})
    (tmp_path / "list.yaml").write_text("[1, 2]")
    (tmp_path / "twice.yaml").write_text("seed: 0\nexperiments: {}\nseed: 1\n")
    (tmp_path / "itself.yaml").write_text("experiments: &a {b: *a}\n")
    (tmp_path / "typo.yaml").write_text("experiment: {}")
    (tmp_path / "some.yaml").write_text("heuristics: {some: {}}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_help_needs_no_torch():
    code = (
        "import sys\nfrom diem.cli import main\n"
        "try: main(['--help'])\nfinally: assert 'torch' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for verb in VERBS:
        assert f"  {verb} " in result.stdout


def test_it_is_a_module_too():
    result = subprocess.run(
        [sys.executable, "-m", "diem", "--version"], capture_output=True, text=True
    )
    assert result.stdout == f"diem {__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
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
    assert attributes("x.h5")["seed"] == 3


@pytest.mark.parametrize(
    "command", ["sample prior.safetensors -n 2", "posterior prior.safetensors y.h5 -n 2"]
)
def test_a_file_that_is_anothers_is_not_replaced(folder, capsys, command):
    (folder / "notes.h5").write_text("mine")
    write_hdf5("other.h5", {"x": np.ones(3)}, {})
    (folder / "results").mkdir()
    (folder / "results/.diem.lock").touch()
    shutil.copyfile(folder / "other.h5", folder / "results/clean.h5")

    for name, reason in (
        ("notes.h5", "it holds no samples"),
        ("other.h5", "it holds no samples"),
        ("results/clean.h5", "it is in a folder of results"),
    ):
        before = (folder / name).read_bytes()
        assert run(f"{command} -o {name}") == 1
        told = capsys.readouterr().err
        assert told.endswith(
            f"{name}: this file is there already, and {reason}: give the output another name.\n"
        )
        assert (folder / name).read_bytes() == before
    for _ in range(2):
        assert run(f"{command} -o new.h5") == 0


def test_posterior(folder, capsys):
    for name in ("one.h5", "other.h5"):
        assert run(f"posterior prior.safetensors y.h5 -n 4 --batch 5 --device cpu -o {name}") == 0

    assert "4 samples of each of 3 observations" in capsys.readouterr().out
    with h5py.File("one.h5") as one, h5py.File("other.h5") as other:
        assert one["test/x"].shape == (3, 4, *SHAPE)
        assert (one["test/x"][:] == other["test/x"][:]).all()
        np.testing.assert_allclose(one["test/mean"][:], one["test/x"][:].mean(axis=1), atol=1e-5)


@pytest.mark.slow
def test_posterior_with_a_figure(folder, capsys):
    command = "posterior prior.safetensors y.h5 -n 4 -o p.h5 --figure p.png"
    assert run(command) == 0

    assert "p.png" in capsys.readouterr().out
    assert (folder / "p.png").read_bytes()[:4] == b"\x89PNG"
    for name in ("p.png", "p.pdf", "p.pdf"):
        assert run(f"posterior prior.safetensors y.h5 -n 4 -o p.h5 --figure {name}") == 0


def test_a_figure_that_is_anothers_is_not_replaced(folder, capsys):
    (folder / "photo.png").write_bytes(b"\x89PNG of a camera")

    assert run("posterior prior.safetensors y.h5 -n 4 -o p.h5 --figure photo.png") == 1

    assert "photo.png: this file is there already, and it holds no" in capsys.readouterr().err
    assert (folder / "photo.png").read_bytes() == b"\x89PNG of a camera"
    assert not (folder / "p.h5").exists()


# Interruptions

LONG = {
    "sample": "sample net.safetensors -n 10 --batch 3 --steps 2 --device cpu",
    "posterior": "posterior net.safetensors y.h5 -n 2 --batch 2 --steps 2 --device cpu",
}
PIECES = {"sample": 4, "posterior": 3}
"""How many pieces the work of each command has: batches, observations."""


@pytest.fixture
def network(folder):
    """A prior with a network in the folder, of which a batch is a piece of work."""
    network = {"name": "mlp", "hidden": [8], "embedding": 4}
    schedule = {"sigma_min": 0.1, "sigma_max": 5.0}
    denoiser = build_denoiser(network, schedule, SHAPE, seed=0)
    card = {"network": network, "schedule": schedule}
    Prior(random_gaussian(SHAPE, 2, torch.float32), denoiser, card).save("net.safetensors")
    return folder


def contents(path):
    """Returns all that is in a file, but for the seconds that it took."""
    with Reader(path) as file:
        names = []
        file.file.visititems(lambda name, it: names.append(name) if hasattr(it, "dtype") else None)
        told = {k: np.asarray(file.attribute(k)).tolist() for k in file.attributes}
        arrays = {name: file.read(name).tobytes() for name in names}
    told.pop("seconds", None)
    return told, arrays


def beside(folder, name):
    """Returns what lies beside an output for a later attempt."""
    return [path for path in folder.iterdir() if name in path.name and path.name != name]


def each_piece(monkeypatch, before):
    """Has a function be called before each piece that is really made."""
    original = resume.Pieces.__call__

    def call(self, name, make):
        def made():
            before()
            return make()

        return original(self, name, made)

    monkeypatch.setattr(resume.Pieces, "__call__", call)


@pytest.mark.parametrize("verb", LONG)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_who_interrupts_loses_nothing_that_was_finished(
    network, capsys, monkeypatch, request, verb, number
):
    assert run(f"{LONG[verb]} -o whole.h5") == 0
    made = []

    def before():
        made.append(1)
        if len(made) == 3:
            os.kill(os.getpid(), number)

    capsys.readouterr()
    # Whoever runs the tests may ignore it.
    usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    former = signal.signal(number, usual)
    request.addfinalizer(lambda: signal.signal(number, former))
    each_piece(monkeypatch, before)
    with pytest.raises(SystemExit) as end:
        run(f"{LONG[verb]} -o cut.h5")

    assert end.value.code == 128 + number
    told = capsys.readouterr()
    assert told.err == (
        "Interrupted: what is finished of cut.h5 is kept beside it, and the same command goes on"
        " from there.\n"
    )
    assert told.out == ""
    assert signal.getsignal(number) == usual
    assert not (network / "cut.h5").exists()
    assert len(beside(network, "cut.h5")) == 1

    assert run(f"{LONG[verb]} -o cut.h5") == 0
    assert len(made) == PIECES[verb] + 1  # one was begun twice
    assert contents("cut.h5") == contents("whole.h5")
    assert contents("cut.h5")[0]["denoiser_evaluations"] > 0
    assert beside(network, "cut.h5") == []
    if verb == "sample":
        assert (network / "cut.h5").read_bytes() == (network / "whole.h5").read_bytes()


@pytest.mark.parametrize("verb", LONG)
@pytest.mark.parametrize("change", ["--seed 1", "--batch 4", "--sampler ddim", "the prior"])
def test_what_another_command_left_is_not_used(network, monkeypatch, verb, change):
    made = []
    with monkeypatch.context() as patch:
        each_piece(patch, lambda: made.append(1) if len(made) < 2 else os.kill(os.getpid(), 15))
        with pytest.raises(SystemExit):
            run(f"{LONG[verb]} -o cut.h5")
    command = f"{LONG[verb]} {change if '--' in change else ''}"
    if change == "the prior":
        Prior(random_gaussian(SHAPE, 2, torch.float32, 1), None, {}).save("net.safetensors")

    assert run(f"{command} -o cut.h5") == 0
    assert run(f"{command} -o whole.h5") == 0
    assert contents("cut.h5") == contents("whole.h5")
    assert beside(network, "cut.h5") == []


def test_nohup_keeps_its_word(network, monkeypatch):
    usual = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        each_piece(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGHUP))
        assert run(f"{LONG['sample']} -o x.h5") == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, usual)


@pytest.mark.slow
def test_posteriors_are_not_drawn_again_for_a_figure(network, monkeypatch):
    made = []
    each_piece(monkeypatch, lambda: made.append(1))
    with monkeypatch.context() as patch:
        patch.setattr(style, "save", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit):
            run(f"{LONG['posterior']} -o p.h5 --figure f.png")

    assert run(f"{LONG['posterior']} -o p.h5 --figure f.png") == 0
    assert len(made) == PIECES["posterior"]
    assert (network / "f.png").exists()
    assert beside(network, "p.h5") == []


KILLED = """
import os, signal, sys
from diem import cli
from diem.files.atomic import LossyFile
from diem.jobs import resume

point, *command = sys.argv[1:]
left = int(point)

def counted(function):
    def call(*arguments):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return call

# Pieces are written as they are made. It is killed before one of them is, before it is written, or
# before a part of the output is.
resume.Pieces.__init__.__defaults__ = (None, "", 0.0)
resume.Pieces.write = counted(resume.Pieces.write)
resume.Pieces.__call__ = counted(resume.Pieces.__call__)
LossyFile.check = counted(LossyFile.check)
sys.exit(cli.main(command))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "points"), [("sample", (3, 6, 8, 11)), ("posterior", (5, 12))])
def test_a_killed_command_goes_on(network, monkeypatch, verb, points):
    assert run(f"{LONG[verb]} -o whole.h5") == 0
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    kept = set()
    for point in points:
        command = [sys.executable, "-c", KILLED, str(point), *LONG[verb].split(), "-o", "cut.h5"]
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert result.returncode == -signal.SIGKILL, result.stderr
        assert not (network / "cut.h5").exists()
        now = {path.name for path in network.glob(".cut.h5.diem/pieces-*/*.*.npz")}
        assert now >= kept  # nothing is made again
        kept = now
    assert kept

    made = []
    each_piece(monkeypatch, lambda: made.append(1))
    assert run(f"{LONG[verb]} -o cut.h5") == 0
    assert len(made) == PIECES[verb] - len(kept)
    assert contents("cut.h5") == contents("whole.h5")
    assert beside(network, "cut.h5") == []


def drawn(command, *, killed_at=10**6):
    """Draws in a process of its own, which may be killed at a point."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-c", KILLED, str(killed_at), *command.split()]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == (0 if killed_at == 10**6 else -signal.SIGKILL), result.stderr


@pytest.mark.slow
def test_what_other_code_of_ones_own_left_is_not_used(network):
    code = (
        "from diem.operators.base import Operator\n"
        "class Scaled(Operator):\n"
        "    fields = ('one',)\n"
        "    observation_shape = property(lambda self: self.event_shape)\n"
        "    def forward(self, x): return 1.0 * x\n"
        "    adjoint = forward\n"
    )
    one = np.ones(3, np.float32)
    arrays = {"y": np.ones((3, *SHAPE), np.float32), "operator/one": one, "sigma_y": 0.1 * one}
    told = {"operator": "scaled:Scaled", "event_shape": SHAPE}
    write_hdf5("y.h5", {f"test/{name}": values for name, values in arrays.items()}, told)
    command = f"{LONG['posterior']} --operator scaled:Scaled -o"

    (network / "scaled.py").write_text(code)
    drawn(f"{command} cut.h5", killed_at=5)
    assert beside(network, "cut.h5") != []
    (network / "scaled.py").write_text(code.replace("1.0 * x", "2.0 * x"))
    drawn(f"{command} cut.h5")
    drawn(f"{command} whole.h5")

    assert contents("cut.h5") == contents("whole.h5")


@pytest.mark.slow
@pytest.mark.parametrize("verb", LONG)
def test_what_another_sampler_of_ones_own_left_is_not_used(network, verb):
    code = (
        "from diem.diffusion.samplers.base import Sampler\n"
        "class Jump(Sampler):\n"
        "    name = 'jump'\n"
        "    def step(self, denoise, x_t, t, s, noise): return 1.0 * denoise(x_t, t)\n"
    )
    command = f"{LONG[verb]} --sampler jump:Jump -o"

    (network / "jump.py").write_text(code)
    drawn(f"{command} cut.h5", killed_at=5)
    assert beside(network, "cut.h5") != []
    (network / "jump.py").write_text(code.replace("1.0", "2.0"))
    drawn(f"{command} cut.h5")
    drawn(f"{command} whole.h5")

    assert contents("cut.h5") == contents("whole.h5")


def test_check(folder, capsys):
    write_hdf5("empty.h5", {}, {})
    observed, _ = observe(random_gaussian(SHAPE, 2, torch.float32), MASK, 30, 0.1)
    save_observations("good.h5", {"train": observed}, "mask", {})

    assert run("check good.h5") == 0
    out = capsys.readouterr().out
    assert "30 observations" in out
    assert out.endswith("The file can be used.\n")
    assert run("check empty.h5") == 1
    assert capsys.readouterr().err.startswith("Error: empty.h5: the attribute 'operator'")


def test_estimate(folder, capsys, monkeypatch):
    from diem.planning import estimate

    seen = []
    rows = {"experiment": "e", "stage": "E-steps", "run": "r", "jobs": 1, "flops": 1e12}
    rows |= {"hours": 0.5, "gpu": "9.0", "gpu_tflops": 9.0, "gpu_hours": None, "bytes": 1e6}
    rows |= {"device": "cpu", "threads": 1, "job_seconds": 2.0, "calibration_seconds": 3.0}
    monkeypatch.setattr(
        estimate, "estimate", lambda config, gpu: seen.append((config["seed"], gpu)) or [rows]
    )
    (folder / "c.yaml").write_text(
        "heuristics: {some: {}}\nseed: 5\nthreads: 1\n", encoding="utf-8"
    )

    assert run("estimate c.yaml --gpu 9") == 0
    assert seen == [(5, 9.0)]
    assert "E-steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "part"),
    [
        ("sample nothing -n 3 -o x.h5", "nothing: there is no such file"),
        ("sample y.h5 -n 3 -o x.h5", "y.h5: this is no complete safetensors file"),
        ("sample prior.safetensors -n 0 -o x.h5", "n is 0"),
        ("sample prior.safetensors -n 3 -o x.h5 --seed -1", "seed is -1"),
        ("sample prior.safetensors -n 3 -o x.h5 --seed 99999999999999999999", "seed is 99999"),
        ("posterior prior.safetensors y.h5 -o x.h5 --limit -1", "limit is -1"),
        ("posterior prior.safetensors y.h5 -o x.h5 --batch 0", "batch is 0"),
        ("posterior prior.safetensors y.h5 -o x.h5 --seed -1", "seed is -1"),
        ("sample prior.safetensors -n 3 -o x.h5 --sampler dpm", "sampler.name is 'dpm'"),
        ("sample prior.safetensors -n 3 -o x.h5 --device cuda:99", "device: 'cuda:99'"),
        ("sample prior.safetensors -n 3 -o prior.safetensors/x.h5", "cannot be written"),
        ("sample prior.safetensors -n 3 -o .", "this is a folder"),
        (f"sample prior.safetensors -n 3 -o {'a' * 300}", "aaa: File name too long."),
        (f"check {'a' * 300}", "aaa: "),
        ("posterior prior.safetensors nothing -o x.h5", "nothing: there is no such file"),
        ("posterior prior.safetensors prior.safetensors -o x.h5", "no complete HDF5 file"),
        ("posterior prior.safetensors y.h5 -n 1 -o x.h5", "n is 1"),
        ("posterior prior.safetensors y.h5 --covariance x -o x.h5", "covariance is 'x'"),
        ("posterior prior.safetensors y.h5 --figure x.gif -o x.h5", "x.gif: the name"),
        ("posterior prior.safetensors y.h5 --operator blur -o x.h5", "'mask', where 'blur'"),
        ("posterior prior.safetensors y.h5 --sigma-y 1 -o x.h5", "a sigma_y is given beside it"),
        ("check nothing", "nothing: there is no such file"),
        ("check prior.safetensors", "no complete HDF5 file"),
        ("estimate nothing", "nothing: No such file or directory"),
        ("estimate prior.safetensors", "prior.safetensors: this is no YAML"),
        ("estimate twice.yaml", "twice.yaml: the key 'seed' stands twice, in the lines 1 and 3"),
        ("estimate itself.yaml", "itself.yaml: an alias in it stands for what"),
        ("estimate list.yaml", "list.yaml: a configuration is a mapping"),
        ("estimate typo.yaml", "typo.yaml: experiment is unknown (did you mean 'experiments'?)"),
        ("estimate some.yaml --gpu -3", "estimate_gpu: -3 is no rate"),
        ("estimate some.yaml --gpu nan", "estimate_gpu: nan is no rate"),
        ("estimate some.yaml --gpu inf", "estimate_gpu: inf is no rate"),
        ("export . -o x.safetensors", "there is no lap with a prior"),
        ("export . -o x.pt", "must end in .safetensors"),
    ],
)
def test_errors_are_one_sentence(folder, capsys, command, part):
    assert run(command) == 1

    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert part in error
    assert error.count("\n") == 1
    assert not (folder / "x.h5").exists()


@pytest.mark.parametrize(
    "command",
    [
        "sample prior.safetensors -n 3 -o prior.safetensors",
        "posterior prior.safetensors y.h5 -o y.h5",
        "posterior prior.safetensors y.h5 -o folder/../y.h5",
        "posterior prior.safetensors link.h5 -o y.h5",
        "posterior prior.safetensors y.h5 -o prior.safetensors",
        "posterior prior.safetensors y.h5 -o x.png --figure x.png",
    ],
)
def test_nothing_is_written_over_what_is_read(folder, capsys, command):
    (folder / "folder").mkdir()
    (folder / "link.h5").symlink_to(folder / "y.h5")
    before = {path: path.read_bytes() for path in folder.glob("*.*")}

    assert run(command) == 1

    assert "give the output another name" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.glob("*.*")} == before


@pytest.mark.parametrize("verb", ["check y.h5", "posterior prior.safetensors y.h5 -o out.h5"])
def test_code_that_only_a_file_names_is_not_run(folder, capsys, monkeypatch, verb):
    (folder / "telescope.py").write_text("open('ran', 'w')\n")
    monkeypatch.setenv("DIEM_PATH", str(folder))
    monkeypatch.delitem(sys.modules, "telescope", raising=False)
    observed, _ = observe(random_gaussian(SHAPE, 2, torch.float32), MASK, 3, 0.1)
    save_observations("y.h5", {"train": observed}, "telescope:Beam", {})

    assert run(verb) == 1

    told = capsys.readouterr().err
    assert "'telescope:Beam', which is imported only if you name it" in told
    assert told.count("Error") == 1
    assert not (folder / "ran").exists()
    run(f"{verb} --operator telescope:Beam")
    assert (folder / "ran").exists()
