"""An entry at several seeds: what runs, and what its rows become."""

import numpy as np
import pandas as pd
import pytest
from running import TINY, every_kind
from scipy.stats import norm

from diem.config.inputs import Inputs
from diem.config.paths import Paths
from diem.config.resolve import resolve
from diem.config.targets import targets
from diem.errors import DiemError
from diem.evaluation.rows import errors_of, over_seeds, provenance, software
from diem.paper.inputs import restoration_files
from diem.planning.stages import stages

ROW = {
    **{"experiment": "e", "run": "base", "observations": "plain", "stage": "lap", "lap": 2},
    **{"subject": "prior", "metric": "psnr", "standard_error": "", "split": "none"},
    **{"samples": "8", "reference": "", "reference_samples": "", "extractor": "cnn"},
    **{"sampler": "ddim", "sampler_steps": "2", "denoiser_evaluations": "3", "diem": "0"},
    **{"torch": "2", "seed": "0", "extractor_digest": "", "extractor_accuracy": ""},
}


def rows(*values, metric="psnr"):
    """The rows of a number at the seeds 0, 1, ..., each with an extractor of its own."""
    return [
        {
            **ROW,
            **{"metric": metric, "value": value, "seed": str(seed)},
            **{"extractor_digest": f"d{seed}", "extractor_accuracy": f"0.9{seed}"},
        }
        for seed, value in enumerate(values)
    ]


def seeds_of(config, *seeds):
    return resolve({key: config[key] for key in config if key != "seed"} | {"seeds": [*seeds]}, "c")


def test_means_over_seeds_with_their_standard_errors():
    values = [1.0, 2.0, 6.0]
    other = [4.0, 4.0, 4.0]
    table = pd.DataFrame(rows(*values) + rows(*other, metric="ssim"))
    table = table.sort_values("seed", kind="stable").reset_index(drop=True)  # as files are read

    means = over_seeds(table)

    assert means["metric"].tolist() == ["psnr", "ssim"]
    assert list(means.columns) == list(table.columns)
    assert means["value"].tolist() == [3.0, 4.0]
    error = np.std(values, ddof=1) / 3**0.5
    assert [float(told) for told in means["standard_error"]] == [error, 0.0]
    assert software(means.iloc[0]).startswith("seeds 0, 1, 2, ")
    assert "(test accuracy 0.9000, 0.9100, 0.9200, d0, d1, d2)" in provenance(means.iloc[0])
    assert errors_of(means) == ["±: one standard error of the mean over the seeds 0, 1, 2."]


def test_p_values_of_several_seeds_are_one_again():
    names = ("energy_test_p", "calibration_p_total", "psnr")
    values = ((0.01, 0.02, 0.3), (0.9, 0.8, 0.7), (0.01, 0.02, 0.3))
    found = zip(names, values, strict=True)
    table = pd.concat([pd.DataFrame(rows(*of, metric=name)) for name, of in found])

    means = over_seeds(table)

    assert means["value"].tolist() == [pytest.approx(0.22), 1.0, pytest.approx(0.11)]
    assert [bool(told) for told in means["standard_error"]] == [False, False, True]
    assert "of p-values twice their mean" in errors_of(means)[0]


def test_twice_the_mean_of_p_values_is_one_however_they_depend():
    # Uniform p-values of three seeds, from independent to the same.
    normal = np.random.default_rng(0).standard_normal((20_000, 4))
    for shared in (0.0, 0.5, 1.0):
        mixed = np.sqrt(shared) * normal[:, :1] + np.sqrt(1 - shared) * normal[:, 1:]
        p = (2 * norm.cdf(mixed).mean(axis=1)).clip(max=1)
        assert (p < 0.05).mean() < 0.055


def test_rows_of_one_seed_stay_as_they_are():
    table = pd.DataFrame(rows(1.0))

    assert over_seeds(table) is table
    assert "this seed alone" in errors_of(table)[0]


def test_a_number_that_is_none_at_a_seed_has_no_mean():
    assert np.isnan(over_seeds(pd.DataFrame(rows(1.0, np.nan, 3.0)))["value"].iloc[0])


@pytest.mark.parametrize("other", [[], [5.0, 5.0]], ids=["missing", "twice"])
def test_numbers_of_some_seeds_alone_are_refused(other):
    ssim = [{**row, "seed": "1"} for row in rows(*other, metric="ssim")]
    ssim += rows(4.0, metric="ssim")

    with pytest.raises(DiemError, match="not the same numbers at the seeds 0, 1"):
        over_seeds(pd.DataFrame(rows(1.0, 2.0) + ssim))


def test_the_first_seed_runs_under_the_entrys_own_name():
    config = seeds_of(TINY, 3, 4)
    paths, one = Paths(config), Paths(resolve(TINY, "c"))

    metrics = paths.metrics("tiny")
    first = one.metrics("tiny")
    assert metrics == [*first, *(path.replace("/tiny/", "/tiny-seed4/") for path in first)]
    assert set(targets(config, [])) == set(targets(resolve(TINY, "c"), []))
    inputs = Inputs(config)
    for name, seed in (("tiny", 3), ("tiny-seed4", 4)):
        job = type("Names", (), {"experiment": name, "run": "base", "lap": "01", "shard": "1"})()
        assert inputs.seed(job) == seed
        assert inputs.e_step_input(job)["observations"].startswith(f"results/{name}/")
    assert config["seed"] == 3


def test_comparisons_run_at_every_seed_and_show_the_images_of_the_first():
    config = seeds_of(every_kind("restoration", "restored"), 3, 4)

    found = restoration_files(config, "restored", ".csv")
    assert sum("/restored-seed4/" in path for path in found) == len(found) / 2
    assert not any("seed4" in path for path in restoration_files(config, "restored", ".h5"))


def test_the_plan_counts_every_seed():
    one, two = ([*stages(each)] for each in (resolve(TINY, "c"), seeds_of(TINY, 3, 4)))

    assert len(two) == 2 * len(one)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seeds": []}, "seeds"),
        ({"seeds": [0, 0]}, "holds a seed twice"),
        ({"seeds": [0, -1]}, "seeds"),
        ({"seeds": [0, 1], "seed": 2}, "give one of the two keys"),
        ({"seeds": 3}, "seeds"),
    ],
)
def test_seeds_that_mean_nothing_are_refused(changes, told):
    config = {key: TINY[key] for key in TINY if key != "seed"} | changes

    with pytest.raises(DiemError, match=told) as error:
        resolve(config, "my.yaml")

    assert str(error.value).startswith("my.yaml: ")


def test_seeds_of_the_command_line():
    assert seeds_of(TINY, "3", " 4")["seeds"] == [3, 4]


def test_an_entry_that_has_a_replicates_name_is_refused():
    tiny = TINY["experiments"]["tiny"]
    config = {**TINY, "experiments": {"tiny": tiny, "tiny-seed4": tiny}}

    with pytest.raises(DiemError, match=r"experiments\.tiny-seed4 has the name"):
        seeds_of(config, 3, 4)
