"""The benchmarks still run: the smallest pieces of each, since all of them takes hours."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from importing import imported

from diem.config.resolve import resolve

FOLDER = Path(__file__).parents[2] / "benchmarks"
CPU = torch.device("cpu")


@pytest.fixture
def benchmark():
    """Imports a benchmark by its name."""

    return lambda name: imported(FOLDER / f"{name}.py")


@pytest.mark.slow
@pytest.mark.parametrize("half", ["e_step", "m_step"])
def test_all_variants_of_the_engine_run(half, benchmark):
    engine = benchmark("engine")
    runs, chosen = engine.steps("mlp", half, 1, 4, CPU, compiled=False)
    assert set(runs) > set(chosen) > {"diem"}
    outputs = {name: run() for name, run in runs.items()}
    if half == "e_step":
        assert engine.error(outputs["azula"], outputs["diem"]) < 1e-5
    assert engine.memory("mlp", half, 1, "diem", CPU) > 0


def test_a_machine_keeps_the_others_figures(tmp_path, benchmark):
    engine = benchmark("engine")
    document = json.loads((FOLDER / "engine.json").read_text(encoding="utf-8"))
    name, entry = next(iter(document.items()))
    engine.write(tmp_path, entry["machine"], entry["rows"])
    engine.write(tmp_path, {**entry["machine"], "gpu": "another"}, entry["rows"][:4])
    engine.write(tmp_path, {**entry["machine"], "gpu": "another"}, entry["rows"][-4:])
    written = json.loads((tmp_path / "engine.json").read_text(encoding="utf-8"))
    assert written[name] == entry
    assert written["another"]["rows"] == entry["rows"][-4:]
    page = (tmp_path / "engine.md").read_text(encoding="utf-8")
    assert page.count("\n## ") == 2


@pytest.mark.slow
def test_what_the_recipes_cost_is_counted(benchmark):
    evidence = benchmark("evidence")
    config = evidence.configured(0)
    config["experiments"] = {"manifold": config["experiments"]["manifold"]}

    flops = evidence.spent(config)

    laps = config["experiments"]["manifold"]["laps"]
    of_run = {
        run: [flops["manifold", run, lap + 1] for lap in range(laps)] for run in ("paper", "fast")
    }
    assert (np.diff(of_run["paper"]) > 0).all()
    assert of_run["fast"][-1] < of_run["paper"][-1] / 8
    assert len(evidence.targets(config)) == len(set(evidence.targets(config)))


def test_evidence_is_of_last_laps_and_by_lap(benchmark):
    evidence = benchmark("evidence")
    runs = [("floor", 0, 8.0), ("paper", 2, 6.0), ("paper", 8, 4.0), ("fast", 8, 1.0)]
    rows = pd.DataFrame(
        {
            "experiment": "digits",
            "prior": prior,
            "stage": "lap" if lap else "floor",
            "lap": lap,
            "seed": seed,
            "subject": "prior",
            "metric": "frechet_distance",
            "value": value + seed * (prior == "fast"),
            "flops": lap * 1e12 if lap else None,
        }
        for prior, lap, value in runs
        for seed in (0, 2)
    )

    p_values = rows[rows["prior"] == "paper"].assign(metric="energy_test_p", value=[0.5, 0.001] * 2)
    rows = pd.concat([rows, p_values])

    last = cells(evidence.last_laps(rows))
    assert last[2][2:5] == ["uniform", "", "0.5, 0.001"]
    assert last[0][3:6] == ["", "8e+12", "8e+12"]
    assert last[1][2:6] == ["0", "8 ± 0", "4 ± 0", "2 ± 1"]
    assert last[1][-1] == "-2 ± 1"
    assert [line[1:] for line in cells(evidence.by_lap(rows))] == [
        ["2", "2e+12", "6 ± 0"],
        ["8", "8e+12", "4 ± 0"],
        ["8", "8e+12", "2 ± 1"],
    ]


def cells(table):
    """Returns the cells of a table of Markdown, without its head."""
    return [[c.strip() for c in line.split("|")[1:-1]] for line in table.splitlines()[2:]]


@pytest.mark.slow
@pytest.mark.parametrize("half", ["E-step", "M-step"])
def test_memory_is_measured(half, benchmark):
    memory = benchmark("memory")
    # In processes of their own: what earlier tests have freed would be used again.
    assert min(memory.measured("digits", half, (64, 128), "cpu")["peaks"]) > 0


@pytest.mark.slow
def test_growth_is_measured(tmp_path, benchmark):
    growth = benchmark("growth")
    small = {"samples": growth.BLOCK + 1, "steps": 1, "size": 4, "iterations": 1}
    assert growth.clocked(growth.prepared(tmp_path, 0, **small)) > 0


@pytest.mark.slow
def test_the_laps_that_a_plan_is_held_against_are_run(tmp_path, benchmark):
    estimate = benchmark("estimate")
    demo = yaml.safe_load((FOLDER.parent / "config" / "config.yaml").read_text(encoding="utf-8"))
    config = resolve(estimate.shortened(demo, "manifold"), "config.yaml")
    entry = config["experiments"]["manifold"]
    next(iter(entry["runs"].values()))["m_step"]["steps"] = 8
    found = estimate.real(entry, tmp_path)
    assert set(found) == {"E-steps", "M-steps"}
    assert all(of[key] > 0 for of in found.values() for key in ("seconds", "flops", "bytes"))


def test_mutants_change_one_place_each(benchmark, tmp_path, monkeypatch):
    mutations = benchmark("mutations")
    monkeypatch.setattr(mutations, "LIBRARY", tmp_path)
    (tmp_path / "some.py").write_text(
        "SIZE: int = 3\n"
        "def f(x, on=True):\n"
        '    """Adds 1."""\n'
        "    if not x and x < 2:\n"
        '        raise ValueError(f"{x + 1}")\n'
        "    x.y = x * 0.5\n"
        "    return x\n"
    )

    found = {mutant.key: mutant for mutant in mutations.mutants("some.py")}

    assert [key.partition(" ")[2] for key in found] == [
        "3 -> 4",
        "True -> False",
        "not x and x < 2 -> not x or x < 2",
        "not x -> x",
        "x < 2 -> x <= 2",
        "2 -> 3",
        "raise ValueError(f'{x + 1}') -> pass",
        "x.y = x * 0.5 -> pass",
        "x * 0.5 -> x / 0.5",
        "0.5 -> 1.0",
    ]
    mutant = found["some.py:4 x < 2 -> x <= 2"]
    assert mutant.within
    assert not found["some.py:1 3 -> 4"].within
    before, after = (tmp_path / "some.py").read_text(), mutant.tree()
    changed = json.dumps(mutations.ast.unparse(mutations.ast.parse(before)).splitlines())
    assert changed.replace("x < 2", "x <= 2") == json.dumps(
        mutations.ast.unparse(after).splitlines()
    )


def test_a_mutant_meets_the_tests_of_its_line_before_others_of_their_files(
    benchmark, tmp_path, monkeypatch
):
    mutations = benchmark("mutations")
    monkeypatch.setattr(mutations, "COVERED", tmp_path)
    ran = {
        "a.py::slow": (30, {"some.py": [1, 2, 5]}),
        "a.py::fast": (1, {"some.py": [1, 2]}),
        "a.py::other": (2, {"some.py": [1]}),
        "a.py::cached": (3, {}),
        "b.py::elsewhere": (1, {"some.py": [1]}),
        "a.py::endless": (90, {"some.py": [2]}),
    }
    content = {test: {"seconds": seconds, "lines": lines} for test, (seconds, lines) in ran.items()}
    (tmp_path / "test.json").write_text(json.dumps(content))
    tests = mutations.Tests()

    def of(line, within=True):
        return tests.of(mutations.Mutant("some.py", line, "", "", 0, 0, within))

    # The endless one takes too long; a line of constants is that of the statement before.
    rest = ["a.py::other", "a.py::cached"]
    assert of(2) == of(4) == ["a.py::fast", "a.py::slow", *rest]
    assert of(5) == ["a.py::slow", "a.py::fast", *rest]
    # Most tests that run the module are of a.py.
    own = ["a.py::fast", *rest, "a.py::slow", "b.py::elsewhere", "tests/unit/test_reference.py"]
    assert of(1, within=False) == own


def test_gaps_are_filled_linearly(benchmark):
    own = benchmark("own_data")
    row = np.array([np.nan, 1.0, np.nan, np.nan, 4.0, np.nan])
    np.testing.assert_allclose(own._interpolated(row), [1, 1, 2, 3, 4, 4])
    plane = 2.0 * np.arange(4)[:, None] + np.arange(5)
    image = np.stack([plane, -plane])
    image[:, 1:3, 1:4] = image[1, 0, 0] = np.nan
    np.testing.assert_allclose(own._interpolated(image)[0], plane)
    assert own._interpolated(image)[1, 0, 0] == -1.0  # of the nearest, beyond the others


@pytest.mark.parametrize(
    ("name", "shape", "part"),
    [("wine", (178, 13), 0.4), ("pulse waves", (1300, 48), 0.35), ("photographs", (3, 8, 8), 0.5)],
)
def test_a_part_of_the_values_is_hidden(name, shape, part, benchmark):
    made = benchmark("own_data").MAKERS[name](np.random.default_rng(0))

    assert made.x.shape[-len(shape) :] == shape
    assert made.x.std() == pytest.approx(1.0, abs=1e-3)
    assert np.broadcast_to(made.hidden, made.x.shape).mean() == pytest.approx(part, abs=0.02)
    assert made.neighbours is (name != "wine")


def test_own_data_are_summed_up_with_paired_differences(benchmark):
    rows = pd.DataFrame(
        {"data": "waves", "seed": seed, "method": method, "CRPS": crps + seed}
        for method, crps in (("Gaussian", 1.0), ("chosen", 0.5))
        for seed in (0, 1, 2)
    )

    line = benchmark("own_data").summary(rows).splitlines()[-1]

    assert [cell.strip() for cell in line.split("|")[2:-1]] == [
        *("chosen", "1.500 ± 0.577", "-0.500 ± 0.000", "3")
    ]
