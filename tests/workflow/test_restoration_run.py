"""The comparison of posterior samplers as a user runs it: tiny, and on bad input."""

import pandas as pd
import pytest
from PIL import Image
from test_chain import one_sentence

pytestmark = pytest.mark.slow

TINY = {
    "data": {"name": "photographs", "size": 12, "train": 64, "validation": 8, "test": 4},
    "train": {
        "network": {"name": "residual_mlp", "width": 32, "blocks": 1, "embedding": 16},
        "gaussian": {"rank": 2},
        "m_step": {"steps": 20, "batch": 16, "learning_rate": 0.001},
    },
    "tasks": {
        "inpainting_box": {"operator": {"name": "mask", "box": 6}, "sigma_y": 1.0},
        "super_resolution": {"operator": {"name": "downsample", "factor": 4}, "sigma_y": 0.1},
    },
    "methods": {
        "mmps_3": {"name": "mmps", "iterations": 3},
        "diffpir": {"name": "diffpir"},
    },
    "steps": [2, 10],
    "images": 3,
}


@pytest.fixture
def comparison(workflow):
    workflow.config["restoration"] = {"patches": dict(TINY)}
    return workflow


def test_tiny_comparison(comparison):
    targets = [
        "results/tables/restoration_patches.csv",
        "results/figures/restoration_patches_metrics.png",
    ]
    result = comparison.run(*targets)
    assert result.returncode == 0, result.stderr

    table = pd.read_csv(comparison.path(targets[0]))
    ours = table[table["psnr"].notna()]
    assert len(ours) == 2 * 2 * 2  # tasks, methods, numbers of steps
    beside = ours[ours["psnr_published"].notna()]
    assert set(beside["steps"]) == {10}
    assert set(beside["method"]) == {"MMPS", "DiffPIR"}
    assert "lpips" not in table
    rows = pd.read_csv(comparison.path("results/tables/restoration_patches_rows.csv"))
    assert set(rows["metric"]) == {"psnr", "ssim"}
    for figure in ("metrics", "images"):
        for kind in ("pdf", "png"):
            path = comparison.path(f"results/figures/restoration_patches_{figure}.{kind}")
            assert path.stat().st_size > 1000

    # Another method leaves the finished ones alone.
    entry = comparison.config["restoration"]["patches"]
    entry["methods"] = {**entry["methods"], "dps": {"name": "dps"}}
    plan = comparison.run("-n", targets[0])
    assert plan.returncode == 0, plan.stderr
    planned = plan.stdout + plan.stderr
    assert "Restoration by dps in patches" in planned
    assert "Restoration by mmps_3 in patches" not in planned


def test_missing_weights_and_broken_images_are_told(comparison, tmp_path):
    (tmp_path / "faces").mkdir()
    Image.new("RGB", (12, 12)).save(tmp_path / "faces" / "00000.png")
    (tmp_path / "faces" / "00001.png").write_bytes(b"no image")
    entry = comparison.config["restoration"]["patches"]
    entry["data"] = {
        "name": "images",
        "path": str(tmp_path / "faces"),
        "size": 12,
        "train": 0,
        "validation": 0,
        "test": 2,
    }
    del entry["train"]
    entry["images"] = 2
    entry["pretrained"] = {"name": "ffhq_256x256", "weights": str(tmp_path / "missing.pt")}
    target = "results/restoration/patches/methods/diffpir.csv"

    assert "00001.png: this image cannot be read" in one_sentence(comparison.run(target))
    Image.new("RGB", (12, 12)).save(tmp_path / "faces" / "00001.png")
    assert "pretrained.weights: there is no such file" in one_sentence(comparison.run(target))
    (tmp_path / "missing.pt").write_bytes(b"no weights")
    assert "missing.pt: this file holds no weights" in one_sentence(comparison.run(target))
