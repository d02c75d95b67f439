rule evaluate_lap:
    input:
        unpack(IN.lap_input),
    output:
        metrics=f"{RESULTS}/{{experiment}}/runs/{{run}}/lap_{{lap}}/metrics.csv",
        samples=f"{RESULTS}/{{experiment}}/runs/{{run}}/lap_{{lap}}/evaluation.h5",
    log:
        f"{RESULTS}/logs/{{experiment}}/{{run}}/lap_{{lap}}_evaluate.log",
    conda:
        "../../envs/diem.yaml"
    threads: CONFIG["threads"]
    resources:
        gpu=GPUS,
        mem_mb=asked_memory(resources.evaluation),
        runtime=asked_minutes(resources.evaluation),
    params:
        card=IN.lap_card,
        evaluation=IN.evaluation,
        e_step=IN.drawing,
        data=IN.data,
        seed=IN.seed,
    message:
        "Evaluation of {wildcards.experiment}/{wildcards.run}, lap {wildcards.lap}"
    script:
        "../scripts/evaluate.py"


use rule evaluate_lap as evaluate_floor with:
    input:
        unpack(IN.floor_input),
    output:
        metrics=f"{RESULTS}/{{experiment}}/observations/{{observations}}/floor/metrics.csv",
        samples=f"{RESULTS}/{{experiment}}/observations/{{observations}}/floor/evaluation.h5",
    log:
        f"{RESULTS}/logs/{{experiment}}/{{observations}}_floor_evaluate.log",
    params:
        card=IN.floor_card,
        evaluation=IN.evaluation,
        e_step=IN.drawing,
        data=IN.data,
        seed=IN.seed,
    message:
        "Evaluation of {wildcards.experiment}: floor for {wildcards.observations}"


use rule evaluate_lap as evaluate_ceiling with:
    input:
        unpack(IN.ceiling_input),
    output:
        metrics=f"{RESULTS}/{{experiment}}/ceilings/{{run}}/{{observations}}/metrics.csv",
        samples=f"{RESULTS}/{{experiment}}/ceilings/{{run}}/{{observations}}/evaluation.h5",
    log:
        f"{RESULTS}/logs/{{experiment}}/{{run}}/ceiling_{{observations}}_evaluate.log",
    params:
        card=IN.ceiling_card,
        evaluation=IN.evaluation,
        e_step=IN.drawing,
        data=IN.data,
        seed=IN.seed,
    message:
        "Evaluation of {wildcards.experiment}: ceiling of {wildcards.run} for {wildcards.observations}"


rule reconstruct:
    input:
        unpack(IN.reconstruct_input),
    output:
        metrics=f"{RESULTS}/{{experiment}}/runs/{{run}}/reconstruction/{{observations}}/metrics.csv",
        samples=f"{RESULTS}/{{experiment}}/runs/{{run}}/reconstruction/{{observations}}/evaluation.h5",
    log:
        f"{RESULTS}/logs/{{experiment}}/{{run}}/reconstruct_{{observations}}.log",
    conda:
        "../../envs/diem.yaml"
    threads: CONFIG["threads"]
    resources:
        gpu=GPUS,
        mem_mb=asked_memory(resources.reconstruction),
        runtime=asked_minutes(resources.reconstruction),
    params:
        card=IN.reconstruct_card,
        evaluation=IN.reconstruction,
        e_step=IN.drawing,
        seed=IN.seed,
    message:
        "Reconstruction of {wildcards.observations} by {wildcards.experiment}/{wildcards.run}"
    script:
        "../scripts/reconstruct.py"
