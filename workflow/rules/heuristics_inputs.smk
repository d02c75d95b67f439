def heuristics_of(wildcards):
    return CONFIG["heuristics"][wildcards.heuristics]


def heuristics_cases(wildcards):
    """Returns the numbers of a job's cases, the first and the last."""
    entry = heuristics_of(wildcards)
    first = (int(wildcards.block) - 1) * entry["block"] + 1
    return first, min(first + entry["block"] - 1, entry["cases"])


def heuristics_blocks(wildcards):
    entry = heuristics_of(wildcards)
    count = -(-entry["cases"] // entry["block"])
    return [
        f"{RESULTS}/heuristics/{wildcards.heuristics}/block_{block}.csv"
        for block in range(1, count + 1)
    ]


def heuristics_entry(wildcards):
    """The settings that the numbers of a case depend on."""
    entry = heuristics_of(wildcards)
    return {key: entry[key] for key in entry if key not in ("cases", "block", "coil")}


def coil_entry(wildcards):
    entry = heuristics_of(wildcards)
    kept = ("components", "thickness", "sigma_y", "covariances", "coil")
    return {key: entry[key] for key in kept}


def heuristics_targets():
    return [
        f"{RESULTS}/{path}"
        for name in CONFIG["heuristics"]
        for path in (
            *(f"tables/heuristics_{name}.{kind}" for kind in ("csv", "md", "tex", "html")),
            f"tables/heuristics_{name}_rows.csv",
            *(
                f"figures/heuristics_{name}_{figure}.{kind}"
                for figure in ("divergence", "coil")
                for kind in ("pdf", "png")
            ),
        )
    ]
