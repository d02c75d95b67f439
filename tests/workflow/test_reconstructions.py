"""The smallest MRI experiment, with two coils and complex images, to its figures and tables."""

import pandas as pd
import pytest
from running import every_kind


@pytest.mark.slow
def test_an_mri_experiment_runs_to_its_tables_and_figures(workflow):
    workflow.config = every_kind("experiments", "scan")

    workflow.make()

    for figure in ("slices", "uncertainty"):
        for kind in ("pdf", "png"):
            assert workflow.path(f"results/figures/scan_{figure}.{kind}").stat().st_size > 1000
    table = pd.read_csv(workflow.path("results/tables/scan_reconstructions.csv"))
    assert len(table) == 2 * 5
    assert list(table["observations"].unique()) == ["r4", "r2"]
    assert table[["psnr", "ssim", "nmse"]].notna().all(axis=None)
    assert table["card of ssim"].str.contains("clean test").all()
    # More of k-space is a better zero-filled inverse.
    zero_filled = table[table["method"] == "adjoint (zero-filled)"].set_index("observations")
    assert zero_filled.loc["r2", "psnr"] > zero_filled.loc["r4", "psnr"]
