include: "posterior_inputs.smk"


TARGETS += posterior_targets()


rule posterior:
    input:
        posterior_targets(),
    localrule: True
    message:
        "Posterior samples are in {RESULTS}/posterior, their figures in {RESULTS}/figures."


rule posterior_samples:
    input:
        unpack(posterior_input),
    output:
        posterior_path("samples.h5"),
    log:
        f"{RESULTS}/logs/posterior/{{posterior}}.log",
    wildcard_constraints:
        posterior=POSTERIORS,
    conda:
        "../../envs/diem.yaml"
    threads: CONFIG["threads"]
    resources:
        gpu=GPUS,
        runtime=long_minutes,
    params:
        entry=lambda wildcards: {
            key: posterior_of(wildcards).get(key)
            for key in ("operator", "sigma_y", "samples", "batch")
        },
        e_step=lambda wildcards: posterior_settings(posterior_of(wildcards)),
        seed=SEED,
    message:
        "Posterior samples of the observations {wildcards.posterior}"
    script:
        "../scripts/posterior_samples.py"


rule posterior_figure:
    input:
        samples=posterior_path("samples.h5"),
        observations=lambda wildcards: posterior_of(wildcards)["observations"],
    output:
        pdf=f"{RESULTS}/figures/posterior_{{posterior}}.pdf",
        png=report(
            f"{RESULTS}/figures/posterior_{{posterior}}.png",
            caption="../report/posterior.rst",
            category="posterior",
            labels={"result": "figure: posterior of {posterior}", "format": "png"},
        ),
    log:
        f"{RESULTS}/logs/posterior/{{posterior}}_figure.log",
    wildcard_constraints:
        posterior=POSTERIORS,
    conda:
        "../../envs/diem.yaml"
    params:
        entry=lambda wildcards: {
            key: posterior_of(wildcards).get(key) for key in ("operator", "sigma_y")
        },
    message:
        "Figure of the posterior samples {wildcards.posterior}"
    script:
        "../scripts/posterior_figure.py"
