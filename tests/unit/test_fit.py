"""A prior learned in one call of Python."""

import json
import logging
import signal
import subprocess
import sys
import tempfile
import threading
import warnings

import numpy as np
import pytest
import torch
from helpers import random_gaussian

import diem
from diem.data.observations import Observations
from diem.diffusion.prior import read_prior
from diem.em import m_step
from diem.errors import DiemError
from diem.in_python.taking import ObservationWarning
from diem.inference.prior_denoiser import PriorDenoiser
from diem.jobs import code
from diem.operators import Operator, Partial, build

TINY = {
    "network": {"name": "mlp", "hidden": [8], "embedding": 4},
    "gaussian": {"iterations": 2},
    "e_step": {"sampler": {"steps": 2}},
    "m_step": {"steps": 4, "batch": 16},
    "evaluation": {
        **{"samples": 4, "test_observations": 4, "posterior_samples": 2},
        **{"sampler": {"steps": 2}, "posterior": {"sampler": {"steps": 4}}},
        "predicted_observations": 8,
    },
}
QUICK = {"laps": 1, "settings": TINY, "progress": False}
MATRIX = torch.linspace(-1, 1, 12).reshape(3, 4)


def observations(count=60, shape=(4,), missing=0.3):
    rng = np.random.default_rng(0)
    y = rng.standard_normal((count, *shape)).astype(np.float32)
    y[rng.random(y.shape) < missing] = np.nan
    return y


def by_matrix(x):
    return x @ MATRIX.T


def same(one, other):
    """Tells whether two priors have the same numbers."""
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.fixture
def nothing_left(tmp_path, monkeypatch):
    """A folder of temporary files, and one to work in, in which nothing may be left."""
    for name in ("temporary", "work"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path / "work")
    yield tmp_path
    assert list(tmp_path.rglob("*/*")) == []


def test_a_prior_that_samples_and_tells_how_it_was_chosen(nothing_left):
    y = observations()

    prior = diem.fit(y, "mask", 0.1, **QUICK)

    assert isinstance(prior, PriorDenoiser)
    assert prior.sample(3).shape == (3, 4)
    assert prior.posterior(y[:5], "mask", 0.1, 2).shape == (5, 2, 4)
    chosen = prior.card["chosen_by"]
    assert [row["lap"] for row in chosen["rows"]] == chosen["laps"] == [0, 1]
    (best,) = (row for row in chosen["rows"] if row["verdict"] == "chosen")
    assert best["lap"] == prior.card["lap"]
    assert best["prediction"] == min(row["prediction"] for row in chosen["rows"])
    assert "chosen" in chosen["told"]
    assert {row["metric"] for row in prior.card["metrics"]} >= {"prediction", "residual_rms"}
    assert "path" not in prior.card["data"]  # where they lay is of no weight
    assert prior.card["code"]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers(nothing_left):
    y = observations()

    one = diem.fit(y, "mask", 0.1, **QUICK)

    assert same(one, diem.fit(torch.from_numpy(y), {"name": "mask"}, 0.1, seed=0, **QUICK))
    assert same(one, diem.fit(y.tolist(), "mask", [0.1], seed=np.int64(0), **QUICK))
    masked = np.ma.masked_invalid(y.astype(float))
    again = diem.fit(masked, "mask", np.full(y.shape[1:], 0.1, "float32"), **QUICK)
    assert same(one, again)
    assert not same(one, diem.fit(y, "mask", 0.1, seed=1, **QUICK))


class Beam(Operator):
    """An operator of a test's own, which observes a part."""

    fields = ("gain",)

    @property
    def observation_shape(self):
        return self.event_shape

    def forward(self, x):
        return self.parameters["gain"] * x

    adjoint = forward


@pytest.mark.slow
def test_every_kind_of_operator(nothing_left):
    class Local(Beam):
        """A class as a notebook has it."""

    y = observations(missing=0.0)
    three = (torch.from_numpy(y) @ MATRIX.T).numpy()
    gain = 1 + torch.rand(60, 1)
    matrix = {"name": "projection", "matrix": MATRIX[None]}

    named = diem.fit(three, matrix, 0.1, event_shape=(4,), **QUICK)
    function = diem.fit(three, by_matrix, 0.1, event_shape=(4,), **QUICK)
    told = diem.fit(three, by_matrix, 0.1, adjoint=lambda y: y @ MATRIX, **QUICK)
    torch.testing.assert_close(named.mean, function.mean, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(named.mean, told.mean, rtol=1e-3, atol=1e-3)

    one, other = (diem.fit(y, cls((4,), {"gain": gain}), 0.1, **QUICK) for cls in (Beam, Local))
    assert same(one, other)
    shown = torch.rand(60, 4) < 0.7
    beam = Beam((4,), {"gain": gain})
    holes = np.where(shown.numpy(), y, np.nan)
    part = diem.fit(holes, beam, 0.1, **QUICK)
    assert same(part, diem.fit(y, Partial(beam, shown), 0.1, **QUICK))
    assert not same(part, one)


@pytest.mark.slow
def test_noise_of_every_shape(nothing_left):
    y = observations(missing=0.0)
    each = np.linspace(0.1, 0.2, 60)

    one, other = (diem.fit(y, "mask", sigma, **QUICK) for sigma in (each, each[:, None]))

    assert same(one, other)
    assert same(one, diem.fit(y, "mask", np.tile(each[:, None], (1, 4)), **QUICK))
    assert not same(one, diem.fit(y, "mask", 0.15, **QUICK))


def test_of_few_observations_more_can_be_held_out(nothing_left):
    evaluation = {**TINY["evaluation"], "test_observations": 2}
    settings = {**TINY, "evaluation": evaluation, "data": {"validation": 0.25, "test": 0.25}}

    prior = diem.fit(observations(12), "mask", 0.1, **{**QUICK, "settings": settings})

    card = prior.card
    drawn = card["training_samples"] / card["e_step"]["repeats"] if card["lap"] else 0
    assert (drawn or card["fitted_to"]) == 6


def test_few_observations_leave_two_to_compare_laps_by(nothing_left):
    evaluation = {**TINY["evaluation"], "test_observations": 1}

    settings = {**TINY, "evaluation": evaluation}
    prior = diem.fit(observations(4, missing=0), "mask", 0.1, **{**QUICK, "settings": settings})

    assert all(row["prediction"] > 0 for row in prior.card["chosen_by"]["rows"])
    assert prior.card["data"]["validation"] == 0.5


REFUSED = {
    "a folder of a number": ({"folder": 5}, ["folder is 5", "the name of a folder"]),
    "a folder of a long name": ({"folder": "a" * 300}, ["folder: the folder 'aaa", "too long"]),
    "a folder of no name": ({"folder": "a\0b"}, ["folder: the folder 'a\\x00b'", "null byte"]),
    "one axis": ({"y": np.zeros(5)}, ["y has shape (5,)", "one a row"]),
    "no rows": ({"y": np.zeros((0, 4))}, ["y has shape (0, 4)"]),
    "ragged": ({"y": [[1, 2], [3]]}, ["y is no array", "rows differ"]),
    "text": ({"y": np.array([["a"]])}, ["y is of type", "numbers are needed"]),
    "complex": ({"y": np.ones((60, 4), complex)}, ["y is complex", "as channels"]),
    "infinite": ({"y": np.where(observations() > 2, np.inf, observations())}, ["y", "infinite"]),
    "too large": (
        {"y": 1e300 * observations().astype(float)},
        ["y holds infinite values (as float32)"],
    ),
    "all missing": ({"y": np.full((60, 4), np.nan)}, ["no value is observed"]),
    "too few": ({"y": observations(2)}, ["2 different x", "too few to hold out"]),
    "few": ({"y": observations(3)}, ["3 different x", "too few to hold out", "4 or more"]),
    "zero noise": ({"sigma_y": 0.0}, ["sigma_y must be positive"]),
    "negative noise": ({"sigma_y": np.full(60, -0.1)}, ["sigma_y must be positive"]),
    "no noise": ({"sigma_y": np.nan}, ["sigma_y must be positive"]),
    "noise of a word": ({"sigma_y": "small"}, ["sigma_y is of type"]),
    "noise of a shape": ({"sigma_y": np.ones(7)}, ["sigma_y has shape (7,)", "(60,), (4,)"]),
    "noise of two": (
        {"y": observations(60, (60,)), "sigma_y": np.ones(60)},
        ["sigma_y has shape (60,)", "(60, 1) or (1, 60)"],
    ),
    "unknown operator": ({"operator": "msk"}, ["operator is 'msk'", "'mask'"]),
    "no shape": ({"operator": lambda x: x[:, :3]}, ["event_shape is missing"]),
    "another shape": (
        {"operator": by_matrix, "event_shape": (4,)},
        ["y has rows of shape (4,)", "x with shape (4,) gives (3,)"],
    ),
    "two operators": (
        {"operator": Beam((4,), {"gain": torch.ones(2, 1)})},
        ["60 observations", "2 operators"],
    ),
    "not linear": ({"operator": lambda x: x + 1}, ["operator 'Function'", "not linear"]),
    "wrong adjoint": (
        {"operator": lambda x: x, "adjoint": lambda y: 2 * y},
        ["operator 'Function'", "adjoint"],
    ),
    "unknown argument": ({"event_shap": (4,)}, ["event_shap is unknown", "'event_shape'"]),
    "no seed": ({"seed": -1}, ["seed is -1", "at least 0"]),
    "no laps": ({"laps": 0}, ["laps is 0", "at least 1"]),
    "laps twice": ({"settings": {"laps": 3}}, ["laps is given twice"]),
    "no device": ({"device": "gpu"}, ["device is 'gpu'"]),
    "no mapping": ({"settings": 3}, ["settings is 3"]),
    "unknown section": ({"settings": {"mstep": {}}}, ["settings.mstep is unknown", "'m_step'"]),
    "a run": ({"settings": {"runs": {}}}, ["settings.runs is unknown"]),
    "unknown key": (
        {"settings": {"m_step": {"stepz": 3}}},
        ["settings.m_step.stepz is unknown", "'steps'"],
    ),
    "bad value": ({"settings": {"m_step": {"steps": -3}}}, ["settings.m_step.steps is -3"]),
    "bad threads": ({"settings": {"threads": 0}}, ["threads is 0"]),
    "a path": ({"settings": {"data": {"path": "other.h5"}}}, ["settings.data.path", "are y"]),
    "no choice": (
        {"settings": {"evaluation": {"metrics": ["residual"]}}},
        ["settings.evaluation.metrics lacks 'prediction'"],
    ),
    "processes": ({"settings": {"m_step": {"processes": 2}}}, ["settings.m_step.processes"]),
    "nodes": ({"settings": {"m_step": {"nodes": 2}}}, ["settings.m_step.nodes"]),
    "a column too few": (
        {"settings": {"data": {"scale": [1.0, 2.0, 3.0]}}},
        ["settings.data.scale is a list of 3", "shape (4,)"],
    ),
    "columns of a function": (
        {"operator": lambda x: x, "settings": {"data": {"scale": [1.0, 2.0, 3.0, 4.0]}}},
        ["data.scale is a list", "needs observations of single values", "'mask'"],
    ),
    "augmentations": (
        {"settings": {"m_step": {"augment": {"flip": True}}}},
        ["settings.m_step.augment.flip needs images"],
    ),
}


@pytest.mark.parametrize(("arguments", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_fitted_is_told_in_a_sentence(nothing_left, arguments, words):
    given = {"y": observations(), "operator": "mask", "sigma_y": 0.1, **QUICK, **arguments}

    with pytest.raises(DiemError) as told:
        diem.fit(**{"folder": "results", **given})

    sentence = str(told.value)
    assert all(word in sentence for word in words), sentence
    assert str(nothing_left) not in sentence
    assert "\n" not in sentence


@pytest.mark.slow
def test_what_is_implausible_is_warned_of(nothing_left):
    y = observations()
    with pytest.warns(ObservationWarning, match="implausibly large"):
        diem.fit(y, "mask", 3.0, **QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prior = diem.fit(300 + 50 * y, "mask", 5.0, **QUICK)  # it is scaled
    assert prior.scale == pytest.approx(50, rel=0.2)
    assert prior.mean == pytest.approx(300, abs=50)


@pytest.mark.slow
def test_columns_of_unlike_units_are_scaled_each(nothing_left):
    mean, sd = np.array([1013.0, 0.6, 0.0, -50.0]), np.array([1000.0, 0.01, 1.0, 10.0])
    y = mean + sd * observations()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prior = diem.fit(y, "mask", 0.1 * sd, **QUICK)

    np.testing.assert_allclose(prior.scale, sd, rtol=0.3)
    assert (abs(prior.offset.numpy() - mean) < 0.5 * sd).all()
    assert (abs(prior.mean.numpy() - mean) < sd).all()
    hidden = np.isnan(y)
    x = prior.posterior(y, "mask", 0.1 * sd, 2).numpy()
    assert np.median((abs(x.mean(axis=1) - y) / sd)[~hidden]) < 0.3


# Folders


@pytest.mark.slow
def test_a_folder_is_gone_on_with(tmp_path, monkeypatch):
    y, folder = observations(), tmp_path / "fitted"
    one = diem.fit(y, "mask", 0.1, folder, **QUICK)
    assert same(one, diem.load_prior(folder / "prior.safetensors"))
    assert same(one, diem.fit(y, "mask", 0.1, **QUICK))
    made = {p: p.stat().st_mtime_ns for p in (folder / "fit/runs/base/lap_01_final").iterdir()}
    assert (folder / "prior.md").read_text().startswith("# Prior fit/base")
    with Observations(folder / "fit/observations/all/observations.h5") as file:
        assert [file.count(split) for split in file.splits()] == [51, 3, 6]

    monkeypatch.chdir(tmp_path)
    assert same(one, diem.fit(y, "mask", 0.1, "fitted", **QUICK))
    assert made == {path: path.stat().st_mtime_ns for path in made}

    diem.fit(y, "mask", 0.1, folder, **{**QUICK, "laps": 2})
    more = read_prior(folder / "fit/runs/base/lap_02_final/prior.safetensors")
    diem.fit(y, "mask", 0.1, "anew", **{**QUICK, "laps": 2})
    anew = read_prior(tmp_path / "anew/fit/runs/base/lap_02_final/prior.safetensors")
    assert same(PriorDenoiser(more), PriorDenoiser(anew))
    memory = {**TINY, "e_step": {**TINY["e_step"], "batch": 16}, "checkpoint_seconds": 1}
    assert same(one, diem.fit(y, "mask", 0.1, folder, **{**QUICK, "settings": memory}))
    assert made == {path: path.stat().st_mtime_ns for path in made}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, ["another seed"]),
        ({"y": observations(61)}, ["other observations"]),
        ({"sigma_y": 0.2}, ["another sigma_y"]),
        ({"operator": lambda x: 1.001 * x}, ["another operator"]),
        (
            {"settings": {**TINY, "m_step": {"steps": 5, "batch": 16}}},
            ["settings.m_step.steps 4 rather than 5"],
        ),
    ],
    ids=["seed", "observations", "noise", "operator", "settings"],
)
def test_a_folder_of_another_fit_is_refused(tmp_path, changes, words):
    given = {"y": observations(missing=0), "operator": lambda x: x, "sigma_y": 0.1, **QUICK}
    diem.fit(folder=tmp_path / "fitted", **given)
    before = {p: p.read_bytes() for p in (tmp_path / "fitted").rglob("*") if p.is_file()}

    with pytest.raises(DiemError) as told:
        diem.fit(folder=tmp_path / "fitted", **{**given, **changes})

    assert all(word in str(told.value) for word in ("folder: ", *words)), told.value
    assert before == {p: p.read_bytes() for p in before}


@pytest.mark.slow
def test_a_folder_of_other_code_of_ones_own_is_refused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine.py").write_text(
        "import torch\n\nclass Net(torch.nn.Module):\n"
        "    def __init__(self, event_shape):\n        super().__init__()\n"
        "        self.line = torch.nn.Linear(*event_shape, *event_shape)\n\n"
        "    def forward(self, x_t, t, **_):\n        return self.line(x_t)\n"
    )
    settings = {**TINY, "network": {"name": "mine:Net"}}
    given = {"y": observations(), "operator": "mask", "sigma_y": 0.1, "folder": tmp_path / "a"}
    given |= {**QUICK, "settings": settings}
    diem.fit(**given)
    source = (tmp_path / "mine.py").read_text()
    (tmp_path / "mine.py").write_text(f"{source}# in other words\n")
    code._digest.cache_clear()  # as in another process
    diem.fit(**given)

    (tmp_path / "mine.py").write_text(f"{source}width = 1\n")
    code._digest.cache_clear()
    with pytest.raises(DiemError, match=r"folder: .* of your own code"):
        diem.fit(**given)


def test_a_folder_that_is_anothers_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    (tmp_path / "workflow/figures").mkdir(parents=True)
    (tmp_path / "workflow/.diem.lock").touch()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/.diem.fit.json").write_text("{")
    before = sorted(tmp_path.rglob("*"))

    for name, words in {
        "file": "folder: the folder",
        "full": "notes.txt",
        "workflow": "results of the workflow",
        "damaged": "is damaged",
    }.items():
        with pytest.raises(DiemError, match=words):
            diem.fit(observations(), "mask", 0.1, tmp_path / name, **QUICK)

    assert sorted(set(tmp_path.rglob("*")) - {tmp_path / "damaged/.diem.lock"}) == before
    assert (tmp_path / "file").read_text() == (tmp_path / "full/notes.txt").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_an_interruption_leaves_whole_files_and_loses_nothing(tmp_path, monkeypatch, times):
    y, folder = observations(), tmp_path / "fitted"
    settings = {**TINY, "m_step": {"steps": 192, "batch": 16}, "checkpoint_seconds": 0}
    known = {**QUICK, "settings": settings}
    whole = diem.fit(y, "mask", 0.1, **known)

    def interrupted(*arguments):
        *others, report = arguments
        left = [signal.SIGINT] * times

        def told(step, loss):
            report(step, loss)
            if left:
                signal.raise_signal(left.pop())

        return train(*others, told)

    train = m_step.train
    monkeypatch.setattr(m_step, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        diem.fit(y, "mask", 0.1, folder, **known)
    monkeypatch.undo()
    lap = folder / "fit/runs/base/lap_01_final"
    assert [path.name for path in lap.glob("[!.]*")] == ["samples.h5"]
    assert (lap / ".prior.safetensors.diem/checkpoint").is_file()

    assert same(whole, diem.fit(y, "mask", 0.1, folder, **known))
    assert [path.name for path in folder.rglob(".*")] == [".diem.lock", ".diem.fit.json"]


# What a fit may not touch


def test_global_state_is_as_it_was(nothing_left):
    logger = logging.getLogger("diem")

    def state():
        return (
            torch.get_num_threads(),
            torch.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),
            [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGURG)],
            (logger.level, list(logger.handlers), logging.getLogger().handlers[:]),
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
        )

    y, before = observations(), state()

    diem.fit(y, "mask", 0.1, **{**QUICK, "settings": {**TINY, "threads": 2}})

    assert state() == before


@pytest.mark.slow
def test_another_thread_gets_the_same_numbers(nothing_left):
    y, found = observations(), []

    thread = threading.Thread(target=lambda: found.append(diem.fit(y, "mask", 0.1, **QUICK)))
    thread.start()
    thread.join()

    assert same(found[0], diem.fit(y, "mask", 0.1, **QUICK))


@pytest.mark.slow
def test_progress_is_told_lap_by_lap(nothing_left, capsys):
    diem.fit(observations(), "mask", 0.1, laps=2, settings=TINY)

    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert [line.partition(": loss ")[0] for line in lines[:2]] == ["lap 1 of 2", "lap 2 of 2"]
    assert "chosen" in lines[2]
    assert "lap 2 of 2: M-step" in printed.err
    diem.fit(observations(), "mask", 0.1, **QUICK)
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_it_is_imported_at_its_first_use():
    code = (
        "import sys, diem; heavy = {'torch', 'h5py', 'yaml'} & set(sys.modules);"
        " import json; print(json.dumps([sorted(heavy), callable(diem.fit),"
        " 'snakemake' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert json.loads(done.stdout) == [[], True, False]


# An exact answer


@pytest.mark.slow
def test_gaussian_data_behind_projections_are_learned(tmp_path):
    """Of Gaussian data all is known: the best posterior mean of an observation, and the moments.

    The mean of 32 posterior samples has 1 + 1/32 of the best mean squared error if the prior is
    right: 1.6 % of its root. 10 % leave the rest for what observations do not tell, and for the
    network. A variance of 850 samples of the data themselves has a standard error of sqrt(2 / 850),
    5 %; with half of each x hidden, and most of the rest far from an axis, it is some 10 %, and
    that of a mean about 7 % of a standard deviation: the bounds are three of each.
    """
    rng = np.random.default_rng(0)
    truth = random_gaussian((4,), 3)
    covariance = truth.noise * torch.eye(4).double() + truth.factors @ truth.factors.T
    covariance, mean = covariance.numpy(), truth.mean.numpy()

    def observed(count):
        x = rng.multivariate_normal(mean, covariance, count)
        matrix = rng.standard_normal((count, 2, 4))
        matrix /= np.linalg.norm(matrix, axis=-1, keepdims=True)
        y = np.einsum("bij,bj->bi", matrix, x) + 0.1 * rng.standard_normal((count, 2))
        return x, matrix, y

    _, matrix, y = observed(1000)
    settings = {
        "network": {"name": "residual_mlp", "width": 64, "blocks": 2},
        "e_step": {"sampler": {"steps": 16}},
        "m_step": {"steps": 300, "learning_rate": 0.002},
        "evaluation": {"samples": 64, "sampler": {"steps": 8}},
    }
    operator = {"name": "projection", "matrix": matrix}
    diem.fit(
        *(y, operator, 0.1, tmp_path / "fitted"),
        event_shape=(4,),
        laps=2,
        settings=settings,
        progress=False,
    )
    gaussian, last = (
        diem.load_prior(tmp_path / "fitted/fit" / name)
        for name in (
            "observations/all/gaussian.safetensors",
            "runs/base/lap_02_final/prior.safetensors",
        )
    )

    x, matrix, y = observed(200)
    gain = covariance @ matrix.mT
    gain = gain @ np.linalg.inv(matrix @ gain + 0.01 * np.eye(2))
    best = mean + np.einsum("bij,bj->bi", gain, y - matrix @ mean)
    least = np.sqrt(np.square(best - x).mean())
    size = np.sqrt(covariance.diagonal())
    for prior in (gaussian, last):
        draws = prior.posterior(y, {"name": "projection", "matrix": matrix}, 0.1, 32)
        error = np.sqrt(np.square(draws.mean(dim=1).numpy() - x).mean())
        assert error < 1.1 * least
        drawn = prior.sample(4096).numpy()
        assert (abs(drawn.mean(axis=0) - mean) < 0.2 * size).all()
        assert (abs(np.cov(drawn.T) - covariance) < 0.3 * np.outer(size, size)).all()


def test_the_units_are_those_of_the_observations(nothing_left):
    mask = build("mask", (4,), {"mask": torch.ones(1, 4, dtype=torch.bool)})
    prior = diem.fit(1e3 + 200 * observations(missing=0), mask, 20.0, **QUICK)

    assert prior.mean == pytest.approx(1e3, abs=200)
