"""What no module of the workflow may do: unpickle, run text as code, extract archives, use a shell.

What archives, downloads and odd names do is tested where they are read: ``test_cifar``,
``test_mri``, ``test_downloads``, and ``test_names`` of the workflow.
"""

import ast
import re
from pathlib import Path

import pytest

WORKFLOW = Path(__file__).parents[2] / "workflow"
MODULES = sorted(WORKFLOW.rglob("*.py"))
RULES = [WORKFLOW / "Snakefile", *sorted(WORKFLOW.rglob("*.smk"))]

IMPORTS = {"cloudpickle", "dill", "joblib", "marshal", "shelve"}
CALLS = {
    "eval": "runs text as code",
    "exec": "runs text as code",
    "os.system": "uses a shell",
    "os.popen": "uses a shell",
    "subprocess.getoutput": "uses a shell",
    "subprocess.getstatusoutput": "uses a shell",
    "shutil.unpack_archive": "extracts an archive",
    "yaml.load": "makes objects of YAML",
    "yaml.unsafe_load": "makes objects of YAML",
    "urllib.request.urlopen": "downloads without a checksum",
    "urllib.request.urlretrieve": "downloads without a checksum",
    "torch.hub.load_state_dict_from_url": "downloads without a checksum",
    "requests.get": "downloads without a checksum",
}


def found(source):
    """Yields what a module does that it may not."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
            tops = {name.partition(".")[0] for name in names}
            if tops & IMPORTS or (isinstance(node, ast.ImportFrom) and "pickle" in tops):
                yield f"imports {', '.join(names)}"
        elif isinstance(node, ast.Attribute):
            if ast.unparse(node.value) == "pickle" and node.attr != "UnpicklingError":
                yield f"uses pickle.{node.attr}"
            if node.attr in ("extract", "extractall"):
                yield "extracts an archive"
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {key.arg: ast.unparse(key.value) for key in node.keywords}
            if name in CALLS:
                yield CALLS[name]
            if name == "torch.load" and options.get("weights_only") != "True":
                yield "unpickles with torch.load"
            if options.get("allow_pickle", "False") != "False":
                yield "allows pickle"
            if options.get("shell", "False") != "False":
                yield "uses a shell"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(WORKFLOW)))
def test_modules(path):
    assert list(found(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.name)
def test_no_rule_has_a_shell_command(path):
    assert not re.search(r"^\s*(shell|run):|\bshell\(", path.read_text(encoding="utf-8"), re.M)


@pytest.mark.parametrize(
    "source",
    [
        "import dill",
        "from pickle import load",
        "import pickle\npickle.loads(b'')",
        "import joblib.numpy_pickle",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "subprocess.run(command, shell=True)",
        "subprocess.run(command, shell=config['shell'])",
        "os.system(f'rm {name}')",
        "eval(config['rate'])",
        "archive.extractall(folder)",
        "urllib.request.urlretrieve(url, path)",
    ],
)
def test_it_would_be_found(source):
    assert len(list(found(source))) == 1


def test_what_is_safe_is_not_found():
    safe = "import pickle\ntry: torch.load(p, weights_only=True)\nexcept pickle.UnpicklingError: 0"
    assert list(found(safe)) == []
    assert list(found("np.savez(file, allow_pickle=False)\narchive.extractfile(member)")) == []
