"""YAML that a person writes: the file of `--config`, and a study that is declared without Python.

    preset: demo                  study: my_study           (the file of `sweeps/declared.py`)
    data: phantom-xray            question: Does it help?
    seeds: [0, 1, 2]              core: apga_core
    factors:                      factors: {method: [baseline, apga]}
      method: [baseline, apga]    baseline: {method: baseline}
    fields:                       data: phantom-xray
      batch_size: 25              fixed: {batch_size: 25}

Whatever is wrong is refused by rule, value and remedy; nothing in a file is code.
"""

from collections.abc import Iterable
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

from imaging_core import places
from imaging_core.fields import ConfigError, did_you_mean, field_names, levels_of
from sweeps.engine.study import DATA, NO_FIELDS, SETTING, Request, Study

KEYS = ("study", "preset", "data", "protocol", "seeds", "factors", "fields")
"""What the file of `--config` may hold."""
CORES = ("apga_core", "selection_core")


def read_yaml(text: str, option: str) -> tuple[Path, dict[str, Any]]:
    """The mapping in the YAML file `text`, and the file's whole path.

    Args:
        text: a path as typed.
        option: what the user calls it, for the message.

    Raises:
        ConfigError: no file that can be read, no YAML, no mapping, or a key twice.
    """
    import yaml

    path = places.absolute(text, option)
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise ConfigError(
            f"{option} must be a YAML file that can be read, got {path} ({why})"
        ) from None

    class Loader(yaml.SafeLoader):
        """Refuses a key that comes twice, of which YAML would take the last."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
            seen: set[Any] = set()
            for key, _ in node.value:
                name = self.construct_object(key, deep=True)
                if not isinstance(name, str):
                    raise ConfigError(
                        f"{path}: keys must be words, got {name!r} in line "
                        f"{key.start_mark.line + 1}; put it in quotes"
                    )
                if name in seen:
                    raise ConfigError(
                        f'{path}: a key must come once, "{name}" comes again in line '
                        f"{key.start_mark.line + 1}"
                    )
                seen.add(name)
            return super().construct_mapping(node, deep)

    try:
        found = yaml.load(content, Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{path}{where}: it must be YAML: {problem}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path} must hold a mapping (field: value), got {_kind(found)}")
    return path, found


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", type(None): "nothing"}
    return names.get(type(value), f'"{value}"')


def _known(path: Path, found: Iterable[str], allowed: Iterable[str]) -> None:
    allowed = tuple(allowed)
    for name in found:
        if name not in allowed:
            raise ConfigError(
                f'{path}: unknown key "{name}"{did_you_mean(name, allowed)} (known: '
                f"{', '.join(allowed)})"
            )


def _mapping(path: Path, key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: {key} must be a mapping, got {_kind(value)}")
    return value


def _level(path: Path, config: type, name: str, value: Any) -> Any:
    """A value as the field may hold it: YAML reads on and off as true and false."""
    if value is None or isinstance(value, (list, dict)):
        raise ConfigError(f"{path}: {name} must be one value, got {_kind(value)}")
    if name in field_names(config) and isinstance(value, bool):
        levels = levels_of(config, name) or ()
        if "on" in levels or "off" in levels:
            return "on" if value else "off"
    return value


def with_file(request: Request, study: Study, text: str, typed: Iterable[str]) -> Request:
    """`request` with what the file `text` says of everything that was not `typed` after it.

    Args:
        typed: of preset, data, protocol and seeds, those that the command line names: they win, as
            every --set does.

    Raises:
        ConfigError: see `read_yaml`; an unknown key, another study's file, a value of no use.
    """
    path, found = read_yaml(text, "--config")
    _known(path, found, KEYS)
    if found.get("study", study.name) != study.name:
        raise ConfigError(
            f'{path} must be a file of this study ({study.name}), it says "{found["study"]}"; '
            "take its line out to use it here"
        )
    values: dict[str, Any] = {}
    for name in ("preset", "data", "protocol", "seeds"):
        if name in found and name not in typed:
            values[name] = _seeds(path, found[name]) if name == "seeds" else found[name]
            if not isinstance(values[name], str):
                raise ConfigError(f"{path}: {name} must be text, got {_kind(values[name])}")
    config = study.task.config
    of_file = []
    for name, levels in _mapping(path, "factors", found.get("factors", {})).items():
        if name == SETTING and study.bundles:
            levels = _levels(path, name, levels)
            if tuple(levels) != tuple(study.factors[SETTING]):
                raise ConfigError(
                    f"{path}: the levels of setting are the study's own; leave it out"
                )
            continue
        levels = tuple(_level(path, config, name, v) for v in _levels(path, name, levels))
        if name not in study.factors and len(levels) == 1:
            raise ConfigError(
                f"{path}: factors: {name} must have at least two levels where the study does not "
                f"vary it, got {levels[0]}; write it under fields"
            )
        of_file.append((name, levels))
    for name, value in _mapping(path, "fields", found.get("fields", {})).items():
        if name == DATA:
            raise ConfigError(f"{path}: data stands beside fields, not in it")
        of_file.append((name, (_level(path, config, name, value),)))
    return replace(request, **values, of_file=tuple(of_file))


def _levels(path: Path, name: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ConfigError(f"{path}: factors: {name} must be a list of levels, got {_kind(value)}")
    return value


def _seeds(path: Path, value: Any) -> str:
    if isinstance(value, list) and all(type(seed) is int for seed in value) and value:
        return ",".join(map(str, value)) + ("," if len(value) == 1 else "")
    if type(value) in (int, str):
        return str(value)
    raise ConfigError(f"{path}: seeds must be a count or a list of numbers, got {_kind(value)}")


def read_study(text: str) -> Study:
    """The study that the YAML file `text` declares; its keys are the attributes of `Study`.

    Raises:
        ConfigError: see `read_yaml`; an unknown or missing key, or a value of another kind.
    """
    path, found = read_yaml(text, "STUDY.yaml")
    of_study = {field.name: field for field in fields(Study)}
    _known(path, found, of_study)
    needed = [
        name
        for name, field in of_study.items()
        if field.default is MISSING and field.default_factory is MISSING and name != "tables"
    ]
    if missing := [name for name in needed if name not in found]:
        raise ConfigError(f"{path} must say {', '.join(needed)}; missing: {', '.join(missing)}")
    for name in ("name", "question", "core", "data", "objective"):
        if name in found and (not isinstance(found[name], str) or not found[name].strip()):
            raise ConfigError(f"{path}: {name} must be text, got {_kind(found[name])}")
    if not found["name"].replace("_", "").replace("-", "").isalnum():
        raise ConfigError(
            f"{path}: name must be letters, digits, - and _ (it names a folder), got "
            f'"{found["name"]}"'
        )
    _known_core(path, found["core"])
    if type(found.get("seeds", 1)) is not int:
        raise ConfigError(f"{path}: seeds must be a count, got {_kind(found['seeds'])}")
    study = Study(**{**found, "factors": {}, "baseline": {}, "tables": ()})
    config = study.task.config

    def typed(key: str, values: Any) -> dict[str, Any]:
        given = _mapping(path, key, values).items()
        return {name: _level(path, config, name, value) for name, value in given}

    def each(key: str, kind: type) -> Any:
        value = found.get(key, kind())
        if not isinstance(value, kind):
            raise ConfigError(f"{path}: {key} must be {_kind(kind())}, got {_kind(value)}")
        return value

    factors = {
        name: tuple(_level(path, config, name, v) for v in _levels(path, name, levels))
        for name, levels in _mapping(path, "factors", found["factors"]).items()
    }
    for name in factors:
        _known_factor(path, name, config)
    _known(path, _mapping(path, "baseline", found["baseline"]), factors)
    return replace(
        study,
        factors=factors,
        baseline=typed("baseline", found["baseline"]),
        tables=tuple(map(str, each("tables", list))),
        fixed=typed("fixed", found.get("fixed", {})),
        of_preset={k: typed(f"of_preset: {k}", v) for k, v in each("of_preset", dict).items()},
        only=tuple(typed("only", allowed) for allowed in each("only", list)),
        bundles={k: typed(f"bundles: {k}", v) for k, v in each("bundles", dict).items()},
        screening={
            name: tuple(_level(path, config, name, v) for v in _levels(path, name, levels))
            for name, levels in each("screening", dict).items()
        },
    )


def _known_core(path: Path, core: str) -> None:
    from importlib.util import find_spec

    if not core.isidentifier() or find_spec(core) is None:
        near = did_you_mean(core, CORES)
        raise ConfigError(f'{path}: core must be one of {", ".join(CORES)}, got "{core}"{near}')


def _known_factor(path: Path, name: str, config: type) -> None:
    known = (*field_names(config), *NO_FIELDS)
    if name not in known:
        raise ConfigError(
            f'{path}: unknown factor "{name}"{did_you_mean(name, known)} (a factor is a field of '
            "the configuration, data, fold or split_seed)"
        )
