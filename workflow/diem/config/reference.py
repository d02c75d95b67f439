"""The reference of the configuration, made of the declarations.

``python -m diem.config.reference`` writes the JSON schema that editors read, and the tables of
``config/README.md`` between its marks ``<!-- made of: ... -->`` and ``<!-- end -->``.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from diem.components import Kind
from diem.config import checks, models, paper, sections
from diem.data.sets import DATASETS
from diem.diffusion.covariances import COVARIANCES
from diem.diffusion.samplers import SAMPLERS
from diem.em.augmentations import AUGMENTATIONS
from diem.evaluation.metrics import METRICS
from diem.networks import NETWORKS
from diem.operators import OPERATORS
from diem.paper.methods import METHODS
from diem.report.figures.base import FIGURES

__all__ = ["json_schema", "reference", "tables"]

MODELS: dict[str, type[BaseModel]] = {
    "top level": models.Config,
    "experiment": models.Experiment,
    "run": models.Run,
    "observations": models.Simulated,
    "schedule": sections.Schedule,
    "gaussian": sections.Gaussian,
    "e_step": sections.EStep,
    "m_step": sections.MStep,
    "engine": sections.Engine,
    "evaluation": sections.Evaluation,
    "heuristics": paper.Heuristics,
    "coil": paper.Coil,
    "restoration": paper.Restoration,
    "posterior": models.Posterior,
}
"""The sections of the reference, by the name in their mark."""

KINDS: dict[str, Kind] = {
    "data": DATASETS,
    "operators": OPERATORS,
    "networks": NETWORKS,
    "samplers": SAMPLERS,
    "methods": METHODS,
    "covariances": COVARIANCES,
    "augmentations": AUGMENTATIONS,
    "metrics": METRICS,
    "figures": FIGURES,
}
"""The kinds of components, by the name in their mark."""


def json_schema() -> dict[str, Any]:
    """Returns the JSON schema of the configuration."""
    schema = models.Config.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def tables() -> dict[str, str]:
    """Returns the tables of the reference, in Markdown, by the name in their mark."""
    return {name: _table_of_model(model) for name, model in MODELS.items()} | {
        name: _table_of_kind(kind) for name, kind in KINDS.items()
    }


def reference(text: str) -> str:
    """Returns the reference with its tables made anew.

    Arguments:
        text: The reference as it is, with marks where tables go.

    Raises:
        KeyError: If a mark names no table.
    """
    filled = tables()

    def replaced(mark: re.Match) -> str:
        return f"<!-- made of: {mark[1]} -->\n{filled[mark[1]]}\n<!-- end -->"

    return re.sub(r"<!-- made of: (.*?) -->\n.*?<!-- end -->", replaced, text, flags=re.DOTALL)


def _table_of_model(model: type[BaseModel]) -> str:
    rows: list[tuple[str, ...]] = [
        (f"`{key}`", *_described(field)) for key, field in _own_fields(model).items()
    ]
    return _markdown(("key", "meaning", "default", "paper"), rows)


def _own_fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Returns the fields of a model, without those of the engine, which have their own table."""
    engine = sections.Engine.model_fields if model is not sections.Engine else {}
    return {key: field for key, field in model.model_fields.items() if key not in engine}


def _table_of_kind(kind: Kind) -> str:
    rows: list[tuple[str, ...]] = []
    for name, component in kind.all().items():
        declared = getattr(component, "options", None)
        fields = dict((declared() if declared else component).model_fields)
        # The one option of an augmentation is its value, which stands beside the name.
        value = _described(fields.pop("value")) if "value" in fields else ("", "", "")
        meaning = " ".join(filter(None, [_first_paragraph(component), value[0], _needs(component)]))
        rows.append((f"`{name}`", "", meaning, *value[1:]))
        rows += [("", f"`{key}`", *_described(field)) for key, field in fields.items()]
    return _markdown(("name", "key", "meaning", "default", "paper"), rows)


def _needs(component: type) -> str:
    """Returns what a metric needs of the data, in a sentence."""
    needs = [checks.NEEDS[fact] for fact in checks.NEEDS if fact in getattr(component, "needs", ())]
    return f"Needs {' and '.join(needs)}." if needs else ""


def _first_paragraph(component: type) -> str:
    text = (component.__doc__ or "").strip().split("\n\n")[0]
    return " ".join(re.sub(r":[a-z]+:`~?([^`]*)`", r"`\1`", text).replace("``", "`").split())


def _described(field: FieldInfo) -> tuple[str, str, str]:
    """Returns the meaning, the default and the paper's value of an option."""
    extra = field.json_schema_extra
    published = extra.get("paper", "") if isinstance(extra, dict) else ""
    return field.description or "", _default(field), str(published)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value in ({}, PydanticUndefined):
        return ""
    if isinstance(value, dict):
        return "the paper's" if len(value) > 3 else f"`{_flow(value)}`"
    return f"`{_flow(value)}`"


def _flow(value: Any) -> str:
    """Returns a value as YAML writes it on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(child)}" for key, child in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return value if isinstance(value, str) else json.dumps(value)


def _markdown(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Returns a table without the columns that hold nothing."""
    used = [i for i in range(len(header)) if any(row[i] for row in rows)]
    lines = [[header[i] for i in used], ["---"] * len(used)]
    lines += [[row[i].replace("|", r"\|") for i in used] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(folder: Path) -> None:
    """Writes the reference and the schema to the folder of configurations."""
    readme, schema = folder / "README.md", folder / "schema.json"
    readme.write_text(reference(readme.read_text(encoding="utf-8")), encoding="utf-8")
    schema.write_text(json.dumps(json_schema(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "config"))
