def shown_runs(experiment):
    """Returns the first run of each set of observations, whose samples the figures show."""
    shown = {}
    for name, run in EXPERIMENTS[experiment]["runs"].items():
        shown.setdefault(run["observations"], name)
    return list(shown.values())


def bound_samples(experiment, run, stage):
    observations = EXPERIMENTS[experiment]["runs"][run]["observations"]
    return observations_path(experiment, observations, f"{stage}/evaluation.h5")


def lap_samples(experiment, run):
    return [
        lap_path(experiment, run, lap, "evaluation.h5")
        for lap in evaluated_laps(EXPERIMENTS[experiment], run)
    ]


def evolution_input(experiment):
    run = shown_runs(experiment)[0]
    samples = [bound_samples(experiment, run, "floor"), *lap_samples(experiment, run)]
    return {"evaluations": samples, **clean_input(experiment)}


def corner_model_input(experiment):
    run = shown_runs(experiment)[0]
    return {"evaluations": lap_samples(experiment, run)[-1:], "clean": clean_path(experiment)}


def prior_input(experiment):
    paths = []
    for run in shown_runs(experiment):
        floor, *ceiling = (bound_samples(experiment, run, stage) for stage in bounds_of(experiment))
        paths += [floor, *lap_samples(experiment, run), *ceiling]
    return {"evaluations": paths}


def inpainting_input(experiment):
    paths = []
    for run in shown_runs(experiment):
        paths += [bound_samples(experiment, run, "floor"), *lap_samples(experiment, run)]
    return {"evaluations": paths}


def uncertainty_input(experiment):
    run = shown_runs(experiment)[0]
    return {
        "evaluations": [
            reconstruction_path(experiment, run, observations, "evaluation.h5")
            for observations in EXPERIMENTS[experiment]["evaluation"]["reconstruct"]
        ]
    }


# What the config may name, and the files that each is drawn from.
FIGURES = {
    "evolution": evolution_input,
    "corner_truth": lambda experiment: {"clean": clean_path(experiment)},
    "corner_model": corner_model_input,
    "divergence": lambda experiment: {"metrics": metrics_paths(experiment)},
    "distance": lambda experiment: {"metrics": metrics_paths(experiment)},
    "lap_choice": lambda experiment: {"metrics": metrics_paths(experiment)},
    "prior": prior_input,
    "inpainting": inpainting_input,
    "slices": inpainting_input,
    "uncertainty": uncertainty_input,
}


def figure_input(figure):
    """Returns the input function of a figure's rule."""
    return lambda wildcards: FIGURES[figure](wildcards.experiment)
