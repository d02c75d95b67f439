def e_step_input(wildcards):
    """The chain's recursion: a lap samples with the prior of the lap before."""
    experiment, run, lap = wildcards.experiment, wildcards.run, int(wildcards.lap)
    entry = run_of(wildcards)
    files = {
        "prior": prior_path(experiment, run, lap - 1),
        "observations": observations_path(experiment, entry["observations"], "observations.h5"),
    }
    if entry["e_step"]["restart"] is not None and lap > 2:
        files["previous"] = shard_paths(experiment, run, lap - 1)
    return files


def m_step_input(wildcards):
    experiment, run, lap = wildcards.experiment, wildcards.run, int(wildcards.lap)
    files = {"samples": shard_paths(experiment, run, lap)}
    if run_of(wildcards)["m_step"]["warm_start"] and lap > 1:
        files["prior"] = prior_path(experiment, run, lap - 1)
    return files


def m_step_entry(wildcards):
    """The settings of one lap's training: its number of steps is resolved here, so that a change
    of the final M-step re-runs only that."""
    return steps_of_lap(run_of(wildcards)["m_step"], int(wildcards.lap), run_of(wildcards)["laps"])


def steps_of_lap(entry, lap, laps):
    entry = dict(entry)
    final = entry.pop("final_steps")
    return {**entry, "steps": final if final and lap == laps else entry["steps"]}


def ceiling_entry(wildcards):
    """The same number of optimizer steps as all laps together."""
    experiment = experiment_of(wildcards)
    laps = experiment["laps"]
    steps = [steps_of_lap(experiment["m_step"], lap, laps) for lap in range(1, laps + 1)]
    return {**steps[-1], "steps": sum(entry["steps"] for entry in steps)}


rule e_step:
    message:
        "E-step of {wildcards.experiment}/{wildcards.run}, lap {wildcards.lap}, shard {wildcards.shard}"
    input:
        unpack(e_step_input),
    output:
        f"{RESULTS}/{{experiment}}/runs/{{run}}/lap_{{lap}}/samples_{{shard}}-of-{SHARDS}.h5",
    log:
        f"{RESULTS}/logs/{{experiment}}/{{run}}/lap_{{lap}}_e_step_{{shard}}-of-{SHARDS}.log",
    params:
        e_step=run_setting("e_step"),
        laps=lambda wildcards: run_of(wildcards)["laps"]
        if run_of(wildcards)["e_step"]["restart"]
        else None,
        network=setting("network"),
        seed=SEED,
    threads: CONFIG["threads"]
    conda:
        "../../envs/diem.yaml"
    script:
        "../scripts/e_step.py"


rule m_step:
    message:
        "M-step of {wildcards.experiment}/{wildcards.run}, lap {wildcards.lap}"
    input:
        unpack(m_step_input),
    output:
        prior=f"{RESULTS}/{{experiment}}/runs/{{run}}/lap_{{lap}}/prior.safetensors",
        losses=f"{RESULTS}/{{experiment}}/runs/{{run}}/lap_{{lap}}/losses.csv",
    log:
        f"{RESULTS}/logs/{{experiment}}/{{run}}/lap_{{lap}}_m_step.log",
    params:
        m_step=m_step_entry,
        network=setting("network"),
        schedule=setting("schedule"),
        rank=setting("gaussian", "rank"),
        seed=SEED,
    threads: CONFIG["threads"]
    conda:
        "../../envs/diem.yaml"
    script:
        "../scripts/m_step.py"


use rule m_step as ceiling with:
    message:
        "Ceiling of {wildcards.experiment}: the same network trained on clean data"
    input:
        clean=f"{RESULTS}/{{experiment}}/clean.h5",
    output:
        prior=f"{RESULTS}/{{experiment}}/ceiling/prior.safetensors",
        losses=f"{RESULTS}/{{experiment}}/ceiling/losses.csv",
    log:
        f"{RESULTS}/logs/{{experiment}}/ceiling.log",
    params:
        m_step=ceiling_entry,
        network=setting("network"),
        schedule=setting("schedule"),
        rank=setting("gaussian", "rank"),
        seed=SEED,
