"""The smallest MRI experiment, with two coils and complex images, to its figures and tables."""

import pandas as pd


def test_an_mri_experiment_runs_to_its_tables_and_figures(workflow):
    workflow.config["experiments"] = {
        "scan": {
            "data": {
                "name": "phantoms",
                "train": 24,
                "validation": 8,
                "test": 8,
                "size": 16,
                "complex": True,
            },
            "observations": {
                f"r{r}": {
                    "operator": {"name": "fourier", "acceleration": r, "coils": 2},
                    "sigma_y": 0.01,
                }
                for r in (2, 4)
            },
            "network": {"name": "unet", "channels": [8], "blocks": 1, "embedding": 8, "patch": 4},
            "schedule": {"sigma_min": 0.01, "sigma_max": 10.0},
            "gaussian": {"rank": 4, "iterations": 2},
            "laps": 1,
            "e_step": {"sampler": {"steps": 2}, "block": 24},
            "m_step": {"steps": 4, "batch": 8, "augment": {"flip": True, "shift": 1}},
            "evaluation": {
                "laps": [],
                "samples": 8,
                "sampler": {"name": "ddim", "steps": 2},
                "metrics": ["psnr", "ssim", "nmse", "residual"],
                "test_observations": 4,
                "posterior_samples": 2,
                "reconstruct": ["r4", "r2"],
            },
            "figures": ["slices", "uncertainty"],
            "runs": {"base": {"observations": "r4"}},
        }
    }

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
