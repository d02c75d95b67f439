"""The heuristics as a user runs them, without any experiment."""

import pandas as pd
import pytest
from running import every_kind


@pytest.mark.slow
def test_tables_and_figures_of_heuristics_alone(workflow):
    workflow.config = every_kind("heuristics", "tiny")

    workflow.make()

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
