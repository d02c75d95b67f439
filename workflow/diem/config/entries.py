"""Keys of the configuration that name components: how pydantic checks and fills them.

A component's own error is told with the place of the key, for which its sentence has ``{place}``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from diem.components import PATH, Kind, check_path, short
from diem.errors import DiemError

__all__ = ["Changes", "Entry", "Names", "Values"]

PLACE = "{place}"


def _collected(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Returns a check whose errors are those that pydantic collects."""

    def checked(value: Any) -> Any:
        try:
            return check(value)
        except DiemError as error:
            raise ValueError(str(error).removesuffix(".")) from None

    return checked


def _is_mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DiemError(f"{PLACE} is {short(value)}, where a value of type object is needed.")
    return value


@dataclass(frozen=True)
class _Checked:
    """What the annotations of this module share."""

    kind: Kind

    def check(self, value: Any) -> Any:
        """Returns the value as it stands in the resolved configuration."""
        raise NotImplementedError

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(_collected(self.check))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return self.json_schema()

    def json_schema(self) -> dict[str, Any]:
        """Returns the JSON schema, for editors."""
        raise NotImplementedError


IMPORT_PATH = {"type": "string", "pattern": f"^{PATH}$"}
"""The JSON schema of an import path."""


@dataclass(frozen=True)
class Entry(_Checked):
    """A component with its options: ``{name: ..., option: ...}``, or its name alone.

    Arguments:
        kind: The kind.
        default: The component of an entry without a name.
    """

    default: str | None = None

    def check(self, value: Any) -> dict[str, Any]:
        if self.default and isinstance(value, dict) and not {"name", "class"} & value.keys():
            value = {"name": self.default, **value}
        return self.kind.entry(value, PLACE)

    def json_schema(self) -> dict[str, Any]:
        choices: list[dict[str, Any]] = []
        for name, component in self.kind.all().items():
            model: type[BaseModel] = getattr(component, "Options", component)
            schema = model.model_json_schema()
            schema["properties"] = {"name": {"const": name}, **schema.get("properties", {})}
            if name != self.default:
                schema["required"] = ["name", *schema.get("required", [])]
            choices.append(schema)
        own = {"type": "object", "properties": {"name": IMPORT_PATH, "class": IMPORT_PATH}}
        return {"anyOf": [{"enum": self.kind.names}, IMPORT_PATH, *choices, own]}


@dataclass(frozen=True)
class Names(_Checked):
    """The name of a component, or a list of names or entries.

    Arguments:
        kind: The kind.
        many: Whether it is a list.
        load: Whether a user's own component is imported and checked; one that lies in a user's file
            may need what only a job knows.
    """

    many: bool = False
    load: bool = True

    def check(self, value: Any) -> Any:
        if self.many:
            if not isinstance(value, list):
                raise DiemError(
                    f"{PLACE} is {short(value)}, where a value of type array is needed."
                )
            names = [spec.get("name") if isinstance(spec, dict) else spec for spec in value]
            if len({*map(str, names)}) < len(value):
                raise DiemError(
                    f"{PLACE} is {short(value)}, and must be a list without repetitions."
                )
        for number, spec in enumerate(value if self.many else [value]):
            self._check_one(spec, f"{PLACE}.{number}" if self.many else PLACE)
        return value

    def _check_one(self, spec: Any, where: str) -> None:
        if isinstance(spec, str):
            if self.load or ":" not in spec:
                self.kind.find(spec, where)
            else:
                check_path(spec, where)
        elif self.many and isinstance(spec, dict):
            self.kind.entry(spec, where)
        else:
            raise DiemError(f"{where} is {short(spec)}, where a value of type string is needed.")

    def json_schema(self) -> dict[str, Any]:
        choices: list[dict[str, Any]] = [{"enum": self.kind.names}, IMPORT_PATH]
        if not self.many:
            return {"anyOf": choices}
        entry = {"type": "object", "required": ["name"]}
        return {"type": "array", "uniqueItems": True, "items": {"anyOf": [*choices, entry]}}


@dataclass(frozen=True)
class Values(_Checked):
    """Components that have one option, by name: ``{name: value}``."""

    def check(self, value: Any) -> dict[str, Any]:
        checked = {}
        for name, option in _is_mapping(value).items():
            where = f"{PLACE}.{name}"
            try:
                component = self.kind.find(name, where)
            except DiemError as error:
                raise DiemError(str(error).replace(f"is {short(name)}, which is", "is")) from None
            checked[name] = component.of(option, where).model_dump()["value"]
        return checked

    def json_schema(self) -> dict[str, Any]:
        properties = {}
        for name, component in self.kind.all().items():
            properties[name] = component.model_json_schema()["properties"]["value"]
        return {"type": "object", "properties": properties}


@dataclass(frozen=True)
class Changes(_Checked):
    """A part of a component's entry, which changes another entry key by key."""

    def check(self, value: Any) -> dict[str, Any]:
        return self.kind.changes(_is_mapping(value), PLACE)

    def json_schema(self) -> dict[str, Any]:
        properties: dict[str, Any] = {"name": {"enum": self.kind.names}}
        for component in self.kind.all().values():
            properties |= component.model_json_schema().get("properties", {})
        return {"type": "object", "properties": properties}
