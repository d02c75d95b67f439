rule clean_data:
    output:
        f"{RESULTS}/{{experiment}}/clean.h5",
    log:
        f"{RESULTS}/logs/{{experiment}}/clean_data.log",
    conda:
        "../../envs/diem.yaml"
    params:
        data=setting("data"),
        seed=SEED,
    message:
        "Clean data of {wildcards.experiment}, for simulation and evaluation only"
    script:
        "../scripts/clean_data.py"


rule extractor:
    input:
        clean=f"{RESULTS}/{{experiment}}/clean.h5",
    output:
        f"{RESULTS}/{{experiment}}/extractor.safetensors",
    log:
        f"{RESULTS}/logs/{{experiment}}/extractor.log",
    conda:
        "../../envs/diem.yaml"
    params:
        seed=SEED,
    message:
        "Feature extractor of {wildcards.experiment}, trained on clean labelled images"
    script:
        "../scripts/extractor.py"


rule corrupt:
    input:
        clean=f"{RESULTS}/{{experiment}}/clean.h5",
    output:
        f"{RESULTS}/{{experiment}}/observations/{{observations}}/observations.h5",
    log:
        f"{RESULTS}/logs/{{experiment}}/{{observations}}_corrupt.log",
    conda:
        "../../envs/diem.yaml"
    params:
        entry=lambda wildcards: experiment_of(wildcards)["observations"][wildcards.observations],
        seed=SEED,
    message:
        "Observations {wildcards.observations} of {wildcards.experiment}"
    script:
        "../scripts/corrupt.py"


rule gaussian_prior:
    input:
        observations=f"{RESULTS}/{{experiment}}/observations/{{observations}}/observations.h5",
    output:
        f"{RESULTS}/{{experiment}}/observations/{{observations}}/gaussian.safetensors",
    log:
        f"{RESULTS}/logs/{{experiment}}/{{observations}}_gaussian_prior.log",
    conda:
        "../../envs/diem.yaml"
    params:
        gaussian=setting("gaussian"),
        seed=SEED,
    message:
        "Gaussian prior of {wildcards.experiment} from the observations {wildcards.observations}"
    script:
        "../scripts/gaussian_prior.py"
