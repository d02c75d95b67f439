"""The user's own observations: written from arrays, checked, taken in, and read."""

import subprocess
import sys
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from azula.noise import VESchedule
from helpers import random_gaussian, simulate

import diem
from diem.config.inputs import Inputs
from diem.config.resolve import resolve
from diem.data.ingest import ingest
from diem.data.observations import SPLITS, Observations
from diem.data.validate import check_file
from diem.diffusion.covariances import COVARIANCES
from diem.diffusion.gaussian import Gaussian, fit_to_observations
from diem.diffusion.posterior import Guidance, PosteriorDenoiser
from diem.errors import DiemError
from diem.files.hdf5 import Reader
from diem.operators.base import build
from diem.operators.sparse import csr_parameters

HELD_OUT = {"validation": 0.05, "test": 0.1, "offset": 0.0, "scale": 1.0}


def levels(findings, level):
    return [finding.sentence for finding in findings if finding.level == level]


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    x = np.clip(rng.standard_normal((200, 2, 6, 6)).cumsum(axis=-1) / 2, -2, 2)
    y = (x + 0.1 * rng.standard_normal(x.shape)).astype(np.float32)
    y[rng.random(y.shape) < 0.5] = np.nan
    return y


def test_the_operator_that_a_file_names_is_known_to_the_plan(tmp_path, images):
    diem.write_observations(tmp_path / "own.h5", {"train": images}, operator="mask", sigma_y=0.1)
    experiment = {
        "data": {"name": "hdf5", "path": str(tmp_path / "own.h5")},
        "observations": {"all": {}},
        "network": {"name": "mlp", "hidden": [8]},
        "schedule": {"sigma_min": 0.01, "sigma_max": 10.0},
        "recipe": "fast",
        "laps": 2,
        "figures": [],
        "runs": {"base": {"observations": "all"}},
    }
    inputs = Inputs(resolve({"experiments": {"mine": experiment}}, "mine.yaml"))

    assert inputs.told_operator(SimpleNamespace(experiment="mine")) == "mask"


def test_five_lines_make_a_file_that_the_workflow_takes(tmp_path, images):
    path, output = tmp_path / "own.h5", tmp_path / "observations.h5"

    diem.write_observations(path, {"train": images}, operator="mask", sigma_y=0.1)
    findings = check_file(path)
    ingest(path, output, {}, HELD_OUT, 0, "some")

    assert not levels(findings, "error") + levels(findings, "warning")
    seen = []
    with Observations(output) as file:
        for split, count in {"train": 170, "validation": 10, "test": 20}.items():
            some = file.load(split)
            assert len(some.y) == count
            assert some.sigma_y == pytest.approx(0.1)
            expected = images[some.index]
            np.testing.assert_array_equal(some.operator.observed(), np.isfinite(expected))
            np.testing.assert_array_equal(some.y, np.nan_to_num(expected))
            seen += some.index.tolist()
        assert file.file["train/y"].fletcher32
    assert sorted(seen) == list(range(200))


def test_importing_the_package_imports_no_torch():
    code = (
        "import sys, diem, diem.config.resolve;"
        " print('torch' in sys.modules, 'h5py' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("name", ["errors.DiemError", "operators.csr_parameters"])
def test_what_the_documentation_names_is_there_after_the_import_alone(name):
    code = f"import diem; print(diem.{name}.__name__)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.split() == [name.split(".")[1]], result.stderr


def test_splits_of_the_file_are_kept_and_the_other_is_held_out(tmp_path, images):
    path, output = tmp_path / "own.h5", tmp_path / "observations.h5"
    splits = {"train": images[:150], "test": images[150:]}

    diem.write_observations(path, splits, operator="mask", sigma_y=0.1)
    ingest(path, output, {}, HELD_OUT, 0, "some")

    with Observations(output) as file:
        assert [file.count(split) for split in SPLITS] == [142, 8, 50]
        np.testing.assert_array_equal(file.load("test").y, np.nan_to_num(images[150:]))


def test_observations_of_one_x_are_held_out_together(tmp_path, images):
    path, output = tmp_path / "own.h5", tmp_path / "observations.h5"
    index = np.arange(200) // 10

    diem.write_observations(path, {"train": {"y": images, "index": index}}, "mask", 0.1)
    ingest(path, output, {}, HELD_OUT, 0, "some")

    with Observations(output) as file:
        parts = [set(file.load(split).index.tolist()) for split in SPLITS]
    assert [len(part) for part in parts] == [17, 1, 2]
    assert len(set.union(*parts)) == 20


@pytest.mark.parametrize("kind", ["one", "each", "value"])
def test_noise_of_each_kind(tmp_path, images, kind):
    rng = np.random.default_rng(1)
    shape = {"one": (), "each": (200,), "value": images.shape}[kind]
    sigma_y = rng.uniform(0.1, 0.2, shape).astype(np.float32)
    path, output = tmp_path / "own.h5", tmp_path / "observations.h5"

    diem.write_observations(path, {"train": {"y": images, "sigma_y": sigma_y}}, "mask")
    ingest(path, output, {}, HELD_OUT, 0, "some")

    with Observations(output) as file:
        some = file.load("train", slice(10, 30))
    each = np.broadcast_to(sigma_y.reshape(*shape, *[1] * (4 - len(shape))), images.shape)
    np.testing.assert_array_equal(some.sigma_y.expand_as(some.y), each[some.index])


@pytest.mark.slow
def test_noise_of_each_observation_in_the_gaussian_fit():
    # The draws are made in parts, and each part needs the noise of its own observations.
    from diem.diffusion import gaussian

    prior = random_gaussian((300,), 2, torch.float32)
    x = prior.sample(400, torch.Generator().manual_seed(0))
    operator = build("mask", (300,), {"mask": torch.rand(400, 300) > 0.2})
    sigma_y = torch.linspace(0.01, 2, 400)[:, None]
    y = operator.forward(x) + operator.observed() * sigma_y * torch.randn(400, 300)

    fits = []
    for chunk in (2**25, 300 * 64):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gaussian, "CHUNK", chunk)
            generator = torch.Generator().manual_seed(0)
            fits.append(fit_to_observations(operator, y, sigma_y, 2, 24, generator))

    for fit in fits:
        assert float(fit.noise) == pytest.approx(float(prior.noise), rel=0.25)


def test_noise_of_each_observation_is_weighed():
    # With A = I, the posterior mean moves each observation by its own noise.
    gaussian = Gaussian.standard((3,))
    operator = build("mask", (3,), {"mask": np.ones((1, 3), bool)})
    y, sigma_y = torch.ones(2, 3), torch.tensor([[1.0], [3.0]])

    mean = gaussian.posterior_mean(operator, y, sigma_y)

    torch.testing.assert_close(mean, torch.tensor([[0.5], [0.1]]).expand(2, 3))


@pytest.mark.parametrize("covariance", ["tweedie", "cov_x"])
def test_noise_of_each_observation_in_the_posterior_denoiser(covariance):
    # What a batch gives is what each observation gives alone, with a single number as its noise.
    gaussian = random_gaussian((1, 4, 4), 2, torch.float32)
    denoiser = gaussian.denoiser(VESchedule(0.01, 10.0))
    operator = simulate({"name": "mask", "missing": 0.4}, (1, 4, 4), 3, torch.float32)
    y, x_t = torch.randn(2, 3, 1, 4, 4).unbind()
    y, t, sigma_y = y * operator.observed(), torch.tensor(0.6), torch.tensor([0.1, 0.5, 2.0])
    guidance = Guidance(COVARIANCES.parse(covariance), iterations=3, limit=1.0)

    each = sigma_y.reshape(3, 1, 1, 1)
    batch = PosteriorDenoiser(denoiser, operator, y, each, guidance, gaussian)(x_t, t).mean

    for i in range(3):
        row = slice(i, i + 1)
        noise = float(sigma_y[i])
        alone = PosteriorDenoiser(denoiser, operator[row], y[row], noise, guidance, gaussian)
        torch.testing.assert_close(alone(x_t[row], t).mean, batch[row], rtol=1e-4, atol=1e-5)


def test_one_sparse_matrix_for_all_observations(tmp_path):
    from scipy.sparse import random_array

    matrix = random_array((4, 12), density=0.4, rng=np.random.default_rng(0), dtype=np.float32)
    x = np.random.default_rng(1).standard_normal((50, 1, 3, 4)).astype(np.float32)
    y = x.reshape(50, 12) @ matrix.toarray().T
    path, output = tmp_path / "own.h5", tmp_path / "observations.h5"

    parts = {"y": y, **csr_parameters(matrix)}
    diem.write_observations(path, {"train": parts}, "sparse", 0.1, event_shape=(1, 3, 4))
    ingest(path, output, {}, HELD_OUT, 0, "some")

    with Observations(output) as file:
        some = file.load("train", slice(3, 9))
        assert len(some.operator) == 1
        torch.testing.assert_close(some.operator.forward(torch.tensor(x[some.index])), some.y)
        rows = torch.tensor([2, 0])
        torch.testing.assert_close(
            some.operator[rows].forward(torch.tensor(x[some.index[rows]])), some.y[rows]
        )


def test_a_row_whose_entries_are_zero_observes_nothing():
    from scipy.sparse import csr_array

    matrix = csr_array(np.array([[1.0, 2.0], [3.0, 0.0]]))
    matrix.data[2] = 0.0
    operator = build("sparse", (2,), csr_parameters([matrix, csr_array(np.eye(2))]))

    assert operator.observed().tolist() == [[True, False], [True, True]]
    np.testing.assert_array_equal(operator.dense()[0], matrix.toarray())
    assert matrix.nnz == 3  # the user's own is as it was


@pytest.mark.parametrize(
    ("matrices", "words"),
    [
        (np.eye(3), "matrices holds ndarray float64, where SciPy's sparse"),
        ([], "there are none"),
        (["a"], "matrices holds str, where"),
        ([(2, 3), (4, 3)], r"have the shapes \(2, 3\), \(4, 3\)"),
        ([(2, 3), (2, 4)], r"have the shapes \(2, 3\), \(2, 4\)"),
    ],
)
def test_what_are_no_sparse_matrices_is_told(matrices, words):
    from scipy.sparse import csr_array

    if isinstance(matrices, list) and matrices and isinstance(matrices[0], tuple):
        matrices = [csr_array(np.ones(shape)) for shape in matrices]
    with pytest.raises(DiemError, match=words):
        csr_parameters(matrices)


def test_what_config_and_file_both_tell_is_refused(tmp_path, images):
    path = tmp_path / "own.h5"
    diem.write_observations(path, {"train": images}, operator="mask", sigma_y=0.1)

    for entry in ({"sigma_y": 0.2}, {"operator": {"name": "blur"}}):
        with pytest.raises(DiemError, match=r"own\.h5.*(sigma_y|operator).*\.$"):
            ingest(path, tmp_path / "o.h5", entry, HELD_OUT, 0, "some")
    assert not (tmp_path / "o.h5").exists()


def test_large_files_are_read_in_blocks(tmp_path, images, monkeypatch):
    from diem.data import observations

    path, output = tmp_path / "own.h5", tmp_path / "observations.h5"
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        diem.write_observations(path, {"train": file.create_dataset("y", data=images)}, "mask", 0.1)
    whole = check_file(path)
    monkeypatch.setattr(observations, "BLOCK", 5000)
    largest = []
    read = Reader.read

    def reading(self, *arguments, **options):
        array = read(self, *arguments, **options)
        largest.append(array.size)
        return array

    monkeypatch.setattr(Reader, "read", reading)
    ingest(path, output, {}, HELD_OUT, 0, "some")

    assert max(largest) <= 5000
    assert check_file(path) == whole


@pytest.mark.parametrize("each", [False, True])
def test_observations_are_scaled_to_the_network_s_units(tmp_path, images, each):
    y, sigma_y = 100 + 20 * images, np.full(len(images), 2.0, np.float32)
    split = {"y": y, "sigma_y": sigma_y} if each else {"y": y}
    path, output = tmp_path / "own.h5", tmp_path / "observations.h5"
    diem.write_observations(path, {"train": split}, operator="mask", sigma_y=None if each else 2.0)

    ingest(path, output, {}, {**HELD_OUT, "offset": 100.0, "scale": 20.0}, 0, "some")

    with Observations(output) as file:
        assert file.units() == ", in units of data.scale"
        some = file.load("train")
        assert torch.allclose(some.sigma_y, torch.tensor(0.1))
        expected = np.nan_to_num(images[some.index])
        np.testing.assert_allclose(some.y, expected, atol=1e-4)
        assert file.attribute("scale") == 20


def test_a_value_that_is_none_under_a_mask_that_says_observed_is_refused(tmp_path):
    y, mask = np.zeros((5, 2, 3), np.float32), np.ones((5, 2, 3), bool)
    y[3, 1, 2] = y[4] = np.nan
    mask[4] = False

    with pytest.raises(DiemError, match=r"train: 1 values are not finite .* first at \(3, 1, 2\)"):
        diem.write_observations(tmp_path / "y.h5", {"train": {"y": y, "mask": mask}}, "mask", 0.1)
    assert not (tmp_path / "y.h5").exists()

    mask[3, 1, 2] = False
    diem.write_observations(tmp_path / "y.h5", {"train": {"y": y, "mask": mask}}, "mask", 0.1)
