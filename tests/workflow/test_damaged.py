"""A damaged result: it is named, and once it is deleted the same command makes it anew, alone."""

import shutil

import h5py
import pytest
from test_chain import one_sentence, same_prior

pytestmark = pytest.mark.slow

SAMPLES, PRIOR, LOSSES = "samples.h5", "prior.safetensors", "losses.csv"


def flip(path):
    """Changes a byte of the values that a file holds."""
    place = -1
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            place = file["train/x"].id.get_chunk_info(0).byte_offset
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("damaged", "missing", "made"),
    [
        ((2, SAMPLES), [(2, PRIOR)], {(2, SAMPLES), (2, PRIOR), (2, LOSSES)}),
        (
            (1, PRIOR),
            [(2, PRIOR), (2, SAMPLES)],
            {(1, PRIOR), (1, LOSSES), (2, SAMPLES), (2, PRIOR), (2, LOSSES)},
        ),
    ],
)
def test_only_what_depends_on_it_is_made_anew(finished, workflow, damaged, missing, made):
    for folder in ("results", ".snakemake"):
        shutil.copytree(finished.path(folder), workflow.path(folder))
    target, name = workflow.lap(2, PRIOR), workflow.lap(*damaged)
    for lost in missing:
        workflow.path(workflow.lap(*lost)).unlink()
    path = workflow.path(name)
    flip(path)
    before = {p: p.stat().st_mtime_ns for p in workflow.path("results/tiny").rglob("*.*")}

    sentence = one_sentence(workflow.run(target))
    assert sentence.startswith(name)
    assert "damaged" in sentence
    assert "delete it and give the same command again" in sentence

    path.unlink()
    result = workflow.run(target)
    assert result.returncode == 0, result.stderr
    assert same_prior(finished, workflow, 2)
    after = {p: p.stat().st_mtime_ns for p in workflow.path("results/tiny").rglob("*.*")}
    changed = {p for p in after if before.get(p) != after[p]}
    assert changed == {workflow.path(workflow.lap(*name)) for name in made}
