"""A component is one declaration, beside its code, that everything else reads.

A component is a class. Its fields are its options, each with type, default, bounds, meaning and the
paper's value, see :func:`option`; its class attributes are the facts that others need. An instance
is a component with its options chosen: an entry of the configuration.

The components of one :class:`Kind` lie in one package, a file each, and the file's name is the
component's: to add one is to add a file. A component of the user's own is the same class in a
module of theirs, named by its import path, ``module:Class``.
"""

import copy
import importlib
import inspect
import math
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ClassVar,
    Generic,
    Literal,
    Self,
    TypeVar,
    get_type_hints,
)

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    create_model,
    model_serializer,
)

from diem.errors import DiemError, nearest
from diem.sentences import short, tell

__all__ = [
    "KINDS",
    "NOISE",
    "SEARCH_PATH",
    "Component",
    "Count",
    "Even",
    "Fraction",
    "Integer",
    "Kind",
    "Model",
    "Noise",
    "Number",
    "Positive",
    "Seed",
    "check_path",
    "import_named",
    "merge",
    "option",
    "options_of",
    "own_folders",
    "short",
    "tell",
    "validated",
]

SEARCH_PATH = "DIEM_PATH"
"""The environment variable of the folders where users' modules are looked for, after Python's."""


PATH = r"[A-Za-z_][A-Za-z0-9_]*([.][A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*"
"""What an import path looks like."""


def _whole(value: Any) -> Any:
    # YAML's 4.0 is an integer to its writer.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _finite(value: Any) -> Any:
    # YAML 1.1 reads 1e-3, without a point, as text.
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+([.]\d*)?[eE][-+]?\d+", value):
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{{place}} is {value}, which is not a finite number")
    return value


Integer = Annotated[int, BeforeValidator(_whole)]
Count = Annotated[Integer, Field(ge=1)]
Seed = Annotated[Integer, Field(ge=0, lt=2**63)]
Even = Annotated[Integer, Field(ge=2, multiple_of=2)]
Number = Annotated[float, BeforeValidator(_finite)]
Positive = Annotated[Number, Field(gt=0)]
NOISE = (1e-18, 1e18)
"""The least and the largest ``sigma_y``: its square is computed with in single precision."""
Noise = Annotated[Number, Field(ge=NOISE[0], le=NOISE[1])]
Fraction = Annotated[Number, Field(gt=0, lt=1)]


class Model(BaseModel):
    """Options with their types: unknown keys are refused, and nothing is converted silently."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, validate_default=True, protected_namespaces=()
    )

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out the options that are not there unless they are given."""
        values = handler(self)
        for key, field in type(self).model_fields.items():
            told = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
            given = told.get("nullable") and key in self.model_fields_set
            if told.get("absent") and values.get(key) is None and not given:
                values.pop(key, None)
        return values


def option(
    default: Any = ...,
    meaning: str = "",
    *,
    paper: str | None = None,
    absent: bool = False,
    nullable: bool = False,
    **bounds: Any,
) -> Any:
    """Declares an option of a component or a section of the configuration.

    Arguments:
        default: Its default, or none if it must be given.
        meaning: What it means, one line of the reference of the configuration (Markdown).
        paper: The paper's value, as text, where the experiments of the paper differ or it is not
            the default.
        absent: Whether the key is left out of an entry, rather than null, unless it is given.
        nullable: Whether null is then another value than none, and stays if it is given.
        bounds: Bounds that pydantic knows: ``ge``, ``gt``, ``le``, ``lt``, ``min_length``, ...
    """
    extra: dict[str, Any] = {} if paper is None else {"paper": paper}
    if absent:
        extra |= {"absent": True, "nullable": nullable}
    if isinstance(default, (list, dict)):
        # A default is no one's to change.
        value = default
        return Field(
            default_factory=lambda: value.copy(),
            description=meaning,
            json_schema_extra=extra,
            **bounds,
        )
    return Field(default, description=meaning, json_schema_extra=extra, **bounds)


class Component(Model):
    """What every component is.

    Attributes:
        name: The component's name, which is its file's.
    """

    name: ClassVar[str]

    @classmethod
    def parse(cls, options: Mapping[str, Any], where: str) -> Self:
        """Builds the component with its options.

        Arguments:
            options: The options, which need not be complete.
            where: The place of the component's entry in the configuration, for errors.

        Raises:
            DiemError: If an option is unknown, missing, or has a bad value.
        """
        return validated(cls, options, where)


M = TypeVar("M", bound=Model)


def validated(model: type[M], options: Mapping[str, Any], where: str) -> M:
    """Returns a model of some options.

    Arguments:
        model: The model.
        options: The options, which need not be complete.
        where: Their place in the configuration, for errors.

    Raises:
        DiemError: If an option is unknown, missing, or has a bad value; one sentence.
    """
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        raise DiemError(f"{tell(error, model, where, options)}.") from None


def options_of(function: Callable[..., Any], skip: int = 0) -> type[Model]:
    """Returns a model of the keywords of a function, for a component that declares no options.

    Arguments:
        function: The function. A keyword without annotation takes any value; further keywords are
            refused, unless it takes any.
        skip: How many positional parameters are no options; without it, only keyword-only
            parameters are.
    """
    fields: dict[str, Any] = {}
    extra: Literal["allow", "forbid"] = "forbid"
    parameters = list(inspect.signature(function).parameters.values())
    hints = get_type_hints(function, include_extras=True)
    for number, parameter in enumerate(parameters):
        if parameter.kind == parameter.VAR_KEYWORD:
            extra = "allow"
        keyword = parameter.kind == parameter.KEYWORD_ONLY
        positional = parameter.kind == parameter.POSITIONAL_OR_KEYWORD and number >= skip > 0
        if keyword or positional:
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[parameter.name] = (hints.get(parameter.name, Any), default)
    config = ConfigDict(extra=extra, frozen=True, arbitrary_types_allowed=True)
    return create_model("Options", __config__=config, **fields)


C = TypeVar("C", bound=Component)


KINDS: list["Kind"] = []
"""Every kind whose package was imported."""


class Kind(Generic[C]):
    """The components of one kind: those of a package, and the user's own.

    Arguments:
        key: The key of the configuration that names them, and the noun of sentences about them.
        package: The package whose files they are, one a file.
        base: The class that they extend.
        besides: Files of the package that are no components.
    """

    facts: ClassVar[tuple[str, ...]] = ()
    """The class attributes that a user's own component has to define."""

    def __init__(self, key: str, package: str, base: type[C], besides: Iterable[str] = ()) -> None:
        self.key, self.package, self.base, self.besides = key, package, base, {*besides}
        self._found: dict[str, type[C]] = {}
        KINDS.append(self)

    @property
    def names(self) -> list[str]:
        """The names of the built-in components."""
        folder = importlib.import_module(self.package).__path__
        found = (module.name for module in pkgutil.iter_modules(folder))
        return sorted(name for name in found if name not in self.besides and name[0] != "_")

    def find(self, name: str, where: str = "") -> type[C]:
        """Returns a component's class.

        Arguments:
            name: The name of a built-in component, or ``module:Class``, which is imported.
            where: The place of its name in the configuration, for errors.

        Raises:
            DiemError: If there is no such component, or its module cannot be imported.
        """
        where = where or f"{self.key}.name"
        if not isinstance(name, str):
            raise DiemError(f"{where} is {short(name)}, where a value of type string is needed.")
        if ":" in name:
            check_path(name, where)
            return self.accepted(import_named(name, self.key), name)
        if name in self._found:
            return self._found[name]
        if name not in self.names:
            raise DiemError(
                f"{where} is {short(name)}, which is unknown{nearest(name, self.names)}."
            )
        self._found[name] = self._of(importlib.import_module(f"{self.package}.{name}"), name)
        return self._found[name]

    def _of(self, module: Any, name: str) -> type[C]:
        for value in vars(module).values():
            if (
                isinstance(value, type)
                and issubclass(value, self.base)
                and vars(value).get("name") == name
            ):
                return value
        raise TypeError(f"{module.__name__} declares no {self.base.__name__} of name {name!r}")

    def accepted(self, found: Any, name: str) -> type[C]:
        """Returns what an import path names, if it is a component of this kind.

        A kind that takes other classes too, such as PyTorch's modules, makes components of them
        here.

        Raises:
            DiemError: If it is none, or is not complete.
        """
        if not (isinstance(found, type) and issubclass(found, self.base)):
            base = f"{self.base.__module__}.{self.base.__qualname__}"
            raise DiemError(f"{self.key} {name!r} is no subclass of {base}.")
        missing = sorted(getattr(found, "__abstractmethods__", ()))
        missing = missing or [fact for fact in self.facts if not hasattr(found, fact)]
        if missing:
            raise DiemError(f"{self.key} {name!r} does not define {', '.join(missing)}.")
        return found

    def all(self) -> dict[str, type[C]]:
        """Returns every built-in component by its name."""
        return {name: self.find(name) for name in self.names}

    def parse(self, spec: str | Mapping[str, Any], where: str = "") -> C:
        """Builds a component from its entry in the configuration.

        Arguments:
            spec: Its name, or a mapping of ``name`` and options.
            where: The place of the entry in the configuration, for errors.

        Raises:
            DiemError: If the component or an option is unknown, or a value is bad.
        """
        where = where or self.key
        name, options = split(spec, where)
        named = where if isinstance(spec, str) else f"{where}.name"
        return self.find(name, named).parse(options, where)

    def entry(self, spec: str | Mapping[str, Any], where: str = "") -> dict[str, Any]:
        """Returns an entry of the configuration with every default, after checking it."""
        name, _ = split(spec, where or self.key)
        return {"name": name, **self.parse(spec, where).model_dump()}

    def changes(self, spec: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Returns a part of an entry, which changes another entry key by key, after checking it.

        Without a ``name``, a key is one of any component of this kind.

        Raises:
            DiemError: If a key is unknown, or a value is bad.
        """
        spec = dict(spec)
        name = spec.get("name")
        known = self.all().values() if name is None else [self.find(name, f"{where}.name")]
        checked = {}
        for key, value in spec.items():
            if key == "name":
                checked[key] = value
                continue
            takers = [component for component in known if key in component.model_fields]
            if not takers:
                keys = {field for component in known for field in component.model_fields}
                raise DiemError(f"{where}.{short(key)[1:-1]} is unknown{nearest(key, keys)}.")
            checked[key] = takers[0].parse({key: value}, where).model_dump()[key]
        return checked


def split(spec: str | Mapping[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    """Returns the name and the options of a component's entry.

    ``name`` alone, ``{name: ..., option: ...}`` and ``{class: module:Class, option: ...}`` will do.

    Raises:
        DiemError: If there is no name.
    """
    if isinstance(spec, str):
        return spec, {}
    if not isinstance(spec, Mapping):
        raise DiemError(f"{where} is {short(spec)}, where a value of type object is needed.")
    options = dict(spec)
    name = options.pop("name", None) or options.pop("class", None)
    if name is None:
        raise DiemError(f"{where} lacks the key 'name'.")
    if not isinstance(name, str):
        raise DiemError(f"{where}.name is {short(name)}, where a value of type string is needed.")
    return name, options


def check_path(name: str, where: str) -> None:
    """Raises a :class:`DiemError` if a name is no import path, ``module:Class``."""
    if not re.fullmatch(PATH, name):
        raise DiemError(f"{where} is {short(name)}, and must be a name like module:Class.")


def own_folders() -> list[str]:
    """Returns where code of the user's own is looked for, after the folders that Python looks in.

    These are the folders of the environment variable :data:`SEARCH_PATH`, then the working folder.
    """
    return [*filter(None, os.environ.get(SEARCH_PATH, "").split(os.pathsep)), str(Path.cwd())]


def import_named(name: str, noun: str) -> Any:
    """Imports what ``module:Name`` names, from Python's folders or those of :func:`own_folders`.

    Arguments:
        name: The import path.
        noun: What it should be, for errors.

    Raises:
        DiemError: If the module cannot be imported, or lacks the name.
    """
    module, _, attribute = name.partition(":")
    folders = own_folders()
    if module.partition(".")[0] in sys.stdlib_module_names:
        raise DiemError(
            f"{noun} {name!r}: Python has a module {module.partition('.')[0]!r} of its own: give"
            " your file another name."
        )
    before = list(sys.path)
    sys.path += folders
    try:
        return getattr(importlib.import_module(module), attribute, None)
    except (Exception, SystemExit) as error:  # whatever a user's module raises, or ends with
        known = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        if known:
            reason = f"there is no module {module!r} in PYTHONPATH, {', '.join(folders)}"
        raise DiemError(f"{noun} {name!r} cannot be imported ({reason}).") from None
    finally:
        sys.path[:] = before


def merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """Returns ``base`` with the keys of ``override``, mapping by mapping."""
    merged = copy.deepcopy(dict(base))
    for key, value in override.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged
