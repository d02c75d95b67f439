"""The heuristics as a user runs them, without any experiment."""

import pandas as pd


def test_tables_and_figures_of_heuristics_alone(workflow):
    small = {"prior_samples": 2000, "samples": 32, "iterations": 10}
    workflow.config = {
        "seed": 3,
        "device": "cpu",
        "heuristics": {
            "tiny": {
                "cases": 3,
                "block": 2,
                "sigmas": [0.1, 1.0],
                **small,
                "coil": {"prior_samples": 2000, "samples": 500},
            }
        },
    }

    result = workflow.run()

    assert result.returncode == 0, result.stderr
    rows = pd.read_csv(workflow.path("results/tables/heuristics_tiny_rows.csv"))
    assert sorted(rows["case"].unique()) == [1, 2, 3]
    assert len(rows) == 3 * 2 * 5
    assert set(rows["heuristics"]) == {"tiny"}
    table = pd.read_csv(workflow.path("results/tables/heuristics_tiny.csv"))
    assert list(table["cases"].unique()) == [3]
    for figure in ("divergence", "coil"):
        for kind, magic in (("pdf", b"%PDF"), ("png", b"\x89PNG")):
            path = workflow.path(f"results/figures/heuristics_tiny_{figure}.{kind}")
            assert path.read_bytes().startswith(magic)
