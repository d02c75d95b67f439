def evaluation_input(wildcards, observations, prior):
    experiment = wildcards.experiment
    files = {
        "prior": prior,
        "observations": observations_path(experiment, observations, "observations.h5"),
        "clean": clean_path(experiment),
    }
    if needs_extractor(experiment):
        files["extractor"] = extractor_path(experiment)
    return files


def evaluate_lap_input(wildcards):
    experiment, run, lap = wildcards.experiment, wildcards.run, int(wildcards.lap)
    observations = run_of(wildcards)["observations"]
    files = evaluation_input(wildcards, observations, prior_path(experiment, run, lap))
    return {**files, "samples": shard_paths(experiment, run, lap)}


def evaluate_bound_input(wildcards):
    """The floor is the fitted Gaussian, the ceiling the prior trained on clean data."""
    experiment, observations = wildcards.experiment, wildcards.observations
    prior = {
        "floor": observations_path(experiment, observations, "gaussian.safetensors"),
        "ceiling": f"{RESULTS}/{experiment}/ceiling/prior.safetensors",
    }[wildcards.stage]
    return evaluation_input(wildcards, observations, prior)


def metrics_paths(experiment):
    """Returns the metrics of an experiment: floors, ceilings, and every evaluated lap."""
    entry = EXPERIMENTS[experiment]
    used = dict.fromkeys(run["observations"] for run in entry["runs"].values())
    bounds = [
        observations_path(experiment, observations, f"{stage}/metrics.csv")
        for stage in ("floor", "ceiling")
        for observations in used
    ]
    laps = [
        lap_path(experiment, run, lap, "metrics.csv")
        for run in entry["runs"]
        for lap in evaluated_laps(experiment, run)
    ]
    return bounds + laps


rule evaluate_lap:
    message:
        "Evaluation of {wildcards.experiment}/{wildcards.run}, lap {wildcards.lap}"
    input:
        unpack(evaluate_lap_input),
    output:
        metrics=f"{RESULTS}/{{experiment}}/runs/{{run}}/lap_{{lap}}/metrics.csv",
        samples=f"{RESULTS}/{{experiment}}/runs/{{run}}/lap_{{lap}}/evaluation.h5",
    log:
        f"{RESULTS}/logs/{{experiment}}/{{run}}/lap_{{lap}}_evaluate.log",
    params:
        card=lambda wildcards: {
            "experiment": wildcards.experiment,
            "run": wildcards.run,
            "observations": run_of(wildcards)["observations"],
            "stage": "lap",
            "lap": int(wildcards.lap),
        },
        evaluation=lambda wildcards: evaluation_entry(wildcards.experiment),
        e_step=run_setting("e_step"),
        data=setting("data"),
        seed=SEED,
    threads: CONFIG["threads"]
    conda:
        "../../envs/diem.yaml"
    script:
        "../scripts/evaluate.py"


use rule evaluate_lap as evaluate_bound with:
    message:
        "Evaluation of {wildcards.experiment}: {wildcards.stage} for {wildcards.observations}"
    input:
        unpack(evaluate_bound_input),
    output:
        metrics=f"{RESULTS}/{{experiment}}/observations/{{observations}}/{{stage}}/metrics.csv",
        samples=f"{RESULTS}/{{experiment}}/observations/{{observations}}/{{stage}}/evaluation.h5",
    log:
        f"{RESULTS}/logs/{{experiment}}/{{observations}}_{{stage}}_evaluate.log",
    params:
        card=lambda wildcards: {
            "experiment": wildcards.experiment,
            "run": wildcards.stage,
            "observations": wildcards.observations,
            "stage": wildcards.stage,
            "lap": 0,
        },
        evaluation=lambda wildcards: evaluation_entry(wildcards.experiment),
        e_step=setting("e_step"),
        data=setting("data"),
        seed=SEED,


def evaluation_entry(experiment):
    """The evaluation's settings, without the choice of laps, which changes no number."""
    entry = EXPERIMENTS[experiment]["evaluation"]
    return {key: value for key, value in entry.items() if key != "laps"}
