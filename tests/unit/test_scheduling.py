"""The scheduler looks for jobs when one ends: Snakemake's default limit of jobs goes, no other."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from importing import imported
from snakemake.cli import get_argument_parser
from snakemake.settings.types import MaxJobsPerTimespan, SchedulingSettings

ROOT = Path(__file__).parents[2]

scheduling = imported(ROOT / "workflow/scheduling.py")


def left(limit):
    workflow = SimpleNamespace(
        scheduling_settings=SchedulingSettings(max_jobs_per_timespan=limit),
        scheduler=SimpleNamespace(job_rate_limiter=limit),
    )
    scheduling.look_when_jobs_end(workflow)
    return workflow.scheduler.job_rate_limiter


def test_the_default_is_that_of_snakemake_and_goes():
    limit = get_argument_parser().parse_args([]).max_jobs_per_timespan

    assert (limit.max_jobs, limit.timespan) == scheduling.DEFAULT
    assert left(limit) is None
    assert left(None) is None


@pytest.mark.parametrize("told", ["1/1s", "100/1m", "99/1s"])
def test_a_limit_of_the_users_stays(told):
    limit = MaxJobsPerTimespan.parse_choice(told)

    assert left(limit) is limit
