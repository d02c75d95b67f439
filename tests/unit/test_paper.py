"""The paper's settings in config/paper.yaml, and its numbers beside ours."""

import copy
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from diem.config.resolve import resolve
from diem.networks import NETWORKS
from diem.paper import hyperparameters
from diem.paper.pairs import Pair, pairs
from diem.paper.paper_vs_ours import paper_vs_ours, published_numbers, readable_numbers

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "workflow" / "published"


def load(name):
    path = ROOT / "config" / name
    return resolve(yaml.safe_load(path.read_text(encoding="utf-8")), name)


@pytest.fixture(scope="module")
def settings():
    return load("paper.yaml")


@pytest.fixture(scope="module")
def demo():
    return load("config.yaml")


SETTINGS = hyperparameters.settings_of_the_paper(PUBLISHED / "settings.csv")
"""The paper's settings by section and entry, by name: the value, and its place in the source."""

DIFFERENT = {
    ("manifold", "gaussian.rank"): "4",
    ("cifar10", "e_step.drop_last"): "no",
    ("mri", "e_step.drop_last"): "no",
    ("mri", "data.validation"): "99",
}
"""What config/paper.yaml does not follow, as it tells at its beginning."""

PLACES = re.compile(
    r"arXiv 2405\.13712, (section|appendix) \S+"
    r"|(experiments/(manifold|cifar|fastmri)|priors)/\w+\.(py|ipynb)"
    r"|mmps-benchmark: [\w/]+\.(py|sh|yaml)"
)


def test_the_paper_config_holds_the_papers_settings(settings):
    table = hyperparameters.settings_side_by_side(settings, settings, SETTINGS)
    told = table[table["paper"] != ""]

    assert len(told) == sum(map(len, SETTINGS.values())) > 170
    different = told[told["here"] != told["paper"]]
    found = dict(
        zip(zip(different["entry"], different["key"], strict=True), different["here"], strict=True)
    )
    assert found == DIFFERENT


def test_every_setting_of_the_paper_has_its_place():
    for entry in SETTINGS.values():
        for key, (_, place) in entry.items():
            assert PLACES.match(place), (key, place)


def test_the_defaults_of_paper_yaml_are_honest(settings):
    for experiment in settings["experiments"].values():
        for run in experiment["runs"].values():
            assert run["e_step"]["drop_last"] is False
            assert run["e_step"]["limit"] is None
            assert run["e_step"]["restart"] is None
            assert run["m_step"]["first"] == run["m_step"]["final"] == 1


def test_the_cifar10_network_has_the_papers_size(settings):
    network = NETWORKS.parse(settings["experiments"]["cifar10"]["network"]).build((3, 32, 32))
    # The sum over the layers of the authors' priors/nn.py, see test_networks.py.
    assert sum(p.numel() for p in network.parameters()) == 57_560_451


def test_every_experiment_of_the_paper_has_a_place_in_the_demo(demo, settings):
    found = {(pair.section, pair.paper) for pair in pairs(demo, settings)}

    sections = ("experiments", "heuristics", "restoration")
    assert found == {(section, name) for section in sections for name in settings[section]}


def test_hyperparameters_are_those_of_both_configs(demo, settings):
    table = hyperparameters.settings_side_by_side(demo, settings, SETTINGS)

    assert not table.duplicated(["section", "entry", "key"]).any()
    rows = table.set_index(["entry", "key"])
    assert tuple(rows.loc[("digits", "laps"), ["here", "paper"]]) == ("8", "32")
    assert rows.loc[("digits", "network.channels"), "here"] == ""
    assert rows.loc[("digits", "network.channels"), "paper"] == "128, 256, 384"
    name = "runs.missing_75_cov_t.e_step.covariance"
    assert tuple(rows.loc[("digits", name), ["here", "paper"]]) == ("cov_t", "cov_t")
    assert ("digits", "runs.missing_75_cov_t.e_step.iterations") not in rows.index
    # config/paper.yaml is not the paper: where it differs, and of what the paper does not tell.
    assert rows.loc[("digits", "e_step.drop_last"), "paper"] == "yes"
    assert tuple(rows.loc[("digits", "evaluation.block"), ["here", "paper"]]) == ("1024", "")
    readable = hyperparameters.readable_settings(table)
    assert len(readable.body) == len(table)
    # What differs is bold, and what the paper does not tell cannot differ.
    bold = {(readable.body[i][0].split(" ")[0], readable.body[i][1]) for i, _ in readable.bold}
    assert ("digits", "laps") in bold
    same = rows[rows["here"] == rows["paper"]]
    assert not bold & set(same.index)
    assert ("digits", "evaluation.block") not in bold


def test_differences_are_counted_among_the_papers_settings(demo, settings):
    found = hyperparameters.differences(
        hyperparameters.settings_side_by_side(settings, settings, SETTINGS)
    )
    texts = {pair.paper: text for pair, text in found.items()}
    assert texts["ffhq"] == texts["curves"] == hyperparameters.SAME
    count = len(SETTINGS["experiments", "cifar10"])
    assert texts["cifar10"] == f"1 of the paper's {count} settings differ"

    demos = hyperparameters.settings_side_by_side(demo, settings, SETTINGS)
    assert hyperparameters.SAME not in hyperparameters.differences(demos).values()


def test_what_one_run_sets_differently_is_a_difference(settings):
    config = copy.deepcopy(settings)
    for run in config["experiments"]["cifar10"]["runs"].values():
        run["laps"] = 1

    table = hyperparameters.settings_side_by_side(config, settings, SETTINGS)

    rows = table[table["entry"] == "cifar10"].set_index("key")
    runs = [f"runs.{run}.laps" for run in config["experiments"]["cifar10"]["runs"]]
    assert rows.loc[runs, ["here", "paper"]].to_numpy().tolist() == [["1", "32"]] * len(runs)
    told = {pair.ours: text for pair, text in hyperparameters.differences(table).items()}
    count = len(SETTINGS["experiments", "cifar10"]) + len(runs)
    assert told["cifar10"] == f"{1 + len(runs)} of the paper's {count} settings differ"


def test_every_published_number_is_listed():
    table = published_numbers(PUBLISHED)

    counts = table["part"].value_counts()
    for part, name, columns in (
        ("heuristics", "heuristics_divergence", slice(1, 5)),
        ("cifar10", "cifar10", slice(3, 6)),
        ("restoration", "posterior_samplers_ffhq", slice(4, 7)),
    ):
        numbers = pd.read_csv(PUBLISHED / f"{name}.csv").iloc[:, columns]
        assert counts[part] == numbers.notna().to_numpy().sum()
    assert table["source"].map(bool).all()
    assert not table.duplicated(["part", "key"]).any()


def test_our_numbers_stand_beside_those_whose_place_they_take():
    published = published_numbers(PUBLISHED)
    scale = {
        Pair("heuristics", "few", "curves"): "3 of 12 settings differ from the paper",
        Pair("experiments", "digits", "cifar10"): "40 of 60 settings differ from the paper",
        Pair("restoration", "patches", "ffhq"): hyperparameters.SAME,
    }
    heuristics = pd.DataFrame(
        [{"sigma": 0.1, "covariance": "zeros", "median": 0.01, "card": "8 curves"}]
    )
    row = {
        "stage": "lap",
        "subject": "prior",
        "metric": "frechet_distance",
        "run": "half",
        "samples": "64",
        "split": "none",
        "sampler": "ddim",
        "sampler_steps": "8",
        "denoiser_evaluations": "9",
        "reference": "clean test",
        "reference_samples": "450",
        "extractor": "cnn32",
        "extractor_accuracy": "0.99",
        "extractor_digest": "ab",
        "seed": "0",
        "standard_error": "",
    }
    rows = pd.DataFrame([{**row, "lap": 1, "value": 9.0}, {**row, "lap": 2, "value": 3.5}])
    runs = {"half": {"heuristic": "tweedie", "corruption": 0.5}}
    restoration = pd.DataFrame(
        [
            {
                "task": "super_resolution",
                "method": "MMPS",
                "iterations": "3",
                "steps": 100,
                "psnr": 20.5,
                "psnr_card": "64 images",
                "psnr_standard_error": "0.25",
                "ssim": float("nan"),
            }
        ]
    )

    table = paper_vs_ours(
        published, scale, {"few": heuristics}, {"digits": (rows, runs)}, {"patches": restoration}
    )

    assert len(table) == len(published) + 1
    ours = table[table["entry"] != ""]
    assert list(ours["ours"]) == [0.01, 3.5, 20.5]
    assert list(ours["published"]) == ["7.0e-3", "", "27.18"]
    assert list(ours["our_metric"]) == [
        "truncated divergence (median)",
        "Frechet distance (cnn32 features)",  # and never a FID
        "PSNR",
    ]
    assert list(ours["scale"]) == list(scale.values())
    assert ours["card"].iloc[1].startswith("lap 2, 64 samples")
    # A Frechet distance on other features stands beside no FID.
    line = ours.iloc[1]
    assert (line["method"], line["setting"]) == ("DiEM (tweedie)", "50% missing")
    assert line["metric"] == line["our_metric"]
    assert "6.76" in list(table["published"])
    readable = readable_numbers(table)
    assert [row[5] for row in readable.body] == ["0.0100", "3.50", "20.5 ± 0.2"]
    assert f"{len(published) - 2} published numbers" in " ".join(readable.notes)
