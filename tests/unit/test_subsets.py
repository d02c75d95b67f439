"""Subsets of rows stand for all of a file, however it is sorted, and are the same everywhere."""

import h5py
import numpy as np
import pytest
import torch

import diem
from diem.data.ingest import ingest
from diem.data.observations import SPLITS, Observations, Observed, save_observations
from diem.data.sets import DATASETS
from diem.data.validate import check_file
from diem.diffusion.gaussian import Gaussian
from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.diffusion.prior import Prior
from diem.diffusion.samplers.ddim import DDIM
from diem.errors import DiemError
from diem.evaluation.evaluate import Evaluation, evaluate
from diem.files.hdf5 import Reader, write_hdf5
from diem.jobs.job import Job
from diem.operators.base import build
from diem.seeds import subset

COUNT = 200
HELD_OUT = {"validation": 0.1, "test": 0.2, "offset": 0.0, "scale": 1.0}


def test_a_subset_is_random_repeats_and_begins_a_larger_one():
    chosen = subset(COUNT, 50, seed=3)

    assert len(np.unique(chosen)) == 50
    assert abs(chosen.mean() - COUNT / 2) < 30
    np.testing.assert_array_equal(chosen, subset(COUNT, 120, seed=3)[:50])
    assert sorted(subset(COUNT, 999, seed=3)) == list(range(COUNT))
    for other in (subset(COUNT, 50, seed=4), subset(COUNT, 50, seed=3, block=1)):
        assert not np.array_equal(chosen, other)


@pytest.mark.parametrize("rows", [[3, 1, 2, 150, 0], [5, 5, 4], [], range(COUNT)])
def test_rows_are_read_in_the_order_of_their_numbers(tmp_path, rows):
    x = np.random.default_rng(0).standard_normal((COUNT, 2, 3))
    write_hdf5(tmp_path / "x.h5", {"x": x}, {})

    with Reader(tmp_path / "x.h5") as file:
        np.testing.assert_array_equal(file.read("x", np.asarray(rows, int)), x[list(rows)])


@pytest.fixture
def ordered(tmp_path):
    """Observations of x that rises from row to row, nearly without noise, and the clean x."""
    x = torch.linspace(-2, 2, COUNT)[:, None] + torch.zeros(COUNT, 3)
    operator = build("mask", (3,), {"mask": np.ones((1, 3), bool)})
    index = np.arange(COUNT)
    observed = Observed(operator, x, torch.tensor(1e-3), index)
    path, clean = tmp_path / "y.h5", tmp_path / "clean.h5"
    save_observations(path, dict.fromkeys(SPLITS, observed), "mask", {})
    write_hdf5(clean, {"test/x": x.numpy()}, {})
    return path, clean


def test_what_is_evaluated_is_of_the_whole_file_and_beside_its_truth(ordered, monkeypatch):
    path, clean = ordered
    read, load = {}, Observations.load

    def loading(self, split, rows=slice(None)):
        found = load(self, split, rows)
        read.setdefault(split, []).extend(found.index.tolist())
        return found

    monkeypatch.setattr(Observations, "load", loading)
    settings = {
        **{"samples": 40, "block": 16, "sampler": {"name": "ddim", "steps": 2}},
        **{"metrics": ["prediction", "observation_distance", "psnr"], "posterior_samples": 2},
        **{"test_observations": 8, "predicted_observations": 20},
    }
    runs = []
    for scale in (1.0, 2.0):  # two priors
        gaussian = Gaussian(torch.zeros(3), torch.tensor(1.0), scale * torch.eye(3)[:, :1])
        read.clear()
        with Observations(path) as file:
            sampler = PosteriorSampler(DDIM(steps=2))
            job = Evaluation(
                Prior(gaussian, None, {}), file, sampler, settings, {}, {"clean": clean}, Job(5)
            )
            _, arrays = evaluate(job, {})
        runs.append({split: list(rows) for split, rows in read.items()})

        np.testing.assert_allclose(arrays["posterior/y"], arrays["posterior/truth"], atol=1e-6)
    assert runs[0] == runs[1]
    assert len(set(runs[0]["validation"])) == 20
    for rows in runs[0].values():
        assert max(rows) > COUNT / 2


def test_the_splits_that_are_held_out_are_of_whole_groups(tmp_path):
    day = np.repeat(np.arange(20), 10)
    labels = np.array([f"day {d}" for d in day])
    y = np.random.default_rng(0).standard_normal((COUNT, 4)).astype(np.float32)
    path, output = tmp_path / "own.h5", tmp_path / "observations.h5"

    diem.write_observations(path, {"train": {"y": y, "groups": labels}}, "mask", 0.1)
    ingest(path, output, {}, HELD_OUT, 0, "some")

    with Observations(output) as file:
        days = [set(day[file.load(split).index]) for split in SPLITS]
        for split in SPLITS:
            of_day = {*zip(day[file.load(split).index], file.groups(split), strict=True)}
            assert len(of_day) == len({g for _, g in of_day}) == len(set(file.groups(split)))
    assert [len(part) for part in days] == [14, 2, 4]
    assert len(set.union(*days)) == 20
    counts = DATASETS.parse({"name": "hdf5", "path": str(path), "validation": 0.1, "test": 0.2})
    assert counts.counts() == {"train": 140, "validation": 20, "test": 40}
    assert any("20 groups" in finding.sentence for finding in check_file(path))


@pytest.mark.parametrize("kind", ["numbers", "bytes", "texts"])
def test_labels_of_groups_in_files_of_other_programs(tmp_path, kind):
    day = np.repeat(np.arange(10), 4)
    y = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
    path, output = tmp_path / "own.h5", tmp_path / "observations.h5"
    diem.write_observations(path, {"train": y}, "mask", 0.1)
    with h5py.File(path, "r+") as file:
        texts = [f"tag ä {d}" for d in day]
        file["train/groups"] = {
            "numbers": day,
            "bytes": np.char.encode(texts, "utf-8"),
            "texts": texts,
        }[kind]

    ingest(path, output, {}, HELD_OUT, 0, "some")

    with Observations(output) as file:
        days = [set(day[file.load(split).index]) for split in SPLITS]
        for split in SPLITS:
            of_day = {*zip(day[file.load(split).index], file.groups(split), strict=True)}
            assert len(of_day) == len({g for _, g in of_day}) == len(set(file.groups(split)))
    assert [len(part) for part in days] == [7, 1, 2]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"groups": np.arange(40)[:, None]}, "'train/groups' has shape"),
        ({"groups": np.zeros(1)}, "'train' has 40 observations and 1 groups"),
        ({"groups": np.arange(40), "index": np.arange(40) // 2}, "into different groups"),
        ({"groups": np.arange(40) // 20}, "2 different x .or groups., too few"),
    ],
)
def test_groups_that_cannot_be_are_refused(tmp_path, given, words):
    y = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
    path = tmp_path / "own.h5"
    diem.write_observations(path, {"train": {"y": y, **given}}, "mask", 0.1)

    with pytest.raises(DiemError, match=words):
        ingest(path, tmp_path / "observations.h5", {}, HELD_OUT, 0, "some")


def test_groups_in_two_splits_of_a_file_are_told(tmp_path):
    y = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
    splits = {
        "train": {"y": y[:30], "groups": np.arange(30) // 5},
        "test": {"y": y[30:], "groups": np.arange(10) // 5 + 5},
    }
    diem.write_observations(tmp_path / "own.h5", splits, "mask", 0.1)

    told = [finding.sentence for finding in check_file(tmp_path / "own.h5")]

    assert "1 groups of 'test' are also in 'train'." in told


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_groups_of_another_number_are_told_by_the_check(tmp_path, split):
    y = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
    path = tmp_path / "own.h5"
    parts = {name: {"y": y, "groups": np.arange(40) // 2} for name in SPLITS}
    diem.write_observations(path, parts, "mask", 0.1)
    with h5py.File(path, "r+") as file:
        del file[f"{split}/groups"]
        file[f"{split}/groups"] = np.arange(30)
    words = f"'{split}' has 40 observations and 30 groups"

    assert any(level == "error" and words in sentence for level, sentence in check_file(path))
    with pytest.raises(DiemError, match=words):
        ingest(path, tmp_path / "observations.h5", {}, HELD_OUT, 0, "some")


@pytest.mark.parametrize("missing", [np.nan, None])
def test_labels_that_are_missing_are_no_group(tmp_path, missing):
    y = np.zeros((4, 4), np.float32)
    given = {"y": y, "groups": np.array([1.5, missing, 2.0, 2.0], dtype=object)}

    with pytest.raises(DiemError, match=r"train/groups has labels that are missing"):
        diem.write_observations(tmp_path / "own.h5", {"train": given}, "mask", 0.1)


@pytest.mark.parametrize(("groups", "told"), [(20, "will have 1 groups"), (400, None)])
def test_too_few_groups_to_choose_by_are_told(tmp_path, groups, told):
    y = np.random.default_rng(0).standard_normal((400, 4)).astype(np.float32)
    given = {"y": y, "groups": np.arange(400) % groups}
    diem.write_observations(tmp_path / "own.h5", {"train": given}, "mask", 0.1)

    warnings = [s for level, s in check_file(tmp_path / "own.h5") if level == "warning"]

    assert any(told and told in sentence for sentence in warnings) is (told is not None)
    assert not (told is None and any("groups" in sentence for sentence in warnings))
