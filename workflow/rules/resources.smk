# What jobs ask of a cluster. On one machine these numbers bind nothing, unless --resources does.
# Rules that are not here ask for the profile's defaults.
from diem import demands

# A job that can use a GPU asks for one, unless the configuration says that there is none to use.
GPUS = 1 if CONFIG["device"] == "auto" or CONFIG["device"].startswith("cuda") else 0


def e_step_minutes(wildcards, input, attempt):
    entry, run = experiment_of(wildcards), run_of(wildcards)
    count = demands.samples_of(entry, input.size_mb) * run["e_step"]["repeats"] / SHARDS
    return time_for(demands.e_step_flops(entry, run, count), attempt)


def e_step_memory(wildcards, input, attempt):
    batch = run_of(wildcards)["e_step"]["block"]
    return memory_for(experiment_of(wildcards), batch, input, attempt)


def m_step_minutes(wildcards, input, attempt):
    entry, training = trained(wildcards)
    count = demands.samples_of(entry, input.size_mb)
    return time_for(demands.m_step_flops(entry, training, count), attempt)


def m_step_memory(wildcards, input, attempt):
    entry, training = trained(wildcards)
    return memory_for(entry, training["batch"], input, attempt)


def evaluation_minutes(wildcards, input, attempt):
    entry = experiment_of(wildcards)
    run = entry["runs"].get(wildcards.get("run")) or next(iter(entry["runs"].values()))
    return time_for(demands.evaluation_flops(entry, run), attempt)


def evaluation_memory(wildcards, input, attempt):
    entry = experiment_of(wildcards)
    return memory_for(entry, entry["evaluation"]["block"], input, attempt)


def sampler_prior_minutes(wildcards, input, attempt):
    comparison = comparison_of(wildcards)
    entry = {**comparison["train"], "data": comparison["data"]}
    count = demands.samples_of(entry, input.size_mb)
    return time_for(demands.m_step_flops(entry, entry["m_step"], count), attempt)


def sampler_prior_memory(wildcards, input, attempt):
    comparison = comparison_of(wildcards)
    entry = {**comparison["train"], "data": comparison["data"]}
    return memory_for(entry, entry["m_step"]["batch"], input, attempt)


def long_minutes(wildcards, attempt):
    """Of jobs that cannot go on from where they were, and whose work the sizes tell badly."""
    return 720 * 2 ** (attempt - 1)


def trained(wildcards):
    """Returns an entry with the data and the network that a rule trains, and the training."""
    entry = experiment_of(wildcards)
    if "lap" in wildcards.keys():
        return entry, m_step_entry(wildcards)
    return entry, ceiling_entry(wildcards)


def time_for(flops, attempt):
    return demands.minutes(flops, attempt, GPUS, CONFIG["threads"])


def memory_for(entry, batch, input, attempt):
    return demands.memory_mb(input.size_mb, attempt, entry, 0 if GPUS else batch)
