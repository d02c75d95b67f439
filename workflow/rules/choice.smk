rule chosen_lap:
    input:
        unpack(IN.selection_input),
    output:
        **table_output(
            "{experiment}_chosen_lap",
            category="{experiment}",
            table=("chosen_lap", "table of the lap to use"),
        ),
    log:
        f"{RESULTS}/logs/{{experiment}}/chosen_lap.log",
    conda:
        "../../envs/diem.yaml"
    params:
        labels=IN.labels,
    message:
        "Choosing the lap of each run of {wildcards.experiment}, by validation observations"
    script:
        "../scripts/chosen_lap.py"


rule chosen_prior:
    input:
        unpack(IN.selected_prior_input),
    output:
        f"{RESULTS}/{{experiment}}/runs/{{run}}/chosen/prior.safetensors",
    log:
        f"{RESULTS}/logs/{{experiment}}/{{run}}/chosen_prior.log",
    conda:
        "../../envs/diem.yaml"
    message:
        "The prior of the chosen lap of {wildcards.experiment}/{wildcards.run}"
    script:
        "../scripts/chosen_prior.py"
