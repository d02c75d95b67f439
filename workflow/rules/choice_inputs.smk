from diem.evaluation.metrics.prediction import Prediction

CHOOSING = [name for name in EXPERIMENTS if Prediction.name in wanted_metrics(name)]


def chosen_path(experiment, run):
    return f"{RESULTS}/{experiment}/runs/{run}/chosen/prior.safetensors"


def choice_input(wildcards):
    """The Gaussian prior of each set of observations, and every evaluated lap of each run."""
    experiment = wildcards.experiment
    runs = EXPERIMENTS[experiment]["runs"]
    used = dict.fromkeys(run["observations"] for run in runs.values())
    folders = [observations_path(experiment, observations, "floor") for observations in used]
    folders += [
        lap_path(experiment, run, lap, "").rstrip("/")
        for run in runs
        for lap in evaluated_laps(EXPERIMENTS[experiment], run)
    ]
    return {
        "metrics": [f"{folder}/metrics.csv" for folder in folders],
        "evaluations": [f"{folder}/evaluation.h5" for folder in folders],
    }


def chosen_prior_input(wildcards):
    experiment, run = wildcards.experiment, wildcards.run
    laps = evaluated_laps(EXPERIMENTS[experiment], run)
    return {
        "table": f"{RESULTS}/tables/{experiment}_chosen_lap.csv",
        "priors": [prior_path(experiment, run, lap) for lap in laps],
    }


TARGETS += [
    f"{RESULTS}/tables/{experiment}_chosen_lap.{kind}"
    for experiment in CHOOSING
    for kind in ("csv", "md", "tex", "html")
]
TARGETS += [
    chosen_path(experiment, run)
    for experiment in CHOOSING
    for run in EXPERIMENTS[experiment]["runs"]
]
