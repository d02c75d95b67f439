"""What numbers depend on of the code: comments and docstrings do not count, and all else does."""

import ast
import os
import textwrap

import pytest

from diem.evaluation.metrics import METRICS
from diem.jobs import code
from diem.jobs.code import code_digest, without_words

SCRIPT = '"""Does it."""\nimport diem.evaluation.transport\nx = 1  # one\n'


@pytest.fixture
def script(tmp_path):
    code._digest.cache_clear()
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def digest(script, source, *settings):
    script.write_text(source)
    os.utime(script, ns=(len(source), hash(source) % 10**9))  # a file system's clock may be coarse
    code._digest.cache_clear()
    return code_digest(script, settings)


SAME = '''
    """Module."""
    # A comment.
    import os

    LIMIT = 3
    """What it is for."""


    class A:
        """A class."""

        x = "# no comment"  # a comment

        def f(self):
            """Returns
            # much
            """
            text = """kept
    # kept too

    """
            return f"{text} # {{kept}} {self.x!r:>{LIMIT}}"
'''

BARE = '''\
import os
LIMIT = 3
class A :
    x = "# no comment"
    def f ( self ) :
        text = """kept
# kept too

"""
        return f"{text} # {{kept}} {self.x!r:>{LIMIT}}"'''


def test_what_is_left_is_code():
    assert without_words(textwrap.dedent(SAME)) == BARE


class Bare(ast.NodeTransformer):
    """Takes statements away that are a string."""

    def visit_Expr(self, node):
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if text else node


@pytest.mark.slow
def test_what_is_left_of_the_library_is_all_that_it_does():
    empty = 0
    for path in code.LIBRARY.rglob("*.py"):
        bare = Bare().visit(ast.parse(path.read_text()))
        if any(getattr(node, "body", None) == [] for node in ast.walk(bare)):
            empty += 1  # no program is left where a docstring was all
            continue
        left = ast.parse(without_words(path.read_text()))
        assert ast.dump(left) == ast.dump(bare), path
    assert empty < 60


@pytest.mark.parametrize(
    "words",
    [
        SCRIPT.replace("# one", "# another"),
        SCRIPT.replace("Does it.", "It is\ndone."),
        f"# Licence\n\n{SCRIPT}\n\n# end\n",
    ],
)
def test_words_change_no_digest(script, words):
    assert digest(script, SCRIPT) == digest(script, words)


@pytest.mark.parametrize(
    "other",
    [
        SCRIPT.replace("x = 1", "x = 2"),
        SCRIPT.replace("transport", "arrays"),
        f"{SCRIPT}x = '# one'\n",
    ],
)
def test_code_changes_the_digest(script, other):
    assert digest(script, SCRIPT) != digest(script, other)


@pytest.mark.parametrize("name", ["corrupt", "ingest", "gaussian_prior", "e_step", "m_step"])
def test_no_change_of_a_table_or_of_a_check_makes_a_prior_anew(name):
    script = code.LIBRARY.parent / "scripts" / f"{name}.py"
    rooms = {path.relative_to(code.LIBRARY).parts[0] for path in code._reached({script}) - {script}}

    assert rooms.isdisjoint({"evaluation", "report", "paper", "config", "planning"})


def test_a_component_counts_where_it_is_named(script):
    assert "psnr" in METRICS.names  # a kind is known once it is imported
    plain = digest(script, SCRIPT, {"metrics": ["ssim"]}, 3, None)

    assert digest(script, SCRIPT, {"metrics": ["ssim"]}, 4) == plain
    assert digest(script, SCRIPT, {"metrics": ["ssim", "psnr"]}) != plain
    assert digest(script, SCRIPT, {"ssim": {"label": "a"}}) == plain  # by a key
    assert digest(script, SCRIPT) != plain
    # A setting that is called as some file of the library is, which holds no component.
    assert digest(script, SCRIPT, "ssim", "blocks", "e_step", "rows") == plain


@pytest.mark.parametrize("where", ["a folder that is named", "the working folder"])
def test_a_component_of_the_users_own_counts(script, tmp_path, monkeypatch, where):
    if where == "the working folder":
        monkeypatch.chdir(tmp_path)
    else:
        monkeypatch.setenv("DIEM_PATH", str(tmp_path))
    (tmp_path / "lens").mkdir()
    own = tmp_path / "lens" / "beam.py"

    found = [digest(script, SCRIPT, "lens.beam:Wide")]
    for source in ("width = 1\n", "width = 22\n"):
        own.write_text(source)
        found.append(digest(script, SCRIPT, "lens.beam:Wide"))
    assert len(set(found)) == 3
    own.write_text("# as before, in\nwidth = 22\n")
    assert digest(script, SCRIPT, "lens.beam:Wide") == found[-1]


BROKEN = [b"def (:", b"x = '''", b"\xff\xfe", b"x = 1\x00", b"  x\n y"]


@pytest.mark.parametrize("source", BROKEN)
def test_a_file_that_is_no_program_counts_as_it_is(tmp_path, monkeypatch, script, source):
    monkeypatch.setenv("DIEM_PATH", str(tmp_path))
    (tmp_path / "broken.py").write_bytes(source)
    one = digest(script, SCRIPT, "broken:Beam")
    (tmp_path / "broken.py").write_bytes(source + b"#")

    assert digest(script, SCRIPT, "broken:Beam") != one


def test_what_was_read_is_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr(code, "KNOWN", {})
    file = tmp_path / "diem" / "code.json"
    code.remember(file)
    first, when = dict(code.KNOWN), file.stat().st_mtime_ns
    code.KNOWN.clear()
    monkeypatch.setattr(code, "without_words", None)  # nothing is read again
    code.remember(file)

    assert first == code.KNOWN
    assert file.stat().st_mtime_ns == when


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["", "[1]", '{"a": 1}', "{", "null"])
def test_what_was_remembered_may_be_damaged(tmp_path, monkeypatch, kept):
    monkeypatch.setattr(code, "KNOWN", {})
    file = tmp_path / "code.json"
    file.write_text(kept)
    code.remember(file)

    assert len(code.KNOWN) > 200
    code.KNOWN.clear()
    monkeypatch.setattr(code, "without_words", None)
    code.remember(file)


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_no_harm(tmp_path, monkeypatch):
    monkeypatch.setattr(code, "KNOWN", {})
    (tmp_path / "file").write_text("")
    code.remember(tmp_path / "file" / "code.json")

    assert len(code.KNOWN) > 200
