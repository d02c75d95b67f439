"""A configuration to begin with: chosen by what a file holds, and one that runs."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from test_own_doors import CLASS

import diem
from diem import cli
from diem.config.resolve import resolve
from diem.data.ingest import ingest
from diem.data.observations import Observations, users_observations
from diem.data.validate import check_file
from diem.planning.beginning import beginning


def smooth(*shape):
    return np.random.default_rng(0).standard_normal(shape).cumsum(axis=-1)


def rough(*shape):
    return np.random.default_rng(0).standard_normal(shape)


CASES = {
    "a table": (rough(80, 21), "table", {"name": "residual_mlp"}),
    "a wide table": (rough(80, 64), "table", {"name": "residual_mlp"}),
    "a series": (smooth(80, 64) / 4, "series", {"name": "unet", "channels": [32, 64, 64]}),
    "a series that is halved once": (smooth(80, 2, 34), "series", {"channels": [32, 64]}),
    "a series of odd length": (smooth(80, 2, 33), "series", {"name": "residual_mlp"}),
    "grey images": (rough(80, 1, 8, 8), "images", {"name": "unet", "channels": [32, 64]}),
    "images of many channels": (rough(80, 5, 16, 16), "images", {"channels": [32, 64, 128]}),
    "small images": (rough(80, 1, 4, 6), "images", {"name": "residual_mlp"}),
    "volumes": (rough(80, 1, 2, 4, 4), "volumes", {"name": "residual_mlp"}),
}


@pytest.mark.parametrize(("y", "kind", "network"), CASES.values(), ids=CASES)
def test_the_kind_of_data_decides(tmp_path, monkeypatch, y, kind, network):
    monkeypatch.chdir(tmp_path)
    diem.write_observations("own.h5", {"train": y}, operator="mask", sigma_y=0.1)

    with users_observations("own.h5") as file:
        made = beginning(file, "own", "own.yaml")
    resolved = resolve(yaml.safe_load(made.text), "own.yaml")["experiments"]["own"]

    assert made.kind == kind
    assert f"Taken for {kind}: {made.reason}." in made.text
    assert network.items() <= resolved["network"].items()
    assert ("inpainting" in resolved["figures"]) is (kind == "images" and y.shape[1] in (1, 3))
    assert resolved["gaussian"]["rank"] < np.prod(y.shape[1:])


ROWS = [(1500, 4, 8, 250), (2047, 4, 8, 320), (2048, 8, 8, 320), (16384, 8, 1, 2000)]


@pytest.mark.parametrize(("rows", "laps", "repeats", "steps"), ROWS)
def test_few_rows_are_sampled_often_and_learned_shortly(tmp_path, rows, laps, repeats, steps):
    path = tmp_path / "own.h5"
    diem.write_observations(path, {"train": rough(rows, 3)}, operator="mask", sigma_y=0.1)

    with users_observations(path) as file:
        made = beginning(file, "own", "own.yaml")

    entry = resolve(yaml.safe_load(made.text), "own.yaml")["experiments"]["own"]
    assert (entry["e_step"]["repeats"], entry["m_step"]["steps"]) == (repeats, steps)
    assert entry["e_step"]["final"] == (4 if rows == 16384 else 1)
    assert (entry["gaussian"]["shrinkage"], entry["network"]["gaussian"]) == (3, True)
    assert max(entry["evaluation"]["laps"]) < entry["laps"] == laps
    assert entry["e_step"]["restart"] is not None  # the rest is the recipe's


@pytest.mark.parametrize(("count", "steps"), [(300, 250), (2000, 620), (3200, 1000), (9000, 1000)])
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 64)])
def test_a_lap_of_a_unet_is_twenty_passes_within_bounds(tmp_path, shape, count, steps):
    path = tmp_path / "own.h5"
    diem.write_observations(path, {"train": smooth(count, *shape)}, operator="mask", sigma_y=0.1)

    with users_observations(path) as file:
        made = beginning(file, "own", "own.yaml")

    entry = resolve(yaml.safe_load(made.text), "own.yaml")["experiments"]["own"]
    assert entry["network"]["name"] == "unet"
    assert entry["m_step"]["steps"] == steps


def test_a_table_of_more_columns_than_a_gaussian_is_for(tmp_path):
    path = tmp_path / "own.h5"
    diem.write_observations(path, {"train": rough(80, 4097)}, operator="mask", sigma_y=0.1)

    with users_observations(path) as file:
        made = beginning(file, "own", "own.yaml")

    assert not resolve(yaml.safe_load(made.text), "own.yaml")["experiments"]["own"]["network"][
        "gaussian"
    ]


@pytest.mark.parametrize(
    ("factor", "shift", "offset", "scale"),
    [
        (1.0, 0.0, 0.0, 1.0),
        (50.0, 300.0, 300.0, 50.0),
        (0.01, 0.0, 0.0, 0.01),
        (1.0, 1013.2, 1013.2, 1.0),
    ],
)
def test_the_scale_is_that_of_the_values(tmp_path, factor, shift, offset, scale):
    y = shift + factor * rough(400, 6)
    path = tmp_path / "own.h5"
    diem.write_observations(path, {"train": y}, operator="mask", sigma_y=0.1 * factor)

    with users_observations(path) as file:
        made = beginning(file, "own", "own.yaml")

    data = yaml.safe_load(made.text)["experiments"]["own"]["data"]
    assert data["offset"] == pytest.approx(offset, abs=0.1 * factor)
    assert data["scale"] == pytest.approx(scale, rel=0.1)


def written(path):
    """Returns the text of a configuration to begin with, and its data."""
    with users_observations(path) as file:
        made = beginning(file, "own", "own.yaml")
    return made.text, yaml.safe_load(made.text)["experiments"]["own"]["data"]


def test_columns_of_unlike_units_have_a_scale_each(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # The last two are the same in all rows, and never seen.
    mean, sd = [1013.25, 101325.0, 0.6, 0.0, 4.0, 0.0], [8.0, 12.0, 0.2, 1e-5, 0.0, 0.0]
    y = np.array(mean) + np.array(sd) * rough(800, 6)
    y[np.random.default_rng(1).random(y.shape) < 0.4] = np.nan
    y[:, 5] = np.nan
    diem.write_observations("own.h5", {"train": y}, operator="mask", sigma_y=1e-7)

    text, data = written("own.h5")

    resolved = resolve(yaml.safe_load(text), "own.yaml")["experiments"]["own"]["data"]
    scale = np.array(resolved["scale"])
    np.testing.assert_allclose(scale, [*sd[:4], 1.0, 1.0], rtol=0.1)
    assert (abs(np.array(resolved["offset"]) - mean) < 0.15 * scale).all()
    assert f"      offset: {data['offset']}\n      scale: {data['scale']}\n" in text
    assert "-0.0" not in text


def test_channels_of_unlike_units_have_a_scale_each(tmp_path):
    mean, sd = np.array([1013.25, 0.6])[:, None], np.array([8.0, 0.02])[:, None]
    y = mean + sd * rough(400, 2, 33)
    y[np.random.default_rng(1).random(y.shape) < 0.4] = np.nan
    diem.write_observations(tmp_path / "own.h5", {"train": y}, operator="mask", sigma_y=0.1 * sd)

    text, data = written(tmp_path / "own.h5")

    np.testing.assert_allclose(data["scale"], sd[:, 0], rtol=0.1)
    assert (abs(np.array(data["offset"]) - mean[:, 0]) < 0.05 * sd[:, 0]).all()
    assert "one number each" in text
    assert resolve(yaml.safe_load(text), "own.yaml")


def test_many_columns_are_written_on_lines_that_can_be_read(tmp_path):
    y = np.geomspace(1e-3, 1e3, 60) * rough(400, 60)
    diem.write_observations(tmp_path / "own.h5", {"train": y}, operator="mask", sigma_y=1e-4)

    text, data = written(tmp_path / "own.h5")

    assert len(data["scale"]) == len(data["offset"]) == 60
    assert max(map(len, text.split("data:")[1].split("observations:")[0].splitlines())) <= 100


def test_columns_that_one_number_serves_have_one(tmp_path):
    unlike, eye = np.array([1.0, 100.0, 1e4]), np.eye(3)[None]
    tables = {
        "like": ({"train": 300 + 50 * rough(400, 3)}, "mask"),
        "scaled": ({"train": np.array([0.5, 1.0, 1.3]) * rough(400, 3)}, "mask"),
        "series": ({"train": 300 + 50 * rough(400, 3, 33)}, "mask"),
        "one axis": ({"train": smooth(400, 129)}, "mask"),
        "mixed": ({"train": {"y": unlike * rough(400, 3), "matrix": eye}}, "projection"),
    }
    for name, (splits, operator) in tables.items():
        path, shape = tmp_path / f"{name}.h5", None if operator == "mask" else (3,)
        diem.write_observations(path, splits, operator, sigma_y=0.1, event_shape=shape)
        assert isinstance(written(path)[1]["scale"], float), name


def test_a_table_of_one_value_has_a_configuration_too(tmp_path):
    path = tmp_path / "own.h5"
    diem.write_observations(path, {"train": np.full((80, 3), 7.0)}, "mask", sigma_y=0.1)
    data = written(path)[1]
    assert (data["offset"], data["scale"]) == (7.0, 1.0)


SPLIT = {
    "four": ({"train": 4}, None, 2),
    "eight": ({"train": 8}, None, 2),
    "twenty-nine": ({"train": 29}, None, 2),
    "thirty": ({"train": 30}, None, 2),
    "four with a test split": ({"train": 4, "test": 3}, None, 2),
    "a validation split": ({"train": 4, "validation": 2}, None, 2),
    "groups of several": ({"train": 20}, np.arange(20) % 5, 4),
    "groups of one": ({"train": 20}, np.arange(20), 2),
    "groups of one beside a large one": ({"train": 20}, np.arange(20).clip(9), 2),
}


@pytest.mark.parametrize(("counts", "groups", "held"), SPLIT.values(), ids=SPLIT)
def test_two_observations_are_left_to_compare_laps_by(tmp_path, counts, groups, held):
    path = tmp_path / "own.h5"
    splits = {split: {"y": rough(count, 3)} for split, count in counts.items()}
    if groups is not None:
        splits["train"]["groups"] = groups
    diem.write_observations(path, splits, operator="mask", sigma_y=0.1)

    text, data = written(path)
    resolved = resolve(yaml.safe_load(text), "own.yaml")["experiments"]["own"]
    ingest(path, tmp_path / "observations.h5", {}, resolved["data"], 0, "own")

    assert not [sentence for level, sentence in check_file(path) if level == "error"]
    few = held == 2 and "validation" not in counts and counts["train"] < 30
    assert ("validation" in data) is few
    with Observations(tmp_path / "observations.h5") as file:
        assert file.count("validation") == held


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"train": 3}, "3 different x (or groups), too few to hold out validation and test: 4"),
        ({"train": 2, "test": 2}, "2 different x (or groups), too few to hold out validation: 3"),
        ({"train": 9, "validation": 1}, "'validation' holds 1 of the two observations"),
    ],
)
def test_too_few_to_compare_laps_by_are_refused_alike(tmp_path, monkeypatch, capsys, counts, words):
    monkeypatch.chdir(tmp_path)
    splits = {split: rough(count, 3) for split, count in counts.items()}
    diem.write_observations("own.h5", splits, operator="mask", sigma_y=0.1)

    told = []
    for verb in ("check", "init"):
        assert cli.main([verb, "own.h5"]) == 1
        told.append(capsys.readouterr().err)

    assert told[0] == told[1]
    assert told[0].startswith("Error: own.h5: ")
    assert words in told[0]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIEM_PATH", str(tmp_path))
    monkeypatch.setattr(cli, "_cost", lambda config: "the cost")
    Path("sensors.py").write_text(CLASS)
    y, alive = rough(80, 6).astype(np.float32), rough(80, 6) < 0.5
    diem.write_observations("my data.h5", {"train": {"y": y, "alive": alive}})
    return tmp_path


def test_the_command_writes_it_and_tells_its_cost(folder, capsys):
    options = ["--operator", "sensors:Alive", "--sigma-y", "0.2"]

    assert cli.main(["init", "my data.h5", *options]) == 0

    told = capsys.readouterr().out
    assert told.startswith("my_data.yaml: a configuration to begin with, for table (x has fewer")
    assert told.endswith("the cost\n")
    written = yaml.safe_load(Path("my_data.yaml").read_text())["experiments"]["my_data"]
    assert written["observations"]["all"] == {"operator": "sensors:Alive", "sigma_y": 0.2}
    assert written["data"]["path"] == "my data.h5"


def test_commands_that_it_tells_can_be_pasted(folder, capsys):
    options = ["--operator", "sensors:Alive", "--sigma-y", "0.2", "-o", "my config.yaml"]

    assert cli.main(["init", "my data.h5", *options]) == 0

    assert "diem run --configfile 'my config.yaml' --cores all" in capsys.readouterr().out
    assert "`diem estimate 'my config.yaml'`" in Path("my config.yaml").read_text()


NAMES = {
    "🌍 ä.h5": "own",
    'a "b" \\c: #d.h5': "a_b_c_d",
    "a\u2028b\x7f.h5": "a_b",
    "figures.h5": "figures_data",
    "estimate.h5": "estimate_data",
    "posterior.h5": "posterior_data",
    "pages.h5": "pages_data",
    f"{'long' * 30}.h5": "long" * 25,
}


@pytest.mark.parametrize("file", NAMES)
def test_files_of_any_name_have_a_configuration(tmp_path, monkeypatch, capsys, file):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "_cost", lambda config: "the cost")
    diem.write_observations(file, {"train": rough(80, 3)}, operator="mask", sigma_y=0.1)

    assert cli.main(["init", file]) == 0, capsys.readouterr().err

    text = Path(f"{NAMES[file]}.yaml").read_text(encoding="utf-8")
    (entry,) = resolve(yaml.safe_load(text), "own.yaml")["experiments"].values()
    assert entry["data"]["path"] == file


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a{b}.h5"], ["FILE is 'a{b}.h5'", "braces"]),
        (["my data.h5"], ["my data.h5", "'operator' is missing", "--operator"]),
        (["my data.h5", "--operator", "sensors:Alive"], ["my data.h5", "'sigma_y' is missing"]),
        (["my data.h5", "--kind", "sounds"], ["--kind", "'sounds'", "series"]),
        (["my data.h5", "-o", "sensors.py"], ["sensors.py", "is there already"]),
        (["other.h5"], ["other.h5", "no such file"]),
    ],
)
def test_what_cannot_be_begun_writes_nothing(folder, capsys, arguments, words):
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    assert cli.main(["init", *arguments]) == 1

    told = capsys.readouterr().err
    assert all(word in told for word in words), told
    assert told.count("\n") == 1
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before
