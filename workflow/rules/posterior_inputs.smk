from diem.config.resolve import posterior_settings


def posterior_of(wildcards):
    return CONFIG["posterior"][wildcards.posterior]


def posterior_path(name):
    return f"{RESULTS}/posterior/{{posterior}}/{name}"


def posterior_input(wildcards):
    """The prior is a file of the user's, or one that this configuration makes."""
    entry = posterior_of(wildcards)
    prior = entry["prior"]
    if not isinstance(prior, str):
        prior = prior_of_run(**prior)
    return {"prior": prior, "observations": entry["observations"]}


def prior_of_run(experiment, run, lap):
    if lap is None and experiment in CHOOSING:
        return chosen_path(experiment, run)
    last = EXPERIMENTS[experiment]["runs"][run]["laps"]
    return prior_path(experiment, run, last if lap is None else lap)


def posterior_targets():
    return [
        f"{RESULTS}/{path}"
        for name in CONFIG["posterior"]
        for path in (
            f"posterior/{name}/samples.h5",
            *(f"figures/posterior_{name}.{kind}" for kind in ("pdf", "png")),
        )
    ]


POSTERIORS = "|".join(CONFIG["posterior"]) or "(?!)"
