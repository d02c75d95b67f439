import yaml

from diem.config.resolve import pairs

PAPER_CONFIG = WORKFLOW.parent / "config" / "paper.yaml"
with PAPER_CONFIG.open(encoding="utf-8") as file:
    PAIRS = pairs(CONFIG, yaml.safe_load(file))


def paired(section, paper=None):
    """Returns the entries that take the place of the paper's."""
    return [pair.ours for pair in PAIRS if pair.section == section and paper in (None, pair.paper)]


def paper_vs_ours_input(wildcards):
    tables = {
        "heuristics": [f"heuristics_{name}.csv" for name in paired("heuristics")],
        "images": [f"{name}_rows.csv" for name in paired("experiments", "cifar10")],
        "restoration": [f"restoration_{name}.csv" for name in paired("restoration")],
    }
    return {
        "hyperparameters": f"{RESULTS}/tables/hyperparameters.csv",
        **{part: [f"{RESULTS}/tables/{name}" for name in names] for part, names in tables.items()},
    }


def paper_targets():
    """Where nothing takes the place of anything in the paper, there is nothing to compare."""
    names = ("hyperparameters", "paper_vs_ours") if PAIRS else ()
    kinds = ("csv", "md", "tex", "html")
    return [f"{RESULTS}/tables/{name}.{kind}" for name in names for kind in kinds]
