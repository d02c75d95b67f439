"""Malformed files, configurations and operators: one sentence each, and never a traceback.

Each row of the three tables is one thing that a user can get wrong, and what the sentence names.
"""

import copy
import textwrap

import h5py
import numpy as np
import pytest
from helpers import set_attributes

import diem
from diem.components import SEARCH_PATH
from diem.config.resolve import resolve
from diem.data.ingest import ingest
from diem.data.validate import check_file
from diem.errors import DiemError

HELD_OUT = {"validation": 0.05, "test": 0.1, "offset": 0.0, "scale": 1.0}


def good(path, **changes):
    """Writes a file that nothing is wrong with, but for what is changed."""
    rng = np.random.default_rng(0)
    x = np.clip(rng.standard_normal((60, 1, 6, 6)).cumsum(axis=-1) / 2, -2, 2)
    mask = rng.random((60, 1, 6, 6)) < 0.6
    sigma_y = rng.uniform(0.05, 0.1, 60)
    y = (x + sigma_y[:, None, None, None] * rng.standard_normal(x.shape)) * mask
    train = {"y": y.astype(np.float32), "mask": mask, "sigma_y": sigma_y}
    diem.write_observations(path, {"train": train}, operator="mask")
    return path


def put(name, change):
    """Returns a function that changes one data set of a file, or adds it."""

    def damage(path):
        with h5py.File(path, "r+") as file:
            data = file[name][:] if name in file else None
            if name in file:
                del file[name]
            data = change(data)
            if data is not None:
                file[name] = data

    return damage


def attribute(name, value):
    return lambda path: set_attributes(path, **{name: value})


def at(place, value):
    """Returns a function that changes one value of an array."""

    def change(data):
        data = data.copy()
        data[place] = value
        return data

    return change


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("a,b\n1,2\n")


def truncated(path):
    path.write_bytes(path.read_bytes()[:3000])


def folder(path):
    path.unlink()
    path.mkdir()


def flipped(path):
    with h5py.File(path) as file:
        chunk = file["train/y"].id.get_chunk_info(0)
    raw = bytearray(path.read_bytes())
    raw[chunk.byte_offset + chunk.size // 2] ^= 0x55
    path.write_bytes(raw)


def without(name):
    def damage(path):
        with h5py.File(path, "r+") as file:
            del file[name]

    return damage


ROOT_NOISE = put("sigma_y", lambda _: np.float32(0.1))

FILES = {
    "no file": (lambda path: path.unlink(), ["no such file"]),
    "a folder": (folder, ["no such file"]),
    "empty": (empty, ["no complete HDF5 file"]),
    "text": (text, ["no complete HDF5 file"]),
    "truncated": (truncated, ["no complete HDF5 file"]),
    "a flipped byte": (flipped, ["'train/y'", "damaged"]),
    "no train": (without("train"), ["'train'", "missing"]),
    "no y": (put("train/y", lambda _: None), ["'train/y'", "missing"]),
    "no observation": (put("train/y", lambda y: y[:0]), ["'train/y'", "no observation"]),
    "one number": (put("train/y", lambda y: np.float32(1)), ["'train/y'", "single value"]),
    "a NaN": (
        put("train/y", lambda y: np.where(y == y.max(), np.nan, y)),
        ["'train/y'", "non-finite"],
    ),
    "an infinity": (put("train/y", at((59, 0, 5, 5), -np.inf)), ["'train/y'", "non-finite"]),
    "too large for single precision": (
        put("train/y", lambda y: np.where(y == y.max(), 1e300, y.astype(np.float64))),
        ["'train/y'", "non-finite"],
    ),
    "text in y": (put("train/y", lambda y: np.array([b"a"] * 60)), ["'train/y'", "numbers"]),
    "complex y": (put("train/y", lambda y: y.astype(np.complex64)), ["'train/y'", "complex64"]),
    "y of another shape": (put("train/y", lambda y: y[..., :5]), ["'train/y'", "(1, 6, 5)"]),
    "y without channels": (put("train/y", lambda y: y[:, 0]), ["'train/y'", "(6, 6)"]),
    "fewer masks": (
        put("train/operator/mask", lambda m: m[:59]),
        ["'operator/mask'", "60", "59"],
    ),
    "no mask": (put("train/operator/mask", lambda m: None), ["operator/mask", "missing"]),
    "mask of another shape": (
        put("train/operator/mask", lambda m: m[..., :4]),
        ["operator/mask", "(1, 6, 4)"],
    ),
    "mask of numbers": (
        put("train/operator/mask", lambda m: 2 * m.astype(np.uint8)),
        ["operator/mask", "booleans"],
    ),
    "nothing observed": (
        put("train/operator/mask", np.zeros_like),
        ["train", "no value is observed"],
    ),
    "fewer noises": (put("train/sigma_y", lambda s: s[:59]), ["'train/sigma_y'"]),
    "noise of another shape": (
        put("train/sigma_y", lambda s: np.ones((60, 6))),
        ["'train/sigma_y'", "(60, 6)"],
    ),
    "no noise at all": (put("train/sigma_y", at(3, 0.0)), ["'train/sigma_y'", "positive"]),
    "negative noise": (put("train/sigma_y", at(59, -0.1)), ["'train/sigma_y'", "positive"]),
    "noise that is no number": (put("train/sigma_y", at(3, np.nan)), ["'train/sigma_y'"]),
    "no noise told": (put("train/sigma_y", lambda s: None), ["'sigma_y'", "missing"]),
    "noise told twice": (ROOT_NOISE, ["'sigma_y'", "'train/sigma_y'"]),
    "fewer indices": (put("train/index", lambda i: np.arange(50)), ["'train'", "60", "50"]),
    "no event shape": (attribute("event_shape", None), ["'event_shape'"]),
    "event shape of text": (attribute("event_shape", "6x6"), ["'event_shape'", "integers"]),
    "negative event shape": (attribute("event_shape", [1, -6, 6]), ["'event_shape'"]),
    "another event shape": (attribute("event_shape", [1, 5, 5]), ["operator/mask"]),
    "no operator": (attribute("operator", None), ["'operator'", "missing"]),
    "unknown operator": (attribute("operator", "maks"), ["'maks'", "did you mean 'mask'"]),
    "another operator": (attribute("operator", "projection"), ["operator/matrix", "missing"]),
    "a class named by the file": (attribute("operator", "os:system"), ["'os:system'", "name it"]),
    "too few to hold out": (
        lambda path: diem.write_observations(path, {"train": np.eye(2)}, "mask", 0.1),
        ["'train'", "too few"],
    ),
}


def one_sentence(error, *words):
    message = str(error)
    assert message.endswith("."), message
    assert "\n" not in message
    assert "Traceback" not in message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize(("damage", "words"), FILES.values(), ids=FILES.keys())
def test_files(tmp_path, damage, words):
    path, output = good(tmp_path / "own.h5"), tmp_path / "observations.h5"
    output.write_bytes(b"earlier results")
    damage(path)

    with pytest.raises(DiemError) as error:
        ingest(path, output, {}, HELD_OUT, 0, "some")

    one_sentence(error.value, "own.h5", *words)
    assert output.read_bytes() == b"earlier results"
    assert not list(tmp_path.glob(".*"))
    if "too few" not in words:
        assert any(finding.level == "error" for finding in check_file(path))


def test_a_good_file_is_taken(tmp_path):
    path = good(tmp_path / "own.h5")

    ingest(path, tmp_path / "observations.h5", {}, HELD_OUT, 0, "some")

    assert {finding.level for finding in check_file(path)} == {"note"}


WARNINGS = {
    "values from 0 to 1": (put("train/y", lambda y: (y + 2) / 4), ["scale y"]),
    "values from 0 to 255": (put("train/y", lambda y: (y + 2) * 64), ["scale y"]),
    "noise larger than the values": (put("train/sigma_y", lambda s: s + 3), ["implausibly large"]),
    "noise below the rounding": (
        put("train/y", lambda y: np.round(y * 4) / 4),
        ["steps of 0.25", "implausibly small"],
    ),
    "a pixel that is never observed": (
        put("train/operator/mask", at((slice(None), 0, 2, 3), False)),
        ["1 of the 36 values of x are never observed"],
    ),
    "a dead pixel": (
        put("train/y", at((slice(None), 0, 2, 3), 0.25)),
        ["1 of the 36 values of y are the same"],
    ),
    "a copy": (put("train/y", lambda y: at(7, y[5])(y)), None),
    "an observation of nothing": (
        put("train/operator/mask", at(4, False)),
        ["1 observations observe nothing"],
    ),
    "indices twice": (
        put("train/index", lambda _: np.arange(60) // 2),
        ["30", "repeat an index", "stay together"],
    ),
    "an unknown group": (put("trian/y", lambda _: np.ones(3)), ["'trian'", "not read"]),
    "an unknown field": (
        put("train/operator/maskk", lambda _: np.ones(60)),
        ["'train/operator/maskk'", "not read"],
    ),
}


@pytest.mark.parametrize(("change", "words"), WARNINGS.values(), ids=WARNINGS.keys())
def test_warnings(tmp_path, change, words):
    path = good(tmp_path / "own.h5")
    change(path)
    if words is None:  # a copy has its mask, too
        put("train/operator/mask", lambda m: at(7, m[5])(m))(path)
        words = ["1 observations are copies"]

    findings = check_file(path)

    told = [finding.sentence for finding in findings if finding.level == "warning"]
    assert not [finding for finding in findings if finding.level == "error"]
    assert any(all(word in sentence for word in words) for sentence in told), told


# Operators of one's own

OPERATORS = {
    "no such module": ("nowhere:Beam", "", ["no module 'nowhere'"]),
    "no such class": ("mine:Bean", "class Beam: pass", ["no subclass"]),
    "no subclass": ("mine:Beam", "class Beam: pass", ["no subclass"]),
    "a function": ("mine:Beam", "def Beam(x): return x", ["no subclass"]),
    "a syntax error": ("mine:Beam", "class Beam(:", ["cannot be imported", "SyntaxError"]),
    "a program that ends": ("mine:Beam", "raise SystemExit(0)", ["cannot be imported"]),
    "an error on import": ("mine:Beam", "1 / 0", ["cannot be imported", "ZeroDivisionError"]),
    "a module that is missing there": (
        "mine:Beam",
        "import nowhere",
        ["cannot be imported", "'nowhere'"],
    ),
    "no adjoint": ("mine:Beam", "def forward(self, x): return x", ["does not define adjoint"]),
    "forward that fails": ("mine:Beam", "def forward(self, x): return x @ 3", ["forward fails"]),
    "forward of another shape": (
        "mine:Beam",
        "def forward(self, x): return x[:, :, :2]",
        ["forward has shape", "is needed"],
    ),
    "forward of no tensor": (
        "mine:Beam",
        "def forward(self, x): return x.numpy()",
        ["forward returns ndarray"],
    ),
    "forward in double precision": (
        "mine:Beam",
        "def forward(self, x): return x.double()",
        ["forward holds torch.float64"],
    ),
    "forward that is not finite": (
        "mine:Beam",
        "def forward(self, x): return x / 0",
        ["forward holds non-finite"],
    ),
    "forward with an offset": (
        "mine:Beam",
        "def forward(self, x): return x + 1",
        ["forward is not linear"],
    ),
    "forward that squares": (
        "mine:Beam",
        "def forward(self, x): return x * x.abs()",
        ["forward is not linear"],
    ),
    "random forward": (
        "mine:Beam",
        "def forward(self, x): return x * torch.rand(())",
        ["other values when it is called again"],
    ),
    "zero forward": ("mine:Beam", "def forward(self, x): return 0 * x", ["zero for every x"]),
    "forward that mixes a batch": (
        "mine:Beam",
        "def forward(self, x): return x - x.mean(dim=0)",
        ["mixes the observations"],
    ),
    "adjoint that is none": (
        "mine:Beam",
        "def forward(self, x): return 2 * x",
        ["adjoint is not the adjoint"],
    ),
    "adjoint of another shape": (
        "mine:Beam",
        "def adjoint(self, y): return y.flatten(1)",
        ["adjoint has shape"],
    ),
    "an observation shape of no integers": (
        "mine:Beam",
        "observation_shape = [1, 6, 6]",
        ["observation_shape"],
    ),
    "observed of numbers": (
        "mine:Beam",
        "def observed(self): return torch.ones(len(self), 1, 6, 6)",
        ["observed holds torch.float32"],
    ),
    "observed that is not so": (
        "mine:Beam",
        "def observed(self): return torch.zeros(len(self), 1, 6, 6, dtype=torch.bool)",
        ["not zero where observed"],
    ),
    "a parameter that is missing": (
        "mine:Beam",
        "fields = ('gain',)",
        ["operator/gain is missing"],
    ),
    "a check that fails": (
        "mine:Beam",
        "def check(self): raise KeyError('width')",
        ["KeyError", "width"],
    ),
}

MODULE = """
import torch
from diem.operators import Operator

class Beam(Operator):
    fields = ("mask",)
    observation_shape = (1, 6, 6)
    def forward(self, x): return x
    {adjoint}
    {body}
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a user's module where it is looked for."""
    monkeypatch.setenv(SEARCH_PATH, str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "mine", raising=False)

    def write(body):
        whole = body.startswith(("class", "import", "1 ", "def Beam"))
        adjoint = "" if "return x\n" in f"{body}\n" else "def adjoint(self, y): return y"
        source = body if whole else MODULE.format(body=body, adjoint=adjoint)
        (tmp_path / "mine.py").write_text(textwrap.dedent(source), encoding="utf-8")

    return write


@pytest.mark.parametrize(("name", "body", "words"), OPERATORS.values(), ids=OPERATORS.keys())
def test_operators(tmp_path, module, name, body, words):
    path, output = good(tmp_path / "own.h5"), tmp_path / "observations.h5"
    attribute("operator", None)(path)
    module(body)

    with pytest.raises(DiemError) as error:
        ingest(path, output, {"operator": {"name": name}}, HELD_OUT, 0, "some")

    one_sentence(error.value, "own.h5", repr(name), *words)
    assert not output.exists()


# Configurations

CONFIG = {
    "experiments": {
        "mine": {
            "data": {"name": "hdf5", "path": "own.h5"},
            "observations": {"all": {"operator": "mask"}},
            "network": {"name": "residual_mlp"},
            "laps": 2,
            "runs": {"base": {"observations": "all"}},
        }
    }
}
MINE = "experiments.mine"

CONFIGS = {
    "a misspelt data set": (
        "data",
        {"name": "hfd5", "path": "own.h5"},
        ["data.name is 'hfd5'", "did you mean 'hdf5'"],
    ),
    "a data set of that name alone": ("data", "hfd5", ["data is 'hfd5'", "did you mean 'hdf5'"]),
    "no data": ("data", None, ["data is None", "type object"]),
    "data without a name": ("data", {"path": "own.h5"}, ["data lacks the key 'name'"]),
    "no path": ("data", {"name": "hdf5"}, ["data", "'path'"]),
    "no such file": ("data.path", "nowhere.h5", ["data.path", "nowhere.h5", "no such file"]),
    "braces": ("data.path", "a{b}.h5", ["data.path is 'a{b}.h5'", "braces"]),
    "braces of weights": (
        "evaluation",
        {"dinov2_weights": "a{b}.pth"},
        ["evaluation.dinov2_weights is 'a{b}.pth'", "braces"],
    ),
    "a file of text": ("data.path", "text.h5", ["data.path", "text.h5", "HDF5"]),
    "a wrong key": ("data.paht", "own.h5", ["data.paht", "did you mean 'path'"]),
    "numbers to hold out": ("data.test", 100, ["data.test", "less than 1"]),
    "a mask to simulate": (
        "observations.all.operator",
        {"name": "mask", "missing": 0.5},
        ["observations.all.operator.missing", "unknown"],
    ),
    "an unknown operator": (
        "observations.all.operator",
        "maks",
        ["observations.all.operator", "did you mean 'mask'"],
    ),
    "an import path without class": (
        "observations.all.operator",
        "telescope:",
        ["observations.all.operator", "'telescope:'"],
    ),
    "a path of a file": (
        "observations.all.operator",
        "../telescope.py:Beam",
        ["observations.all.operator", "telescope.py"],
    ),
    "negative noise": ("observations.all.sigma_y", -1, ["observations.all.sigma_y"]),
    "a metric of clean data": (
        "evaluation",
        {"metrics": ["psnr"]},
        ["evaluation.metrics", "'psnr'", "clean data"],
    ),
    "another metric of clean data": (
        "evaluation",
        {"metrics": ["residual", "sliced_wasserstein"]},
        ["'sliced_wasserstein'", "clean data"],
    ),
    "reconstructions": (
        "evaluation",
        {"reconstruct": ["all"]},
        ["evaluation.reconstruct", "clean data"],
    ),
    "a figure of the truth": ("figures", ["corner_truth"], ["figures", "'corner_truth'"]),
    "a figure of distances": ("figures", ["distance"], ["figures", "'distance'"]),
    "a figure of uncertainty": ("figures", ["uncertainty"], ["figures", "'uncertainty'"]),
    "a figure without its metric": (
        "evaluation",
        {"metrics": ["residual"]},
        ["figures", "'lap_choice'"],
    ),
    "a colour change of grey images": (
        "m_step",
        {"augment": {"hue": 0.1}},
        ["augment.hue", "colour images"],
    ),
    "too few to predict": (
        "evaluation",
        {"predicted_observations": 1},
        ["evaluation.predicted_observations", "at least 2"],
    ),
}


@pytest.mark.parametrize(("key", "value", "words"), CONFIGS.values(), ids=CONFIGS.keys())
def test_configs(tmp_path, monkeypatch, key, value, words):
    monkeypatch.chdir(tmp_path)
    good(tmp_path / "own.h5")
    text(tmp_path / "text.h5")
    config = copy.deepcopy(CONFIG)
    place = config["experiments"]["mine"]
    if "lap_choice" in words[-1]:
        place["figures"] = ["lap_choice"]
    *parents, last = key.split(".")
    for parent in parents:
        place = place[parent]
    place[last] = value

    with pytest.raises(DiemError) as error:
        resolve(config, "mine.yaml")

    one_sentence(error.value, f"mine.yaml: {MINE}", *words)


def test_a_good_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good(tmp_path / "own.h5")
    config = copy.deepcopy(CONFIG)
    observations = config["experiments"]["mine"]["observations"]
    observations["told"] = {}
    config["experiments"]["mine"]["figures"] = ["prior", "inpainting", "lap_choice"]

    mine = resolve(config, "mine.yaml")["experiments"]["mine"]

    assert mine["observations"]["all"] == {"operator": {"name": "mask"}}
    assert mine["evaluation"]["metrics"] == ["prediction", "observation_distance", "residual"]
    assert mine["data"] == {"name": "hdf5", "path": "own.h5", "links": False, **HELD_OUT}


OWN = {"operator": {"class": "telescope:Beam"}, "sigma_y": [0.1, 0.2]}

TOLD = {
    "all by the file": ({}, {}, []),
    "all by the configuration": (OWN, {"operator": None, "sigma_y": None}, []),
    "no operator": ({}, {"operator": None}, ["operator is missing"]),
    "two operators": ({"operator": {"name": "blur"}}, {}, ["'blur'", "names 'mask'"]),
    "a class of the file": ({}, {"operator": "telescope:Beam"}, ["imported only if you name it"]),
    "no noise": ({}, {"sigma_y": None}, ["sigma_y is missing"]),
    "noise twice": ({"sigma_y": 0.1}, {}, ["sigma_y is given", "the file holds it"]),
    "two rows": ({}, {"rows": 2}, ["data.path", "2 different x", "validation and test"]),
    "three x of many rows": ({}, {"index": 2}, ["data.path", "2 different x", "too few"]),
}


@pytest.mark.parametrize("case", TOLD)
def test_a_plan_and_a_check_refuse_what_taking_the_file_in_would(tmp_path, monkeypatch, case):
    entry, changes, words = TOLD[case]
    monkeypatch.chdir(tmp_path)
    good(tmp_path / "own.h5")
    if "operator" in changes:
        set_attributes(tmp_path / "own.h5", operator=changes["operator"])
    if "sigma_y" in changes:
        without("train/sigma_y")(tmp_path / "own.h5")
    for name in ("y", "operator/mask", "sigma_y") if "rows" in changes else ():
        put(f"train/{name}", lambda data: data[:2])(tmp_path / "own.h5")
    if "index" in changes:
        put("train/index", lambda _: np.arange(60) % 2)(tmp_path / "own.h5")
    config = copy.deepcopy(CONFIG)
    mine = config["experiments"]["mine"]
    mine["observations"] = {"all": entry}

    if not words:
        resolve(config, "mine.yaml")
        return
    with pytest.raises(DiemError) as error:
        resolve(config, "mine.yaml")
    one_sentence(error.value, "mine.yaml: experiments.mine", *words)
    if "different x" in " ".join(words):
        errors = [text for level, text in check_file("own.h5") if level == "error"]
        assert any("too few to hold out" in text for text in errors)


def test_there_are_forty_and_more():
    assert len(FILES) + len(OPERATORS) + len(CONFIGS) >= 40
