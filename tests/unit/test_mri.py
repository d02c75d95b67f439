"""Phantoms, fastMRI volumes, reconstructions and their figures and table."""

import io
import tarfile

import h5py
import matplotlib.figure
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import random_gaussian

from diem import operators
from diem.data.observations import Observations, Observed, save_observations
from diem.data.sets import DATASETS
from diem.data.sets import fastmri as volumes
from diem.data.simulate import corrupt
from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.diffusion.prior import Prior
from diem.diffusion.samplers.ddpm import DDPM
from diem.errors import DiemError
from diem.evaluation.arrays import intensities
from diem.evaluation.evaluate import groups_of, some_observations
from diem.evaluation.metrics.nmse import nmse
from diem.evaluation.metrics.psnr import psnr
from diem.evaluation.reconstruct import Reconstruction, _metrics, reconstruct
from diem.evaluation.rows import read_rows, write_rows
from diem.evaluation.standard_error import standard_error
from diem.files.hdf5 import Reader, write_hdf5
from diem.jobs.job import Job
from diem.report.figures.base import Evaluation, Source, figure_named
from diem.report.tables.reconstructions import readable_reconstructions, reconstructions

PHANTOMS = {
    "name": "phantoms",
    "train": 6,
    "validation": 2,
    "test": 3,
    "size": 32,
    "complex": False,
}


def phantoms(**keys):
    """Returns the images of all splits, which come in parts."""
    splits = DATASETS.parse({**PHANTOMS, **keys}).load(seed=1)
    return {name: split.whole() for name, split in splits.items()}


def test_phantoms_are_images_in_range_and_repeat():
    splits, again = phantoms(), phantoms()

    for name, x in splits.items():
        assert x.shape == (PHANTOMS[name], 1, 32, 32)
        assert x.dtype == np.float32
        assert -2 <= x.min() < -1.9
        assert 0 < x.max() <= 2
        assert np.array_equal(x, again[name])
        assert (x[:, :, 0] == -2).all()  # the object does not touch the border
    assert not np.array_equal(splits["train"][:2], splits["validation"])
    assert np.array_equal(phantoms(train=9)["train"][:6], splits["train"])


def test_phantoms_come_some_at_a_time():
    parts = list(DATASETS.parse({**PHANTOMS, "train": 130}).load(seed=1)["train"].x)

    assert [len(part) for part in parts] == [44, 43, 43]
    assert np.array_equal(np.concatenate(parts)[:6], phantoms()["train"])


def test_a_complex_phantom_has_the_magnitude_of_the_real_one():
    real, phased = (phantoms(complex=c)["test"] for c in (False, True))

    assert phased.shape == (3, 2, 32, 32)
    magnitude = intensities(phased).numpy()
    np.testing.assert_allclose(magnitude, intensities(real).numpy(), atol=1e-6)
    assert (phased < -0.1).any()


# fastMRI


def volume(rows=6, size=8, peak=3.0, key=volumes.RECONSTRUCTION):
    x = np.random.default_rng(rows).random((rows, size, size)).astype(np.float32)
    x *= peak / x.max()
    file = io.BytesIO()
    with h5py.File(file, "w") as h5:
        h5[key] = x
    return x, file.getvalue()


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "volumes"
    path.mkdir()
    for i in range(6):
        (path / f"file{i}.h5").write_bytes(volume(rows=4 + i, peak=1.0 + i)[1])
    return path


@pytest.fixture(params=["folder", "tar", "tar.gz", "tar.xz"])
def source(request, folder, tmp_path):
    if request.param == "folder":
        return folder
    path = tmp_path / f"volumes.{request.param}"
    with tarfile.open(path, "w:" + request.param.removeprefix("tar").removeprefix(".")) as archive:
        archive.add(folder, "singlecoil_train")
    return path


def fastmri(path, **options):
    spec = {
        "name": "fastmri",
        "path": str(path),
        "validation_path": None,
        "validation": 1,
        "test": 2,
        "slices": [1, 5],
        "size": 8,
        **options,
    }
    return DATASETS.parse(spec).load(seed=0)


def parts(splits):
    return {name: list(split.x) for name, split in splits.items()}


def test_fastmri_reads_scaled_slices_volume_by_volume(source):
    found = parts(fastmri(source))

    assert [len(found[name]) for name in ("train", "validation", "test")] == [3, 1, 2]
    everything = [x for some in found.values() for x in some]
    # Volumes of 4 to 9 slices, of which 1 to 4 are taken.
    assert sorted(len(x) for x in everything) == [3, 4, 4, 4, 4, 4]
    originals = [volume(rows=4 + i)[0] for i in range(6)]
    scaled = [4 * x[1:5] / x[1:5].max() - 2 for x in originals]
    for x in everything:
        assert x.shape[1:] == (1, 8, 8)
        assert any(len(y) == len(x) and np.allclose(x[:, 0], y, atol=1e-5) for y in scaled)


def test_fastmri_validation_of_a_folder_of_its_own(folder, tmp_path):
    other = tmp_path / "held"
    other.mkdir()
    for i in range(3):
        (other / f"held{i}.h5").write_bytes(volume(rows=5)[1])

    found = parts(fastmri(folder, validation_path=str(other)))

    assert [len(found[name]) for name in ("train", "validation", "test")] == [6, 1, 2]


@pytest.mark.parametrize("told", ["{}/.", "{}/../{}", "link"])
def test_fastmri_of_one_folder_trains_on_nothing_that_is_held_out(folder, tmp_path, told):
    (tmp_path / "link").symlink_to(folder)
    same = str(tmp_path / "link") if told == "link" else told.format(folder, folder.name)

    found = parts(fastmri(folder, validation_path=same))

    usual = parts(fastmri(folder))
    assert [len(each) for each in found.values()] == [3, 1, 2]
    assert all(
        (x == y).all() for name in found for x, y in zip(found[name], usual[name], strict=True)
    )
    spec = {"name": "fastmri", "path": str(folder), "validation": 1, "test": 2}
    alone, counted = (
        DATASETS.parse({**spec, **each}).counts() for each in ({}, {"validation_path": same})
    )
    assert alone == counted


def test_fastmri_streams_to_a_file(source, tmp_path):
    splits = fastmri(source)
    arrays = {}
    for name, split in splits.items():
        arrays |= {f"{name}/x": split.x, f"{name}/groups": split.groups}
    write_hdf5(tmp_path / "clean.h5", arrays, {})

    with Reader(tmp_path / "clean.h5") as file:
        total = sum(len(file.read(f"{name}/x", shape=(1, 8, 8))) for name in splits)
        groups = {name: file.read(f"{name}/groups", shape=()) for name in splits}
    assert total == 23 == sum(map(len, groups.values()))
    entry = {"operator": {"name": "fourier", "acceleration": 2}, "sigma_y": 0.1}
    corrupt(tmp_path / "clean.h5", tmp_path / "y.h5", entry, 0, "scans")
    with Observations(tmp_path / "y.h5") as file:
        found = file.groups("train")
        assert (found == groups["train"]).all()
        # Volumes of 4 to 9 slices, of which up to 4 are taken, in their order.
        assert sorted(np.bincount(found)) in ([3, 4, 4], [4, 4, 4])
        settings = {"test_observations": 2}, 0
        observed = some_observations(file, *settings)
        assert groups_of(file, *settings).tolist() == groups["test"][observed.index].tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no volume", "complete HDF5 volume"),
        (volume()[1][:1500], "complete HDF5 volume"),
        (volume(key="other")[1], "'reconstruction_rss' is missing"),
        (volume(size=9)[1], r"shape \(6, 9, 9\)"),
        (volume(rows=1)[1], "it has 1 slices"),
        (volume(peak=float("nan"))[1], "finite"),
    ],
)
def test_a_volume_that_cannot_be_read_is_named(folder, content, message):
    (folder / "file3.h5").write_bytes(content)

    with pytest.raises(DiemError, match=message) as error:
        parts(fastmri(folder))
    assert "file3.h5" in str(error.value)
    assert str(error.value).endswith(".")


@pytest.mark.parametrize("name", ["../evil.h5", "/evil.h5", "a/../../evil.h5"])
def test_a_name_that_leads_out_of_the_archive_is_refused(tmp_path, name):
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo(name)
        member.size = 4
        archive.addfile(member, io.BytesIO(b"evil"))

    with pytest.raises(DiemError, match="leads out of the archive"):
        fastmri(path)


def test_a_link_in_the_archive_is_refused(tmp_path):
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("file.h5")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)

    with pytest.raises(DiemError, match="link or a device"):
        fastmri(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "nowhere"}, "no such folder or archive"),
        ({"validation": 4}, "too many"),
        ({"slices": [5, 5]}, "data.slices"),
    ],
)
def test_fastmri_settings_that_do_not_fit(folder, options, message):
    with pytest.raises(DiemError, match=message):
        fastmri(options.pop("path", folder), **options)


def test_an_archive_that_is_cut_is_named(folder, tmp_path):
    path = tmp_path / "cut.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, "volumes")
    path.write_bytes(path.read_bytes()[:-600])

    with pytest.raises(DiemError, match=r"cut\.tar\.gz"):
        parts(fastmri(path))


def test_a_flipped_byte_in_a_compressed_archive_is_found(folder, tmp_path):
    path = tmp_path / "flipped.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=0) as archive:
        archive.add(folder, "volumes")
    raw = bytearray(path.read_bytes())
    # In the middle of the pixels of a volume, which HDF5 stores here without a checksum.
    raw[raw.find(volume(rows=6, peak=3.0)[0].tobytes()[:64]) + 100] ^= 0x10
    path.write_bytes(raw)

    with pytest.raises(DiemError, match=r"flipped\.tar\.gz"):
        parts(fastmri(path))


# Reconstructions


def test_nmse_and_intensities_by_hand():
    x = torch.tensor([[[[1.0, 2.0]]], [[[0.0, 0.0]]]])
    reference = torch.tensor([[[[1.0, 1.0]]], [[[3.0, 4.0]]]])
    torch.testing.assert_close(nmse(x, reference), torch.tensor([0.5, 1.0], dtype=torch.float64))

    grey = intensities(torch.tensor([[[[-2.0, 0.0, 2.0]]]]))
    assert grey.flatten().tolist() == [0, 0.5, 1]
    phased = intensities(torch.tensor([[[[1.2]], [[1.6]]]]))
    torch.testing.assert_close(phased, torch.ones(1, 1, 1, 1, dtype=torch.float64))


@pytest.fixture
def made(tmp_path):
    """Reconstructs Fourier observations of a Gaussian's samples."""
    gaussian = random_gaussian((1, 12, 12), 4, torch.float32)
    x = gaussian.sample(8, torch.Generator().manual_seed(0))
    spec = {"name": "fourier", "acceleration": 3}
    operator = operators.simulate(spec, x.shape[1:], 8, np.random.default_rng(0))
    noise = torch.randn(operator.observation_shape, generator=torch.Generator().manual_seed(1))
    y = operator.forward(x) + 0.1 * noise * operator.observed()
    observed = Observed(operator, y, torch.tensor(0.1), np.arange(8))
    groups = {"test": np.arange(8) // 2}  # slices of four volumes
    save_observations(tmp_path / "o.h5", {"test": observed}, "fourier", {}, groups=groups)
    write_hdf5(tmp_path / "clean.h5", {"test/x": x.numpy()}, {})
    floor = Prior(gaussian, None, {"lap": 0, "optimizer_steps": 0})
    with Observations(tmp_path / "o.h5") as observations:
        task = Reconstruction(
            # The Gaussian stands for the learned prior too: its samples are exact.
            Prior(gaussian, None, {"lap": 3, "optimizer_steps": 9}),
            floor,
            observations,
            tmp_path / "clean.h5",
            {"test_observations": 8, "posterior_samples": 40},
            PosteriorSampler(DDPM(steps=2)),
            Job(),
        )
        card = {"experiment": "mri", "run": "base", "observations": "r3", "lap": 3}
        rows, arrays = reconstruct(task, card)
    return pd.DataFrame(rows), arrays, operator, y, x, gaussian


@pytest.mark.parametrize(("size", "names"), [(11, ["psnr", "ssim", "nmse"]), (8, ["psnr", "nmse"])])
def test_reconstructions_have_the_metrics_that_need_no_file(size, names):
    assert [metric.name for metric in _metrics((1, size, 12))] == names


@pytest.mark.slow
def test_reconstructions_are_those_of_their_definitions(made):
    rows, arrays, operator, y, x, gaussian = made
    values = rows.set_index(["stage", "subject", "metric"])["value"]

    zero_filled = psnr(operator.adjoint(y), x).mean()
    assert values["", "adjoint", "psnr"] == pytest.approx(float(zero_filled))
    exact = psnr(gaussian.posterior_mean(operator, y, 0.1), x).mean()
    assert values["floor", "posterior_mean", "psnr"] == pytest.approx(float(exact))
    # The mean of 40 exact draws is nearly the exact mean, and better than one of them.
    assert values["lap", "posterior_mean", "psnr"] == pytest.approx(float(exact), abs=0.3)
    assert values["lap", "posterior", "psnr"] < values["lap", "posterior_mean", "psnr"] - 1
    assert values["floor", "posterior_mean", "nmse"] < values["", "adjoint", "nmse"]
    assert arrays["posterior/x"].shape == (8, 40, 1, 12, 12)
    assert arrays["posterior/adjoint"].shape == (8, 1, 12, 12)


@pytest.mark.slow
def test_the_table_of_reconstructions_tells_what_each_prior_saw(made, tmp_path):
    write_rows(tmp_path / "rows.csv", made[0])
    rows = read_rows([tmp_path / "rows.csv"])

    table = reconstructions(rows, {"base": "tweedie"}, {"base": "r6"})

    assert list(table["method"].unique()) == [
        "adjoint (zero-filled)",
        "Gaussian prior",
        "learned prior, tweedie",
    ]
    assert list(table["trained_on"]) == ["", "r6", "r6", "r6", "r6"]
    assert {"psnr", "ssim", "nmse", "card of psnr"} <= set(table.columns)
    readable = readable_reconstructions(table)
    assert len(readable.body) == 5
    text = " ".join(readable.notes)
    # Another run of the same observations has the same Gaussian, and one of others its own.
    both = pd.concat([rows, rows.assign(run="other")])
    for trained, count in (("r6", 2), ("r3", 4)):
        labels, seen = {"base": "a", "other": "b"}, {"base": "r6", "other": trained}
        methods = list(reconstructions(both, labels, seen)["method"])
        assert methods.count("Gaussian prior") == count
    assert "in closed form" in text
    assert "drawn exactly" in text


@pytest.mark.slow
def test_standard_errors_of_slices_are_those_of_volumes(made):
    rows, arrays, *_, x, _ = made
    row = rows[(rows["metric"] == "psnr") & (rows["stage"] == "lap")].iloc[-1]
    assert row["subject"] == "posterior_mean"
    mean, truth = (torch.from_numpy(arrays[f"posterior/{name}"]) for name in ("x", "truth"))
    values = psnr(intensities(mean.mean(dim=1)), intensities(truth), 1.0)
    which = [int((x == one).flatten(1).all(dim=1).nonzero()) for one in truth]

    found = [standard_error(values, groups) for groups in (np.array(which) // 2, None)]

    assert row["standard_error"] == pytest.approx(found[0], rel=1e-4)
    assert row["standard_error"] != pytest.approx(found[1], rel=1e-2)


@pytest.mark.slow
def test_figures_of_slices_and_of_uncertainty(made):
    arrays = made[1]
    part = Evaluation("r6", "base", "lap", 3, arrays)
    source = Source("mri", {"base": "tweedie"}, evaluations=[part], trained={"base": "r4"})
    for name in ("slices", "uncertainty"):
        drawn = figure_named(name).draw(source)
        assert isinstance(drawn, matplotlib.figure.Figure)
        labels = [text.get_text() for text in drawn.axes[0].get_yticklabels()]
        assert "truth" in labels
        assert "zero-filled\ninverse" in labels
    # Of the last figure, of which the set that is shown is another one.
    told = " ".join(drawn._supxlabel.get_text().split())
    assert "The prior was trained on r4 only. r6: the samples' range" in told


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_figure_of_uncertainty_is_of_all_images(channels):
    x = np.random.default_rng(0).uniform(-2, 2, (4, 3, channels, 8, 8)).astype(np.float32)
    arrays = {"posterior/x": x, "posterior/adjoint": x[:, 0], "posterior/truth": x[:, 1]}
    part = Evaluation("blur", "base", "reconstruction", 3, arrays)
    source = Source("own", {"base": "base"}, evaluations=[part], trained={"base": "blur"})

    assert figure_named("uncertainty").draw(source).axes


@pytest.mark.slow
def test_slices_are_of_fourier_observations(made):
    arrays = {**made[1], "posterior/y": np.zeros((8, 5))}
    part = Evaluation("r6", "base", "lap", 3, arrays)
    with pytest.raises(DiemError, match="Fourier observations"):
        figure_named("slices").draw(Source("mri", {"base": "tweedie"}, evaluations=[part]))
