"""The reference of the configuration, which is made of the declarations."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from diem.config import models, reference

CONFIG = Path(__file__).parents[2] / "config"


def test_the_reference_and_the_schema_are_those_of_the_declarations():
    text = (CONFIG / "README.md").read_text(encoding="utf-8")
    schema = json.loads((CONFIG / "schema.json").read_text(encoding="utf-8"))
    assert reference.reference(text) == text, "make reference"
    assert reference.json_schema() == schema, "make reference"


def test_every_section_and_every_component_stands_in_the_reference():
    text = (CONFIG / "README.md").read_text(encoding="utf-8")
    for name in reference.tables():
        if name != "run":
            assert f"<!-- made of: {name} -->" in text
    for kind in reference.KINDS.values():
        for name in kind.names:
            assert f"| `{name}` |" in text


def test_every_option_says_what_it_means():
    for name, model in reference.MODELS.items():
        for key, field in model.model_fields.items():
            assert field.description, (name, key)
    for name, kind in reference.KINDS.items():
        for component in kind.all().values():
            declared = getattr(component, "options", None)
            for key, field in (declared() if declared else component).model_fields.items():
                assert field.description, (name, component, key)


@pytest.mark.parametrize("name", ["config.yaml", "hour.yaml", "paper.yaml"])
def test_the_schema_for_editors_takes_our_configurations(name):
    schema = json.loads((CONFIG / "schema.json").read_text(encoding="utf-8"))
    config = yaml.safe_load((CONFIG / name).read_text(encoding="utf-8"))
    jsonschema.validate(config, schema)


def test_the_schema_for_editors_refuses_what_resolve_refuses():
    schema = json.loads((CONFIG / "schema.json").read_text(encoding="utf-8"))
    config = yaml.safe_load((CONFIG / "config.yaml").read_text(encoding="utf-8"))
    config["experiments"]["digits"]["m_step"]["step"] = 3
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config, schema)


def test_the_top_level_has_a_table():
    assert set(models.Config.model_fields) <= {
        line.split("`")[1] for line in reference.tables()["top level"].splitlines()[2:]
    }
