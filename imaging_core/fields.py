"""How a core's configuration says where each default comes from, and how it refuses bad values.

A configuration is one frozen, keyword-only pydantic dataclass per core. Every field is declared
with `paper(...)` (the value is printed in the paper, at the place named) or `ours(...)` (the paper
is silent or unsound, for the reason given). This file imports no torch.
"""

import copy
import dataclasses
import difflib
import operator
import types
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pydantic
from pydantic import Field


def paper(default: Any, where: str, **constraints: Any) -> Any:
    """A field whose default is the paper's, `where` naming the section or equation."""
    return Field(default, json_schema_extra={"source": "paper", "where": where}, **constraints)


def ours(default: Any, why: str, **constraints: Any) -> Any:
    """A field whose default is ours: the paper omits it, or `why` says what is wrong with it."""
    return Field(default, json_schema_extra={"source": "ours", "where": why}, **constraints)


class ConfigError(ValueError):
    """Bad input, found before any work: the message gives the rule, the value and the remedy."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`'; did you mean "x"?'` for the nearest spelling among `known`, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""


@cache
def field_names(config_type: type) -> tuple[str, ...]:
    """The fields of a configuration class, in the order of declaration."""
    return tuple(field.name for field in dataclasses.fields(config_type))


def levels_of(config_type: type, name: str) -> tuple[Any, ...] | None:
    """The allowed values of a `Literal` field, or None where the field is a range or free."""
    annotation = next(field.type for field in dataclasses.fields(config_type) if field.name == name)
    options = [annotation]
    if get_origin(annotation) in (Union, types.UnionType):
        options = list(get_args(annotation))
    values = [v for option in options if get_origin(option) is Literal for v in get_args(option)]
    return tuple(values) or None


def build(config_type: type, values: Mapping[str, Any]) -> Any:
    """`config_type(**values)`, with strings read as the field's type.

    Raises:
        ConfigError: an unknown field, a value that is no level, or one out of range; the message
            names the field, the value, what is allowed and the nearest spelling.
    """
    known = field_names(config_type)
    for name in values:
        if name not in config_type.__dataclass_fields__:
            raise ConfigError(
                f'unknown field "{name}"{did_you_mean(name, known)} '
                f"(fields of {config_type.__name__}: {', '.join(known)})"
            )
    try:
        return config_type(**values)
    except pydantic.ValidationError as error:
        raise ConfigError("; ".join(_explain(config_type, e) for e in error.errors())) from None


def rebuilt(config_type: type, values: Mapping[str, Any]) -> Any:
    """The configuration of an instance that was built once, from its `as_dict`: nothing is checked
    again, and files that it names need not be here.

    Raises:
        ConfigError: other fields than the class has.
    """
    known = field_names(config_type)
    if set(values) != set(known):
        odd = ", ".join(sorted(set(values) ^ set(known)))
        raise ConfigError(
            f"a configuration must have the fields of {config_type.__name__}, it differs in {odd}; "
            "use the code that wrote it"
        )
    config = object.__new__(config_type)
    for name in known:
        object.__setattr__(config, name, values[name])
    return config


class Builder:
    """`build` of many configurations of one class, most of them like the one before in all but one
    field.

    That field is then validated alone, and the whole by the class's own rules. What is refused is
    built again in full, so that the message is `build`'s.
    """

    def __init__(self, config_type: type) -> None:
        self._type = config_type
        self._values: Mapping[str, Any] = {}
        self._config: Any = None

    def __call__(self, values: Mapping[str, Any]) -> Any:
        """`build(config_type, values)`; no value may change later.

        Raises:
            ConfigError: as `build`.
        """
        self._config = self._in_one_field(values) or build(self._type, values)
        self._values = values
        return self._config

    def _in_one_field(self, values: Mapping[str, Any]) -> Any:
        """The configuration before with its one other value, or None."""
        before = self._values
        if values.keys() != before.keys():
            return None
        changed = [name for name, value in values.items() if value is not before[name]]
        if len(changed) != 1:
            return None
        (name,) = changed
        try:
            return self._type.__pydantic_validator__.validate_assignment(
                copy.copy(self._config), name, values[name]
            )
        except pydantic.ValidationError:
            return None


def as_typed(config_type: type, name: str, value: Any) -> Any:
    """`value` as the field `name` has it ("4" → 4), whatever the other fields are.

    Raises:
        ConfigError: as `build`, of this field alone.
    """
    try:
        return getattr(config_type(**{name: value}), name)
    except pydantic.ValidationError as error:
        own = [e for e in error.errors() if e["loc"][:1] == (name,)]
        if own:
            raise ConfigError("; ".join(_explain(config_type, e) for e in own)) from None
    # It fits the field, and not the defaults of others: as its type has it.
    field = config_type.__pydantic_fields__[name]
    rule = Annotated[field.annotation, "", *field.metadata]  # at least one; "" says nothing
    return pydantic.TypeAdapter(rule).validate_python(value)


def _explain(config_type: type, error: Mapping[str, Any]) -> str:
    name, value = str(error["loc"][0]) if error["loc"] else "", error.get("input")
    levels = levels_of(config_type, name) if name in field_names(config_type) else None
    if levels and error["type"] in ("literal_error", "int_parsing", "none_required"):
        allowed = ", ".join(str(level) for level in levels)
        hint = did_you_mean(str(value), [str(level) for level in levels])
        return f'{name} must be one of {allowed}, got "{value}"{hint}'
    rule = error["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    return f"{name}: {rule}, got {value!r}" if name else rule


def as_dict(config: Any) -> dict[str, Any]:
    """The configuration as JSON-ready values, in the order of declaration."""
    return some_of(config, field_names(type(config)))


def some_of(config: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """The fields `names` of the configuration, in that order."""
    return dict(zip(names, values_of(config, names), strict=True))


def values_of(config: Any, names: tuple[str, ...]) -> tuple[Any, ...]:
    """What the fields `names` hold."""
    return _reader(names)(config)


@cache
def _reader(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    read = operator.attrgetter(*names)
    return read if len(names) > 1 else lambda config: (read(config),)


def sources(config_type: type) -> dict[str, tuple[str, str]]:
    """Field name → (`paper` | `ours`, where or why): the provenance of every default."""
    infos = config_type.__pydantic_fields__
    return {
        name: (extra["source"], extra["where"])
        for name, info in infos.items()
        if (extra := info.json_schema_extra)
    }
