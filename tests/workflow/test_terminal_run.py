"""What a real run says: a line a job, the rest in its log, and all of it where it is asked for."""

import pytest

pytestmark = pytest.mark.slow

TARGET = "results/tiny/observations/plain/gaussian.safetensors"


def test_a_line_a_job_and_all_in_the_log(workflow):
    result = workflow.run(TARGET)

    assert result.returncode == 0, result.stderr
    told = result.stderr.splitlines()
    jobs = [line.rpartition(" (")[0] for line in told if line.startswith("[")]
    assert jobs == [
        "[1 of 3] Clean data of tiny, for simulation and evaluation only",
        "[2 of 3] Observations plain of tiny",
        "[3 of 3] Gaussian prior of tiny from the observations plain",
    ]
    begins = told[: told.index(next(line for line in told if line.startswith("[1 of 3]")))]
    assert begins[-2:] == ["Building DAG of jobs...", "3 jobs."]
    assert not any("version" in line or "cores" in line for line in begins)
    ends = told[told.index(next(line for line in told if line.startswith("[3 of 3]"))) + 1 :]
    assert [line.partition(":")[0] for line in ends] == ["Complete log(s)", "Elapsed time"]
    (log,) = workflow.path(".snakemake/log").glob("*.log")
    assert str(log) in ends[0]
    kept = log.read_text()
    assert kept.count("Finished jobid") == 3
    assert "Snakemake version" in kept
    assert "Job stats:" in kept

    workflow.path(TARGET).unlink()
    asked = workflow.run("--printshellcmds", TARGET)
    assert "Finished jobid: 0 (Rule: gaussian_prior)" in asked.stderr


def test_a_job_that_fails_is_told_with_its_log(workflow):
    workflow.experiment["m_step"]["learning_rate"] = 1e6

    result = workflow.run(workflow.lap(1, "prior.safetensors"))

    assert result.returncode != 0
    told = result.stderr
    assert "Error in rule m_step:" in told
    header, log = "Logfile results/logs/tiny/base/lap_01_m_step.log:", "lower m_step.learning_rate"
    assert log in told[told.index(header) :]
