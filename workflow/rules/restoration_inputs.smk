from diem.config.resolve import LPIPS_FILES


def comparison_of(wildcards):
    return CONFIG["restoration"][wildcards.comparison]


def comparison_path(name):
    """Returns a file of a comparison."""
    return f"{RESULTS}/restoration/{{comparison}}/{name}"


def restoration_input(wildcards):
    """The prior is trained here, or given by the user; so are the weights of LPIPS.

    A user's denoiser is no input, so that a plan needs none; what reads it tells what it lacks.
    """
    entry = comparison_of(wildcards)
    files = {"clean": comparison_path("clean.h5").format(comparison=wildcards.comparison)}
    if "train" in entry:
        prior = comparison_path("prior.safetensors").format(comparison=wildcards.comparison)
        files["prior"] = prior
    if "lpips" in entry["metrics"] and entry["lpips_weights"] is not None:
        files["lpips"] = [f"{entry['lpips_weights']}/{name}" for name in LPIPS_FILES]
    return files


def restoration_entry(wildcards):
    """The settings that a method's numbers depend on: other methods can come and go."""
    entry = comparison_of(wildcards)
    kept = ("schedule", "tasks", "steps", "images", "block", "metrics")
    return {
        **{key: entry[key] for key in kept},
        "methods": {wildcards.method: entry["methods"][wildcards.method]},
        "data": entry["data"]["name"],
        "pretrained": entry.get("pretrained", {}).get("name"),
    }


def restoration_paths(ending):
    def paths(wildcards):
        return [
            comparison_path(f"methods/{method}{ending}").format(comparison=wildcards.comparison)
            for method in comparison_of(wildcards)["methods"]
        ]

    return paths


def train_setting(key):
    return lambda wildcards: comparison_of(wildcards)["train"][key]


def comparison_targets():
    return [
        f"{RESULTS}/{path}"
        for name in CONFIG["restoration"]
        for path in (
            *(f"tables/restoration_{name}.{kind}" for kind in ("csv", "md", "tex", "html")),
            f"tables/restoration_{name}_rows.csv",
            *(
                f"figures/restoration_{name}_{figure}.{kind}"
                for figure in ("metrics", "images")
                for kind in ("pdf", "png")
            ),
        )
    ]


# No name of a comparison: a rule that matches nothing is needed where there is none.
COMPARISONS = "|".join(CONFIG["restoration"]) or "(?!)"
