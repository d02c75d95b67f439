"""What was once a traceback, or no end: crafted priors, odd names, folders, YAML and modules."""

import copy
import json
import os
import re
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
import torch
from helpers import random_gaussian
from test_estimate import TINY

from diem.components import import_named
from diem.config.reading import read_config
from diem.config.resolve import resolve
from diem.diffusion.prior import Prior, build_denoiser
from diem.errors import DiemError
from diem.files.tensors import load_tensors, save_tensors
from diem.inference.prior_denoiser import load_prior
from diem.jobs.results import MARK, check_folder, hold
from diem.launch_workflow import command
from diem.report.tables.writing import Readable, markdown

SHAPE = (1, 4, 4)
NETWORK = {"name": "mlp", "hidden": [8], "embedding": 4}
SCHEDULE = {"sigma_min": 0.1, "sigma_max": 5.0}
TOLD = {"network": NETWORK, "schedule": SCHEDULE, "data": {"offset": 0.0, "scale": 1.0}}


def sentence(error):
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


# Priors


def crafted(path, change):
    """Writes a prior with a valid checksum, whose card somebody has changed."""
    denoiser = build_denoiser(NETWORK, SCHEDULE, SHAPE, seed=0)
    Prior(random_gaussian(SHAPE, 2, torch.float32), denoiser, dict(TOLD)).save(path)
    tensors, header = load_tensors(path)
    card = json.loads(header["diem"])
    text = change(card)
    save_tensors(path, tensors, {"diem": text if isinstance(text, str) else json.dumps(card)})


def setting(*place, value):
    def change(card):
        for key in place[:-1]:
            card = card[key]
        card[place[-1]] = value

    return change


CARDS = {
    "no JSON": lambda card: "{",
    "a list": lambda card: "[]",
    "a number": lambda card: "1",
    "null": lambda card: "null",
    "deep lists": lambda card: "[" * 100_000 + "]" * 100_000,
    "deep mappings": lambda card: '{"a":' * 100_000 + "1" + "}" * 100_000,
    "no shape": lambda card: card.pop("event_shape"),
    "a shape of text": setting("event_shape", value="144"),
    "a shape of null": setting("event_shape", value=None),
    "a nested shape": setting("event_shape", value=[[1, 4, 4]]),
    "a huge shape": setting("event_shape", value=[10**6, 10**6, 10**6]),
    "data of text": setting("data", value="digits"),
    "an offset of text": setting("data", "offset", value="0"),
    "an infinite offset": setting("data", "offset", value=float("inf")),
    "a scale of zero": setting("data", "scale", value=0),
    "a negative scale": setting("data", "scale", value=-1.0),
    "a true scale": setting("data", "scale", value=True),
    "a scale by column of images": setting("data", "scale", value=[1.0, 2.0, 3.0]),
    "offsets by column that are none": setting("data", "offset", value=[]),
    "a schedule of numbers": setting("schedule", value=[0.1, 5.0]),
    "a schedule of text": setting("schedule", value={"sigma_min": "a", "sigma_max": "b"}),
    "a schedule of null": setting("schedule", "sigma_min", value=None),
    "a schedule with more": setting("schedule", "code", value="x"),
    "a schedule of zero": setting("schedule", "sigma_min", value=0),
    "a network of text": setting("network", value="mlp"),
    "a network of lists": setting("network", value=[NETWORK]),
    "a network without a name": lambda card: card["network"].pop("name"),
    "an unknown network": setting("network", "name", value="os"),
    "a network's name of lists": setting("network", "name", value=["mlp"]),
    "a module that is not there": setting("network", "name", value="no_such_module:Net"),
    "a module of Python's": setting("network", "name", value="os:system"),
    "another width": setting("network", "hidden", value=[9]),
    "more layers": setting("network", "hidden", value=[8, 8]),
    "gigabytes": setting("network", "hidden", value=[100_000, 100_000]),
    "terabytes": setting("network", "hidden", value=[10**9, 10**9]),
    "millions of layers": setting("network", "hidden", value=[8] * 200_000),
    "a width of text": setting("network", "hidden", value=["8"]),
    "a negative width": setting("network", "hidden", value=[-8]),
    "an embedding of a petabyte": setting("network", "embedding", value=10**15),
    "an e_step of text": setting("e_step", value="x"),
    "a sampler of numbers": setting("e_step", value={"sampler": 5}),
    "a posterior of lists": setting("posterior", value=[1]),
}


@pytest.mark.parametrize("case", CARDS)
def test_a_crafted_prior_is_refused_in_one_sentence(case, tmp_path):
    path = tmp_path / "prior.safetensors"
    crafted(path, CARDS[case])
    began = time.monotonic()
    tracemalloc.start()

    with pytest.raises(DiemError, match=f"^{re.escape(str(path))}: ") as error:
        load_prior(path)

    assert tracemalloc.get_traced_memory()[1] < 2**28
    tracemalloc.stop()
    assert len(sentence(error)) < 500
    assert time.monotonic() - began < 10


@pytest.mark.slow
def test_a_crafted_network_of_gigabytes_takes_no_memory(tmp_path):
    path = tmp_path / "prior.safetensors"
    crafted(path, lambda card: card["network"].update(hidden=[1024] * 1000))  # 4 GB of weights
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))\n"
        f"import diem; diem.load_prior({str(path)!r})"
    )

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert "is larger than the" in result.stderr.splitlines()[-1]


SAMPLERS = {
    "steps of text": {"sampler": {"name": "ddim", "steps": "many"}},
    "no steps": {"sampler": {"name": "ddim", "steps": 0}},
    "an unknown sampler": {"sampler": {"name": "os"}},
    "an unknown covariance": {"covariance": "os"},
    "a covariance of numbers": {"covariance": 5},
    "iterations of text": {"iterations": "x"},
    "a limit of text": {"limit": "x"},
    "an unknown key": {"code": "x"},
    "a precision of lists": {"precision": [1]},
}


@pytest.mark.parametrize("case", SAMPLERS)
def test_a_crafted_sampler_is_refused_in_one_sentence(case, tmp_path):
    path = tmp_path / "prior.safetensors"
    crafted(path, setting("e_step", value=SAMPLERS[case]))
    prior = load_prior(path)

    try:
        prior.posterior_sampler()
    except DiemError as error:
        assert "\n" not in str(error)


# Configurations


def config(**changes):
    made = copy.deepcopy(TINY)
    made |= changes
    return made


def labelled(label):
    made = copy.deepcopy(TINY)
    run = next(iter(made["experiments"]["tiny"]["runs"].values()))
    run["label"] = label
    return made


def named(name):
    return {"device": "cpu", "experiments": {name: copy.deepcopy(TINY["experiments"]["tiny"])}}


CONFIGS = {
    "a label of two lines": (labelled("a\nb"), ["label", "one line"]),
    "a label with a bell": (labelled("a\x07"), ["label", "one line"]),
    "a label that is a formula": (labelled("=1+1"), ["label", "formula"]),
    "a label that begins with @": (labelled("@sum"), ["label", "formula"]),
    "a label without end": (labelled("a" * 1000), ["label", "at most 200"]),
    "an empty label": (labelled(""), ["label"]),
    "a name of 300 characters": (named("a" * 300), ["at most 100 characters"]),
    "results of nothing": (config(results=""), ["results"]),
    "results with a null byte": (config(results="a\0b"), ["results"]),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_configuration_is_refused_in_one_sentence(case):
    written, words = CONFIGS[case]
    with pytest.raises(DiemError, match=r"^mine\.yaml: ") as error:
        resolve(written, "mine.yaml")
    assert all(word in sentence(error) for word in words), error.value


@pytest.mark.parametrize(
    ("written", "used"),
    [("out/", "out"), ("out//a/./b/", "out/a/b"), ("~/out", "HOME/out"), ("out", "out")],
)
def test_results_are_where_the_shell_would_have_them(written, used, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = used.replace("HOME", str(tmp_path))
    assert resolve(config(results=written), "mine.yaml")["results"] == expected


def bomb(levels):
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    for i in range(1, levels):
        lines.append(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]")
    return "\n".join(lines)


YAML = {
    "a mapping in itself": ("a: &a\n  b: *a\n", "stands for what it stands in"),
    "a list in itself": ("a: &a [*a]\n", "stands for what it stands in"),
    "a bomb": (bomb(30), "more than 100,000 entries"),
    "deep lists": ("a: " + "[" * 20_000 + "]" * 20_000, "nested too deeply"),
    "a tag of Python's": ("a: !!python/object/apply:os.system [ls]", "no YAML"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", YAML)
def test_yaml_that_has_no_end(case, tmp_path):
    text, words = YAML[case]
    path = tmp_path / "mine.yaml"
    path.write_text(text)

    for read in (read_config, lambda path: command(["--cores", "1", "--configfile", str(path)])):
        with pytest.raises(DiemError, match=words) as error:
            read(path)
        sentence(error)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--configfile", "nope.yaml"], "nope.yaml: No such file or directory."),
        (["--configfile=nope.yaml"], "nope.yaml: No such file or directory."),
        (["--configfiles", "mine.yaml", "nope.yaml"], "nope.yaml: No such file or directory."),
        (["--configfile", "."], "Is a directory."),
        (["--configfile", "a" * 300], "File name too long."),
    ],
)
def test_a_configuration_that_is_no_file(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("seed: 1")
    with pytest.raises(DiemError, match=words) as error:
        command([*arguments, "--cores", "1"])
    sentence(error)


def test_a_configuration_of_a_pipe_is_left_to_who_reads_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert command(["--configfile", str(tmp_path / "pipe")])[-1] == str(tmp_path / "pipe")


# Folders


@pytest.mark.parametrize(
    ("name", "words"),
    [("a" * 300, "too long"), (f"b/{'a' * 300}", "too long"), ("a\0b", "null byte")],
)
def test_a_folder_that_can_be_none(tmp_path, name, words):
    with pytest.raises(DiemError, match=rf"folder: .* cannot be written .*{words}") as error:
        hold(tmp_path / name, "folder")
    sentence(error)


def test_results_that_are_a_link_to_nothing(tmp_path):
    (tmp_path / "results").symlink_to(tmp_path / "gone")
    for folder in ("results", "results/deeper"):
        with pytest.raises(DiemError, match="is a link to what is not there") as error:
            check_folder(tmp_path / folder)
        sentence(error)


def test_results_that_may_only_be_read_can_be_planned(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    check_folder(tmp_path)  # all that a plan asks

    with pytest.raises(DiemError, match="cannot be written"):
        hold(tmp_path)


def test_a_lock_of_another_user(tmp_path):
    (tmp_path / MARK).mkdir()  # what root may not open, either
    with pytest.raises(DiemError, match="another user's, or of another program") as error:
        hold(tmp_path)
    sentence(error)


# Modules, tables, figures


@pytest.mark.parametrize("module", ["random", "code", "types", "email.mime"])
def test_a_module_that_is_named_like_one_of_pythons(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(f"{module.partition('.')[0]}.py").write_text("class Beam: pass")
    with pytest.raises(DiemError, match="give your file another name"):
        import_named(f"{module}:Beam", "operator")


def test_markdown_holds_no_html():
    shown = Readable([["a"]], [["<b>x|y</b> & z"]], 1, ["<script>"])
    assert "<" not in markdown(shown)
    assert "&lt;b>x\\|y&lt;/b> &amp; z" in markdown(shown)


@pytest.mark.parametrize(
    "label", ["$x", "$x$", r"$\frac{$", "a $ b $ c", "<b>&amp;", "50 %", "a_b^c"]
)
def test_a_label_is_text_in_figures(label):
    from matplotlib.figure import Figure

    from diem.report.drawing.style import annotate
    from diem.report.figures.base import Reads
    from diem.report.figures.files import opened

    resolve(labelled(label), "mine.yaml")
    ceilings = {"plain": {"run": f"ceiling of {label}"}}
    with opened(Reads(), "some", {"run": label}, [], ceilings, {}, {}) as source:
        figure = Figure()
        annotate(figure, source.labels["run"], "note")
        figure.canvas.draw()
        assert figure._suptitle._preprocess_math(source.labels["run"]) == (label, False)
        ceiling = source.ceilings["plain"]["run"]
        assert figure._suptitle._preprocess_math(ceiling) == (f"ceiling of {label}", False)


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["posterior"])
def test_the_backend_of_a_notebook_is_no_matter(verb, tmp_path):
    code = (
        "from diem.cli import _draw_posteriors\n"
        "try: _draw_posteriors(None, None)\n"
        "except AttributeError as error: print(error)"
    )
    environment = {**os.environ, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert "no attribute 'output'" in result.stdout, result.stderr
