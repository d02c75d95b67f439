"""Evaluations: what they read."""

import pytest
from test_resume_jobs import POSTERIOR, SETTINGS, Job

from diem import evaluation
from diem.errors import DiemError


def rows(job, metrics):
    with job.observations() as file:
        rows, _ = evaluation.evaluate(
            *(job.prior(), file, job.clean(), {}, {**SETTINGS, "metrics": metrics}),
            *(POSTERIOR, 0, {}),
            e_step_samples=["nowhere.h5"],
        )
    return rows


def test_many_samples_are_read_for_their_metrics_alone(tmp_path):
    job = Job(tmp_path)

    assert [row["metric"] for row in rows(job, ["psnr"])] == ["psnr", "psnr"]
    with pytest.raises(DiemError, match=r"nowhere\.h5"):
        rows(job, ["psnr", "sliced_wasserstein"])
