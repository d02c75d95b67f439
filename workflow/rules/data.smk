rule download:
    output:
        f"{RESULTS}/downloads/{{file}}",
    log:
        f"{RESULTS}/logs/downloads/{{file}}.log",
    wildcard_constraints:
        file=r"[^/]+\.(tar\.gz|pth)",
    retries: 2
    localrule: True
    conda:
        "../../envs/diem.yaml"
    message:
        "Downloading {wildcards.file}, to which the config gives no path"
    script:
        "../scripts/download.py"


rule clean_data:
    input:
        unpack(IN.clean_data_input),
    output:
        f"{RESULTS}/{{experiment}}/clean.h5",
    log:
        f"{RESULTS}/logs/{{experiment}}/clean_data.log",
    conda:
        "../../envs/diem.yaml"
    params:
        data=IN.setting("data"),
        seed=IN.seed,
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
    threads: CONFIG["threads"]
    params:
        seed=IN.seed,
    message:
        "Feature extractor of {wildcards.experiment}, trained on clean labelled images"
    script:
        "../scripts/extractor.py"


rule feature_reference:
    input:
        clean=f"{RESULTS}/{{experiment}}/clean.h5",
        weights=told(IN.feature_weights),
    output:
        f"{RESULTS}/{{experiment}}/{{network}}_reference.safetensors",
    log:
        f"{RESULTS}/logs/{{experiment}}/{{network}}_reference.log",
    wildcard_constraints:
        network="inception|dinov2",
    conda:
        "../../envs/diem.yaml"
    threads: CONFIG["threads"]
    resources:
        gpu=GPUS,
    params:
        data=IN.setting("data"),
    message:
        "Features of clean images of {wildcards.experiment} by the network {wildcards.network}"
    script:
        "../scripts/feature_reference.py"


rule corrupt:
    input:
        clean=f"{RESULTS}/{{experiment}}/clean.h5",
    output:
        f"{RESULTS}/{{experiment}}/observations/{{observations}}/observations.h5",
    log:
        f"{RESULTS}/logs/{{experiment}}/{{observations}}_corrupt.log",
    wildcard_constraints:
        experiment=names(filter(PATHS.has_clean, EXPERIMENTS)),
    conda:
        "../../envs/diem.yaml"
    params:
        entry=IN.observations,
        seed=IN.seed,
    message:
        "Observations {wildcards.observations} of {wildcards.experiment}"
    script:
        "../scripts/corrupt.py"


rule ingest:
    input:
        own=ancient(IN.data_file),
    output:
        f"{RESULTS}/{{experiment}}/observations/{{observations}}/observations.h5",
    log:
        f"{RESULTS}/logs/{{experiment}}/{{observations}}_ingest.log",
    wildcard_constraints:
        experiment=names(name for name in EXPERIMENTS if not PATHS.has_clean(name)),
    conda:
        "../../envs/diem.yaml"
    params:
        data=IN.data,
        content=IN.data_content,
        operator=IN.told_operator,
        entry=IN.observations,
        seed=IN.seed,
    message:
        "Observations {wildcards.observations} of {wildcards.experiment}, from the user's file"
    script:
        "../scripts/ingest.py"


rule gaussian_prior:
    input:
        observations=f"{RESULTS}/{{experiment}}/observations/{{observations}}/observations.h5",
    output:
        f"{RESULTS}/{{experiment}}/observations/{{observations}}/gaussian.safetensors",
    log:
        f"{RESULTS}/logs/{{experiment}}/{{observations}}_gaussian_prior.log",
    conda:
        "../../envs/diem.yaml"
    threads: CONFIG["threads"]
    resources:
        gpu=GPUS,
        mem_mb=asked_memory(resources.gaussian_fit),
    params:
        made=IN.learned_from,
        gaussian=IN.setting("gaussian"),
        seed=IN.seed,
    message:
        "Gaussian prior of {wildcards.experiment} from the observations {wildcards.observations}"
    script:
        "../scripts/gaussian_prior.py"
