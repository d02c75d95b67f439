# What jobs ask of a cluster. On one machine these numbers bind nothing, unless --resources does.
# Rules that are not here ask for the profile's defaults.
from diem.planning import resources as demands

# A job that can use a GPU asks for one, unless the configuration says that there is none to use.
GPUS = 1 if CONFIG["device"] == "auto" or CONFIG["device"].startswith("cuda") else 0


def e_step_minutes(wildcards, input, attempt):
    entry, run = experiment_of(wildcards), run_of(wildcards)
    count = demands.samples_of(entry, input.size_mb) * run["e_step"]["repeats"] / SHARDS
    return time_for(demands.e_step_flops(entry, run, count), attempt)


def e_step_memory(wildcards, input, attempt):
    e_step = run_of(wildcards)["e_step"]
    batch = e_step["batch"] or e_step["block"]
    return memory_for(experiment_of(wildcards), batch, input.size_mb, attempt)


def evaluation_minutes(wildcards, input, attempt):
    entry = experiment_of(wildcards)
    run = entry["runs"].get(wildcards.get("run")) or next(iter(entry["runs"].values()))
    return time_for(demands.evaluation_flops(entry, run), attempt)


def evaluation_memory(wildcards, input, attempt):
    entry = experiment_of(wildcards)
    held = min(input.size_mb, 2 * CONFIG["cache_mb"])  # the test split, and an E-step's samples
    return memory_for(entry, entry["evaluation"]["block"], held, attempt)


def long_minutes(wildcards, attempt):
    """Of jobs whose work the sizes tell badly."""
    return 720 * 2 ** (attempt - 1)


def trained(wildcards):
    """Returns an entry with the data and the network that a rule trains, and the training."""
    if "lap" in wildcards.keys():
        return experiment_of(wildcards), m_step_entry(wildcards)
    return experiment_of(wildcards), ceiling_entry(wildcards)


def trained_for_restoration(wildcards):
    """The same for the prior of a comparison."""
    comparison = CONFIG["restoration"][wildcards.comparison]
    entry = {**comparison["train"], "data": comparison["data"]}
    return entry, training_of_lap(entry["m_step"], 1, 1)


def training_gpus(trained):
    return lambda wildcards: GPUS * trained(wildcards)[1]["processes"]


def training_threads(trained):
    return lambda wildcards: CONFIG["threads"] * trained(wildcards)[1]["processes"]


def training_memory(trained):
    def memory(wildcards, input, attempt):
        entry, training = trained(wildcards)
        fitted = demands.samples_mb(entry, entry["gaussian"]["observations"])
        held = min(input.size_mb, CONFIG["cache_mb"] + fitted)
        mb = memory_for(entry, training["batch"], held, attempt)
        return mb * training["processes"]  # each holds all samples that are held

    return memory


def training_minutes(trained):
    def minutes(wildcards, input, attempt):
        entry, training = trained(wildcards)
        count = demands.samples_of(entry, input.size_mb)
        flops = demands.m_step_flops(entry, training, count)
        return time_for(flops / training["processes"], attempt)

    return minutes


def time_for(flops, attempt):
    return demands.minutes(flops, attempt, GPUS, CONFIG["threads"])


def memory_for(entry, batch, size_mb, attempt):
    return demands.memory_mb(size_mb, attempt, entry, 0 if GPUS else batch)
