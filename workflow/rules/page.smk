from diem.config.pages import page_parts
from diem.config.targets import alone, entry_names

SOURCE = ", ".join(Path(file).name for file in workflow.configfiles) or "the configuration"
INTRODUCTION = WORKFLOW / "report" / "workflow.rst"


# One file to read in an evening. It is made last, of all that a run shows.
rule page:
    input:
        targets(CONFIG, PAIRS),
    output:
        PATHS.page(),
    log:
        f"{RESULTS}/logs/page.log",
    conda:
        "../../envs/diem.yaml"
    params:
        config=CONFIG,
        parts=lambda wildcards: page_parts(CONFIG, PAIRS, CAPTIONS_OF),
        introduction=lambda wildcards: INTRODUCTION.read_text("utf-8"),
        source=SOURCE,
    message:
        "All results on one page"
    script:
        "../scripts/page.py"


use rule page as entry_page with:
    input:
        lambda wildcards: targets(alone(CONFIG, wildcards.entry), []),
    output:
        PATHS.page("{entry}"),
    log:
        f"{RESULTS}/logs/pages/{{entry}}.log",
    wildcard_constraints:
        entry=names(entry_names(CONFIG)),
    params:
        config=lambda wildcards: alone(CONFIG, wildcards.entry),
        parts=lambda wildcards: page_parts(alone(CONFIG, wildcards.entry), [], CAPTIONS_OF),
        introduction=lambda wildcards: INTRODUCTION.read_text("utf-8"),
        source=SOURCE,
    message:
        "The results of {wildcards.entry} on one page"
