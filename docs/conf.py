"""The site of the documentation: `make docs` builds it of the Markdown files as they are.

The source folder is the project's root, so that links between files hold here as in the repository.
"""

from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx

from diem import __version__

project = "diem"
version = release = __version__
author = "the authors of diem"
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "docs/*.md",
    "config/README.md",
    "benchmarks/*.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
suppress_warnings = ["misc.highlighting_failure"]  # of graphs, which are shown as text here
autodoc_typehints = "description"
autodoc_member_order = "bysource"
html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"diem {release}"


def inline(writer: Any, node: nodes.math) -> None:
    """Writes an equation of a line."""
    writer.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def displayed(writer: Any, node: nodes.math_block) -> None:
    """Writes an equation that has lines of its own."""
    writer.body.append(f"<div>{tex2mathml(node.astext(), as_block=True)}</div>")
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Has equations written as MathML, which browsers show without a script or a network."""
    app.add_html_math_renderer("mathml", (inline, None), (displayed, None))
