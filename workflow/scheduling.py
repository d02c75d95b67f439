"""How often Snakemake's scheduler looks for jobs: when one ends, and not also every second.

With its limit of 100 jobs a second, every look asks for another one a second later, which asks for
its own: after a hundred jobs there are a hundred looks a second, for a third of a core, and their
threads. No workflow of this kind starts as many jobs, so that the default limit goes; another one,
of ``--max-jobs-per-timespan``, stays.
"""

from typing import Any

__all__ = ["DEFAULT", "look_when_jobs_end"]

DEFAULT = (100, 1.0)
"""Snakemake's own limit: so many jobs, in so many seconds."""


def look_when_jobs_end(workflow: Any) -> None:
    """Takes Snakemake's default limit of jobs from its scheduler.

    Arguments:
        workflow: Snakemake's workflow, which is about to run jobs.
    """
    limit = workflow.scheduling_settings.max_jobs_per_timespan
    if limit is not None and (limit.max_jobs, limit.timespan) == DEFAULT:
        workflow.scheduler.job_rate_limiter = None
