"""Where clean data come from: shapes, ranges, streams and bad values."""

import math
import re

import numpy as np
import pytest
import torch

from diem.data.ingest import write_observations
from diem.data.sets import DATASETS, Split
from diem.data.sets.base import DataSet, from_bytes, to_bytes
from diem.data.sets.cifar10 import RECORD, TEST, TRAINING
from diem.errors import DiemError
from diem.evaluation.metrics.distance_to_manifold import distance_to_manifold
from diem.files.downloads import DOWNLOADS
from diem.seeds import Stage, rng


def load(spec: dict, seed: int) -> dict[str, Split]:
    return DATASETS.parse(spec).load(seed)


MANIFOLD = {
    "name": "manifold",
    "train": 512,
    "validation": 64,
    "test": 128,
    "dimensions": 5,
    "alpha": 3.0,
    "epsilon": 1.0e-3,
}
DIGITS = {"name": "digits", "validation": 150, "test": 450}


@pytest.fixture(scope="module")
def digits() -> dict[str, Split]:
    return load(DIGITS, seed=0)


def test_manifold_shapes_and_range():
    splits = load(MANIFOLD, seed=0)

    assert list(splits) == ["train", "validation", "test"]
    for name, split in splits.items():
        assert split.x.shape == (MANIFOLD[name], 5)
        assert split.x.dtype == np.float32
        assert split.label is None
        assert np.abs(split.x).max() <= 2


@pytest.mark.parametrize("seed", range(5))
def test_manifold_fills_its_range(seed: int):
    curve = DATASETS.parse(MANIFOLD).curve(seed, points=2**16 + 1)

    assert np.array_equal(curve.min(axis=0), np.full(5, -2))
    assert np.array_equal(curve.max(axis=0), np.full(5, 2))


def test_manifold_formula():
    dimensions, frequencies = 5, 10
    a, b, c = rng(3, Stage.DATA).uniform(size=(3, dimensions, frequencies))

    def point(z: float) -> list[float]:
        return [
            sum(
                a[i, k - 1] / k**3 * math.sin(2 * math.pi * (k * b[i, k - 1] * z + c[i, k - 1]))
                for k in range(1, frequencies + 1)
            )
            for i in range(dimensions)
        ]

    # An affine map to [-2, 2] is determined by the range, here of a grid of its own.
    raw = np.array([point(j / 2000) for j in range(2001)])
    low, high = raw.min(axis=0), raw.max(axis=0)
    expected = 4 * (raw - low) / (high - low) - 2

    np.testing.assert_allclose(DATASETS.parse(MANIFOLD).curve(3, points=2001), expected, atol=1e-4)


@pytest.mark.slow
def test_manifold_points_lie_on_the_curve_of_every_split():
    curve = DATASETS.parse(MANIFOLD).curve(seed=0, points=8192)

    for split in load(MANIFOLD, seed=0).values():
        assert distance_to_manifold(split.x, curve).max() < 1e-5
    other = load(MANIFOLD, seed=1)["test"]
    assert distance_to_manifold(other.x, curve).median() > 0.1


def test_manifold_is_reproducible_and_depends_on_the_seed():
    first, again, other = load(MANIFOLD, 0), load(MANIFOLD, 0), load(MANIFOLD, 1)

    for name in first:
        assert np.array_equal(first[name].x, again[name].x)
        assert not np.array_equal(first[name].x, other[name].x)
    assert len(np.unique(np.concatenate([s.x for s in first.values()]), axis=0)) == 512 + 64 + 128


def test_manifold_splits_do_not_depend_on_each_other():
    small, large = load(MANIFOLD, 0), load(MANIFOLD | {"train": 1024}, 0)

    assert np.array_equal(small["train"].x, large["train"].x[:512])
    assert np.array_equal(small["test"].x, large["test"].x)


def test_digits_shapes_and_range(digits: dict[str, Split]):
    assert {name: len(split.x) for name, split in digits.items()} == {
        "train": 1197,
        "validation": 150,
        "test": 450,
    }
    for split in digits.values():
        assert split.x.shape[1:] == (1, 8, 8)
        assert split.x.dtype == np.float32
        assert split.x.min() == -2
        assert split.x.max() == 2
        # 17 grey levels, a quarter apart
        assert np.array_equal(split.x * 4, np.round(split.x * 4))
        assert split.label.dtype == np.int64
        assert set(split.label) == set(range(10))


def test_digits_splits_are_a_partition(digits: dict[str, Split]):
    from sklearn.datasets import load_digits

    def key(images: np.ndarray, label: np.ndarray) -> list:
        rows = np.concatenate([images.reshape(len(images), 64), label[:, None]], axis=1)
        return sorted(map(tuple, rows))

    x = np.concatenate([split.x for split in digits.values()])
    label = np.concatenate([split.label for split in digits.values()])
    truth = load_digits()
    assert key(4 * (x + 2), label) == key(truth.data, truth.target)


def test_digits_are_reproducible_and_depend_on_the_seed(digits: dict[str, Split]):
    again, other = load(DIGITS, 0), load(DIGITS, 1)

    for name, split in digits.items():
        assert np.array_equal(split.x, again[name].x)
        assert np.array_equal(split.label, again[name].label)
        assert not np.array_equal(split.x, other[name].x)


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        ({}, "data lacks the key 'name'"),
        ({"name": "digit"}, "data.name"),
        (DIGITS | {"validation": 0}, "data.validation"),
        (DIGITS | {"validations": 3}, "data.validations is unknown (did you mean 'validation'?)"),
        (DIGITS | {"test": 1647}, "data.test"),
        (MANIFOLD | {"dimensions": 1}, "data.dimensions is 1, and must be at least 2"),
        (MANIFOLD | {"train": -1}, "data.train"),
        (MANIFOLD | {"train": 10.5}, "data.train"),
        (MANIFOLD | {"test": True}, "data.test"),
        (MANIFOLD | {"dimensions": "5"}, "data.dimensions"),
        (MANIFOLD | {"alpha": 0}, "data.alpha"),
        (MANIFOLD | {"alpha": math.nan}, "data.alpha"),
        (MANIFOLD | {"alpha": 1e-9}, "data.alpha"),
        (MANIFOLD | {"epsilon": "small"}, "data.epsilon"),
        (MANIFOLD | {"epsilon": 1.0}, "data.epsilon"),
    ],
)
def test_bad_values_name_their_key(spec: dict, key: str):
    with pytest.raises(DiemError, match=re.escape(key)) as caught:
        load(spec, seed=0)
    assert "\n" not in str(caught.value)


def test_unknown_name_comes_with_a_hint():
    with pytest.raises(DiemError, match="did you mean 'digits'"):
        load({"name": "digit"}, seed=0)
    with pytest.raises(DiemError, match=", ".join(DATASETS.names)):
        load({"name": "xyz"}, seed=0)


# Photographs and folders of images

PHOTOGRAPHS = {
    "name": "photographs",
    "train": 64,
    "validation": 16,
    "test": 32,
    "size": 8,
    "reduce": 2,
}


def photographs(seed, **keys):
    """Returns the patches of all splits, which come in parts."""
    splits = load(PHOTOGRAPHS | keys, seed)
    return {name: split.whole() for name, split in splits.items()}


def test_photographs_shapes_range_and_streams():
    splits, again, other = photographs(0), photographs(0), photographs(1)

    for name, x in splits.items():
        assert x.shape == (PHOTOGRAPHS[name], 3, 8, 8)
        assert x.dtype == np.float32
        assert np.abs(x).max() <= 2
        assert np.array_equal(x, again[name])
        assert not np.array_equal(x, other[name])
    larger = photographs(0, train=80)
    assert np.array_equal(larger["train"][:64], splits["train"])


def test_photographs_come_some_at_a_time():
    parts = list(load(PHOTOGRAPHS | {"train": 130}, 0)["train"].x)

    assert [len(part) for part in parts] == [64, 64, 2]


def test_photographs_splits_are_disjoint_and_in_turn(monkeypatch):
    from sklearn import datasets

    # Each pixel of these tells its photograph, its row and its column.
    row, column = np.meshgrid(np.arange(427), np.arange(640), indexing="ij")
    pictures = [np.stack((np.full_like(row, i), row, column), axis=-1) for i in range(2)]
    bunch = type("Bunch", (), {"images": pictures})
    monkeypatch.setattr(datasets, "load_sample_images", lambda: bunch)

    splits = photographs(0, reduce=1)

    columns = {name: (x[:, 2] + 2) * 255 / 4 for name, x in splits.items()}
    assert columns["validation"].max() < 127.5
    assert columns["test"].min() > 127.5
    assert columns["test"].max() < 255.5
    assert columns["train"].min() > 255.5
    which = (splits["train"][:, 0] + 2) * 255 / 4
    np.testing.assert_allclose(which[:4, 0, 0], [0, 1, 0, 1], atol=1e-3)


def test_photographs_are_reduced_by_averages():
    from sklearn.datasets import load_sample_images

    patch = photographs(0, size=2, reduce=64, test=1)["test"][0]

    # A patch of 2 x 64 pixels is as wide as its split: only its row is random.
    part = load_sample_images().images[0][: 6 * 64, 128:256].reshape(6, 64, 2, 64, 3)
    rows = part.mean(axis=(1, 3)).transpose(2, 0, 1) * 4 / 255 - 2
    assert any(np.allclose(patch, rows[:, i : i + 2], atol=1e-5) for i in range(5))


@pytest.fixture
def folder(tmp_path):
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (70, 6, 6, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{i:05d}.png")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path, pixels


def images_spec(path, **changes):
    spec = {"name": "images", "path": str(path), "size": 6}
    return spec | {"train": None, "validation": 1, "test": 2} | changes


def test_images_are_all_there_once(folder):
    path, pixels = folder

    splits = load(images_spec(path), 0)

    parts = {name: list(split.x) for name, split in splits.items()}
    # Read as they are asked for, in parts that fit in memory.
    assert [len(part) for part in parts["train"]] == [64, 3]
    x = np.concatenate([part for split in parts.values() for part in split])
    assert x.dtype == np.float32
    assert x.shape == (70, 3, 6, 6)
    found = np.round((x + 2) * 255 / 4).astype(int).transpose(0, 2, 3, 1)
    assert sorted(map(bytes, found.astype(np.uint8))) == sorted(map(bytes, pixels))


def test_images_may_be_for_testing_alone(folder):
    splits = load(images_spec(folder[0], train=0, validation=0, test=5), 0)

    assert list(splits) == ["test"]
    assert sum(map(len, splits["test"].x)) == 5


def test_images_that_do_not_fit_are_named(folder):
    from PIL import Image

    path, pixels = folder
    broken = (path / "00007.png").read_bytes()
    for content, message in (
        (broken[:40], "cannot be read"),
        (b"no image at all", "cannot be read"),
        (None, "is of 5 x 6 pixels and mode RGB"),
        ("L", "is of 6 x 6 pixels and mode L"),
    ):
        if content is None:
            Image.fromarray(pixels[0][:, :5]).save(path / "00007.png")
        elif content == "L":
            Image.fromarray(pixels[0][..., 0]).save(path / "00007.png")
        else:
            (path / "00007.png").write_bytes(content)
        with pytest.raises(DiemError, match=f"00007.png: .*{message}") as caught:
            [list(split.x) for split in load(images_spec(path), 0).values()]
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (PHOTOGRAPHS | {"size": 65}, "data.size times data.reduce is 130"),
        (PHOTOGRAPHS | {"reduce": 0}, "data.reduce"),
        (images_spec("/nowhere/at/all"), "is no folder"),
    ],
)
def test_bad_values_of_pictures_are_refused(spec, message):
    with pytest.raises(DiemError, match=message):
        load(spec, 0)


def test_images_refuse_an_empty_folder_and_too_many(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DiemError, match="no PNG or JPEG file"):
        load(images_spec(tmp_path / "empty"), 0)
    for changes in ({"train": 68}, {"test": 71}):
        with pytest.raises(DiemError, match="more than the 70 images"):
            load(images_spec(folder[0], **changes), 0)


# 8-bit pixels, back from [-2, 2] without loss


@pytest.mark.parametrize("name", DATASETS.names)
def test_all_pixels_come_back(name):
    pixels, step = np.arange(256, dtype=np.uint8), DATASETS.find(name).step

    x = torch.from_numpy(from_bytes(pixels, step))

    assert x.dtype == torch.float32
    for off in (0, 0.4 * step, -0.4 * step):
        assert np.array_equal(to_bytes(x + off, step), pixels)
    assert to_bytes(torch.tensor([-9.0, -2.1, 66.0]), step).tolist() == [0, 0, 255]


def cifar10_pixels(folder):
    """Writes records of which the first train image holds all values, and returns it."""
    records = np.zeros((2, RECORD), np.uint8)
    records[:, 1:] = np.arange(RECORD - 1) % 256
    for name in (TRAINING[0], *TEST):
        records.tofile(folder / name)
    spec = {"name": "cifar10", "path": str(folder), "train": 1, "validation": 1, "test": 1}
    return spec, records[:1, 1:].reshape(1, 3, 32, 32)


def images_pixels(folder):
    from PIL import Image

    pixels = (np.arange(3 * 16 * 16) % 256).astype(np.uint8).reshape(16, 16, 3)
    Image.fromarray(pixels).save(folder / "0.png")
    spec = {"name": "images", "path": str(folder), "size": 16, "validation": 0, "test": 0}
    return spec, pixels.transpose(2, 0, 1)[None]


def photographs_pixels(folder):
    from sklearn.datasets import load_sample_images

    # A patch as wide as the narrowest split, at one of the rows.
    spec = {**PHOTOGRAPHS, "train": 1, "validation": 1, "test": 1, "size": 128, "reduce": 1}
    top = int(rng(0, Stage.DATA, block=1).random(2)[0] * (427 - 128 + 1))
    image = load_sample_images().images[0][top : top + 128, :128]
    return spec, image.transpose(2, 0, 1)[None]


def digits_pixels(folder):
    from sklearn.datasets import load_digits

    order = rng(0, Stage.SPLIT).permutation(1797)[600:]
    return DIGITS, load_digits().images[order].astype(np.uint8)[:, None]


@pytest.mark.parametrize(
    ("pixels", "split", "white"),
    [
        (cifar10_pixels, "train", 4 / 256 * 255 - 2),
        (images_pixels, "train", 2),
        (photographs_pixels, "validation", 2),
        (digits_pixels, "train", 2),
    ],
)
def test_loaded_pixels_come_back(pixels, split, white, tmp_path):
    spec, expected = pixels(tmp_path)

    x = load(spec, 0)[split].whole()

    assert x.dtype == np.float32
    assert x.min() == -2
    assert x.max() == np.float32(white)
    step = DATASETS.find(spec["name"]).step
    assert np.array_equal(to_bytes(torch.from_numpy(x), step), expected)


# What is known before anything is read


@pytest.mark.parametrize(
    "spec",
    [
        MANIFOLD,
        DIGITS,
        {"name": "phantoms", "train": 4, "validation": 3, "test": 2, "size": 9, "complex": True},
        PHOTOGRAPHS,
        images_spec("{folder}"),
    ],
    ids=lambda spec: spec["name"],
)
def test_shapes_and_counts_are_known_before(spec, folder):
    if "path" in spec:
        spec = spec | {"path": str(folder[0])}
    data = DATASETS.parse(spec)
    splits = {name: split.whole() for name, split in data.load(0).items()}

    assert data.counts() == {name: len(x) for name, x in splits.items()}
    assert {x.shape[1:] for x in splits.values()} == {data.event_shape()}


def test_facts():
    facts = {name: cls.facts for name, cls in DATASETS.all().items()}

    assert {name for name, known in facts.items() if "clean" not in known} == {"hdf5"}
    assert {name for name, known in facts.items() if "labels" in known} == {"cifar10", "digits"}
    assert {name for name, known in facts.items() if "curve" in known} == {"manifold"}
    archive = DATASETS.parse("cifar10").downloads()
    assert archive in DOWNLOADS
    assert DATASETS.parse({"name": "cifar10", "path": "here"}).downloads() is None
    with pytest.raises(DiemError, match=archive):
        load({"name": "cifar10"}, 0)


def test_a_file_of_observations_tells_its_shapes(tmp_path):
    path = tmp_path / "own.h5"
    y = np.zeros((40, 3), np.float32)
    write_observations(path, {"train": y, "test": y[:7]}, sigma_y=0.1, event_shape=(5,))
    data = DATASETS.parse({"name": "hdf5", "path": str(path)})

    assert (data.event_shape(), data.observation_shape()) == ((5,), (3,))
    assert data.counts() == {"train": 38, "validation": 2, "test": 7}
    with pytest.raises(DiemError, match=r"own.h5: .* no clean data"):
        data.load(0)
    path.write_bytes(path.read_bytes()[:100])
    for ask in (data.event_shape, data.observation_shape, data.counts):
        with pytest.raises(DiemError, match="no complete HDF5 file"):
            ask()


class Kept(DATASETS.find("digits")):
    """A data set of one's own, which reads several files and writes another."""

    path: tuple[str, ...] = ("a", "b")
    cache_path: str = "kept.npz"


def test_only_what_is_read_must_be_there(tmp_path):
    Kept(**{key: value for key, value in DIGITS.items() if key != "name"}).check_given()
    spec = {"name": "fastmri", "path": str(tmp_path)}
    DATASETS.parse(spec).check_given()
    for key in ("path", "validation_path"):
        with pytest.raises(DiemError, match=rf"data\.{key}: there is no such file or folder"):
            DATASETS.parse({**spec, key: "nowhere"}).check_given()


# A data set of one's own is what it declares


class Own(DataSet):
    name = "own"

    def event_shape(self):
        return (5,)

    def counts(self):
        return {"train": 4, "validation": 3}

    def load(self, seed):
        return {
            "train": Split(np.zeros((4, 5), np.float32)),
            "validation": Split(np.zeros((3, 5), np.float32)),
            "test": Split(iter([np.zeros((2, 5), np.float32)])),
        }


def test_a_data_set_of_ones_own_that_is_what_it_declares():
    assert list(Own().loaded(0)) == ["train", "validation", "test"]


def test_a_split_of_nothing_need_not_be_there():
    class Restored(Own):
        def counts(self):
            return {"train": 0, "validation": 0}

        def load(self, seed):
            return {"test": super().load(seed)["test"]}

    assert list(Restored().loaded(0)) == ["test"]


@pytest.mark.parametrize(
    ("split", "words"),
    [
        (None, "data 'own' loads no Split 'train'"),
        (np.zeros((4, 5), np.float32), "data 'own' loads no Split 'train'"),
        (Split(np.zeros((4, 5))), "type float64, where .* float32"),
        (Split(np.zeros((4, 6), np.float32)), r"shape \(4, 6\) .* shape \(4, 5\)"),
        (Split(np.zeros((3, 5), np.float32)), r"shape \(3, 5\) .* shape \(4, 5\)"),
        (Split(torch.zeros(4, 5)), "as Tensor of shape"),
    ],
)
def test_a_data_set_of_ones_own_that_is_another(split, words):
    class Other(Own):
        def load(self, seed):
            return {**super().load(seed), "train": split}

    with pytest.raises(DiemError, match=words):
        Other().loaded(0)
