"""What the rules of the paper's own comparisons read, write and depend on."""

from pathlib import Path

import pytest
import yaml

from diem.config.resolve import resolve
from diem.paper import inputs
from diem.paper.pairs import Pair

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "config" / "paper.yaml"


@pytest.fixture
def config():
    prior = {"network": {"name": "mlp"}}
    given = {"name": "ffhq_256x256", "weights": "w.pt"}
    data = {"name": "images", "path": "faces"}
    return resolve(
        {
            "results": "out",
            "heuristics": {"few": {"cases": 5, "block": 2}},
            "restoration": {
                "patches": {"data": data, "train": prior, "methods": {"a": {"name": "dps"}}},
                "faces": {"data": data, "pretrained": given, "lpips_weights": "hub"},
            },
        },
        "test.yaml",
    )


def test_blocks_hold_every_case_once(config):
    files = inputs.heuristics_blocks(config, "few")

    assert files == [f"out/heuristics/few/block_{i}.csv" for i in (1, 2, 3)]
    found = [inputs.heuristics_cases(config, "few", i) for i in (1, 2, 3)]
    assert found == [(1, 2), (3, 4), (5, 5)]


def test_what_a_case_and_the_coil_depend_on(config):
    case, coil = inputs.case_settings(config, "few"), inputs.coil_settings(config, "few")

    config["heuristics"]["few"] |= {"cases": 6, "block": 3}
    assert inputs.case_settings(config, "few") == case
    assert inputs.coil_settings(config, "few") == coil
    config["heuristics"]["few"]["coil"]["samples"] = 7
    assert inputs.case_settings(config, "few") == case
    assert inputs.coil_settings(config, "few")["coil"]["samples"] == 7
    config["heuristics"]["few"]["sigmas"] = [1.0]
    assert inputs.case_settings(config, "few") != case


def test_what_a_method_reads(config):
    folder = "out/restoration/patches"
    assert inputs.restoration_inputs(config, "patches") == {
        "clean": f"{folder}/clean.h5",
        "prior": f"{folder}/prior.safetensors",
    }
    given = inputs.restoration_inputs(config, "faces")
    assert "prior" not in given
    assert all(path.startswith("hub/checkpoints/") for path in given["lpips_weights"])


def test_what_a_method_depends_on(config):
    settings = inputs.restoration_settings(config, "patches", "a")

    assert settings["methods"] == {"a": {"name": "dps", "zeta": 0.5}}
    assert (settings["data"], settings["pretrained"]) == ("images", None)
    config["restoration"]["patches"]["methods"]["b"] = {"name": "tmpd"}
    assert inputs.restoration_settings(config, "patches", "a") == settings
    assert inputs.restoration_settings(config, "faces", "dps")["pretrained"] == "ffhq_256x256"


def test_targets_are_tables_and_figures_of_every_entry(config):
    targets = inputs.heuristics_targets(config)
    assert len(targets) == 4 + 1 + 2 * 2
    assert "out/figures/heuristics_few_coil.pdf" in targets
    targets = inputs.restoration_targets(config)
    assert len(targets) == 2 * (4 + 1 + 2 * 2)
    assert "out/tables/restoration_faces_rows.csv" in targets
    assert inputs.restoration_files(config, "patches", ".h5") == [
        "out/restoration/patches/methods/a.h5"
    ]


def test_the_papers_place_is_taken_by_name_or_by_being_alone(config):
    found = inputs.pairs_with_paper(config, PAPER)

    assert inputs.standing_for(found, "restoration") == ["patches", "faces"]
    assert inputs.standing_for(found, "restoration", "ffhq") == ["patches", "faces"]
    assert inputs.standing_for(found, "experiments") == []
    tables = inputs.paper_tables(config, [*found, Pair("experiments", "digits", "cifar10")])
    assert tables["heuristics"] == ["out/tables/heuristics_few.csv"]
    assert tables["images"] == ["out/tables/digits_rows.csv"]
    assert len(inputs.paper_targets(config, found)) == 2 * 4
    assert inputs.paper_targets(config, []) == []


def test_the_paper_takes_its_own_place():
    config = yaml.safe_load(PAPER.read_text(encoding="utf-8"))

    for pair in inputs.pairs_with_paper(config, PAPER):
        assert pair.ours == pair.paper
