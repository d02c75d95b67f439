rule posterior:
    input:
        named_input("posterior", [*posterior_targets(PATHS)]),
    localrule: True
    message:
        "Posterior samples are in {RESULTS}/posterior, their figures in {RESULTS}/figures."


rule posterior_samples:
    input:
        unpack(told(IN.posterior_input)),
    output:
        f"{RESULTS}/posterior/{{posterior}}/samples.h5",
    log:
        f"{RESULTS}/logs/posterior/{{posterior}}.log",
    conda:
        "../../envs/diem.yaml"
    threads: CONFIG["threads"]
    resources:
        gpu=GPUS,
        runtime=long_minutes,
    params:
        entry=IN.posterior_entry,
        e_step=IN.posterior_e_step,
        seed=IN.seed,
    message:
        "Posterior samples of the observations {wildcards.posterior}"
    script:
        "../scripts/posterior_samples.py"


rule posterior_figure:
    input:
        samples=f"{RESULTS}/posterior/{{posterior}}/samples.h5",
        observations=lambda wildcards: IN.posterior(wildcards)["observations"],
    output:
        pdf=f"{RESULTS}/figures/posterior_{{posterior}}.pdf",
        png=shown(
            f"{RESULTS}/figures/posterior_{{posterior}}.png",
            caption="../report/posterior.rst",
            category="posterior",
            label="figure: posterior of {posterior}",
        ),
    log:
        f"{RESULTS}/logs/posterior/{{posterior}}_figure.log",
    conda:
        "../../envs/diem.yaml"
    params:
        entry=IN.posterior_observing,
    message:
        "Figure of the posterior samples {wildcards.posterior}"
    script:
        "../scripts/posterior_figure.py"
