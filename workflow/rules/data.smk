rule clean_data:
    message:
        "Clean data of {wildcards.experiment}, for simulation and evaluation only"
    output:
        f"{RESULTS}/{{experiment}}/clean.h5",
    log:
        f"{RESULTS}/logs/{{experiment}}/clean_data.log",
    params:
        data=setting("data"),
        seed=SEED,
    conda:
        "../../envs/diem.yaml"
    script:
        "../scripts/clean_data.py"


rule extractor:
    message:
        "Feature extractor of {wildcards.experiment}, trained on clean labelled images"
    input:
        clean=f"{RESULTS}/{{experiment}}/clean.h5",
    output:
        f"{RESULTS}/{{experiment}}/extractor.safetensors",
    log:
        f"{RESULTS}/logs/{{experiment}}/extractor.log",
    params:
        seed=SEED,
    conda:
        "../../envs/diem.yaml"
    script:
        "../scripts/extractor.py"


rule corrupt:
    message:
        "Observations {wildcards.observations} of {wildcards.experiment}"
    input:
        clean=f"{RESULTS}/{{experiment}}/clean.h5",
    output:
        f"{RESULTS}/{{experiment}}/observations/{{observations}}/observations.h5",
    log:
        f"{RESULTS}/logs/{{experiment}}/{{observations}}_corrupt.log",
    params:
        entry=lambda wildcards: experiment_of(wildcards)["observations"][wildcards.observations],
        seed=SEED,
    conda:
        "../../envs/diem.yaml"
    script:
        "../scripts/corrupt.py"


rule gaussian_prior:
    message:
        "Gaussian prior of {wildcards.experiment} from the observations {wildcards.observations}"
    input:
        observations=f"{RESULTS}/{{experiment}}/observations/{{observations}}/observations.h5",
    output:
        f"{RESULTS}/{{experiment}}/observations/{{observations}}/gaussian.safetensors",
    log:
        f"{RESULTS}/logs/{{experiment}}/{{observations}}_gaussian_prior.log",
    params:
        gaussian=setting("gaussian"),
        seed=SEED,
    conda:
        "../../envs/diem.yaml"
    script:
        "../scripts/gaussian_prior.py"
