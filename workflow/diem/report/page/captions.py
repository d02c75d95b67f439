"""Captions of Snakemake's report, as HTML."""

from collections.abc import Mapping
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any, NamedTuple

from docutils.core import publish_parts
from jinja2 import Environment, StrictUndefined, TemplateError
from markupsafe import Markup

from diem.errors import DiemError

__all__ = ["Rendered", "plain", "render"]

SETTINGS = {
    "_disable_config": True,  # the user's own settings of docutils have no say
    "file_insertion_enabled": False,
    "halt_level": 5,
    "initial_header_level": 3,
    "math_output": "MathML",
    "raw_enabled": False,
    "report_level": 5,
    "syntax_highlight": "none",
}


class Rendered(NamedTuple):
    """A text of reStructuredText as HTML.

    Attributes:
        title: The title that it begins with, if it has one, as plain text.
        body: All below.
    """

    title: str
    body: Markup


def render(
    text: str, wildcards: Mapping[str, str], config: Mapping[str, Any], where: str
) -> Rendered:
    """Renders a caption as Snakemake's report does: first as a template, then as a text.

    Arguments:
        text: The caption, reStructuredText in which Jinja's expressions may speak of
            ``snakemake.wildcards`` and ``snakemake.config``.
        wildcards: The names that the first of them holds.
        config: What the other is.
        where: Whose caption it is, for errors.

    Raises:
        DiemError: If an expression cannot be evaluated.
    """
    known = SimpleNamespace(wildcards=SimpleNamespace(**wildcards), config=config)
    # Text, not HTML: what docutils makes of it is escaped.
    template = Environment(undefined=StrictUndefined, autoescape=False)
    try:
        told = template.from_string(text).render(snakemake=known)
    except TemplateError as error:
        raise DiemError(
            f"The caption of {where} cannot be rendered ({error}): its expressions may speak of"
            " snakemake.wildcards and snakemake.config."
        ) from None
    parts = publish_parts(told, writer="html5", settings_overrides=SETTINGS)
    return Rendered(plain(parts["title"]), Markup(parts["body"].strip()))


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_data(self, data: str) -> None:
        self.found.append(data)


def plain(html: str) -> str:
    """Returns the text of some HTML, in one line."""
    parser = _Text()
    parser.feed(html)
    parser.close()
    return " ".join("".join(parser.found).split())
