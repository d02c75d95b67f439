# What jobs ask of a cluster. On one machine these numbers bind nothing, unless --resources does.
# Rules that are not here ask for the profile's defaults.
from diem.planning import resources

# A job that can use a GPU asks for one, unless the configuration says that there is none to use.
GPUS = resources.gpus(CONFIG)


def asked_minutes(job):
    """Returns a function of Snakemake for the time of a job of :mod:`diem.planning.resources`."""
    return lambda wildcards, attempt: resources.minutes(
        CONFIG, job(CONFIG, dict(wildcards.items())), attempt
    )


def asked_memory(job):
    return lambda wildcards, input, attempt: resources.memory_mb(
        CONFIG, job(CONFIG, dict(wildcards.items())), input.size_mb, attempt
    )


def asked_gpus(job):
    def gpus(wildcards):
        asked = job(CONFIG, dict(wildcards.items()))
        return resources.gpus(CONFIG, asked.processes * asked.nodes)

    return gpus


def asked_on_slurm(job):
    """Returns resources of Snakemake for a job that may share its work among nodes.

    Those of a job on one machine are not set: None stands for that.
    """

    def resource(name):
        return lambda wildcards: resources.on_slurm(
            CONFIG, job(CONFIG, dict(wildcards.items()))
        ).get(name)

    return {name: resource(name) for name in ("nodes", "tasks", "mpi", "gres", "tasks_per_gpu")}


def asked_threads(job):
    return lambda wildcards: CONFIG["threads"] * job(CONFIG, dict(wildcards.items())).processes


def long_minutes(wildcards, attempt):
    return resources.long_minutes(attempt)
