"""What a field of a configuration may hold, in words: its type and its range."""

import types
from typing import Any, Literal, Union, get_args, get_origin

from imaging_core.fields import levels_of

BOUNDS = (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))


def rule_of(config_type: type, name: str) -> tuple[str, str]:
    """The field's type ("int", "level", "level or str") and what is allowed ("≥ 0, < 1", levels).

    Raises:
        KeyError: no such field.
    """
    info = config_type.__pydantic_fields__[name]
    options: tuple[Any, ...] = (info.annotation,)
    if get_origin(info.annotation) in (Union, types.UnionType):
        options = get_args(info.annotation)
    kinds = ["level" if get_origin(o) is Literal else o.__name__ for o in options]
    bounds = [
        f"{sign} {getattr(rule, bound):g}"
        for bound, sign in BOUNDS
        for rule in info.metadata
        if getattr(rule, bound, None) is not None
    ]
    levels = levels_of(config_type, name) or ()
    return " or ".join(kinds), ", ".join([*map(str, levels), *bounds])
