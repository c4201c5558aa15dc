"""Recipes that one worker carries out side by side, their trainings fused (`--fuse K`).

Grouped are the cells of one arm, and the stages of one kind and configuration, that differ in
their seed. A recipe that is grouped with no other still fuses the trainings of its own.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from imaging_core.rendezvous import together
from sweeps.ledger.schema import canonical

if TYPE_CHECKING:
    from cluster.queue import WorkItem

Payload = Mapping[str, Any]
Report = dict[str, Any]


def identity(payload: Payload) -> str:
    """The key of what a recipe computes."""
    return payload["stage"] if payload["kind"] == "stage" else payload["key"]


def members(payload: Payload) -> list[Payload]:
    """The recipes in a payload: several of a group, or the recipe itself."""
    return payload["members"] if payload["kind"] == "group" else [payload]


def _alike(payload: Payload) -> str:
    """What recipes must agree in to be grouped: all but the seed."""
    stage = payload["stage"].rpartition("-")[0] if payload["kind"] == "stage" else ""
    return canonical({"stage": stage, "config": payload["config"], "data": payload["data"]})


def grouped(payloads: Sequence[Payload], fuse: int) -> list[Payload]:
    """The payloads of at most `fuse` recipes each, at the place of their first, of even sizes.

    With `fuse` 1 the recipes themselves.
    """
    if fuse == 1:
        return list(payloads)
    alike: dict[str, list[Payload]] = {}
    for payload in payloads:
        alike.setdefault(_alike(payload), []).append({**payload, "fuse": fuse})
    found: list[Payload] = []
    for recipes in alike.values():
        parts = -(-len(recipes) // fuse)
        for part in range(parts):
            chosen = recipes[part::parts]
            group = {"kind": "group", "fuse": fuse, "members": chosen}
            found.append(group if len(chosen) > 1 else chosen[0])
    return found


def group_items(
    items: Sequence["WorkItem"], fuse: int, renamed: dict[str, str]
) -> list["WorkItem"]:
    """The work items of `grouped` payloads.

    Args:
        renamed: key of a recipe → id of the item that computes it; read for the needs, added to.
    """
    if fuse == 1:
        return list(items)
    of = {item.id: item for item in items}
    made = []
    for payload in grouped([item.payload for item in items], fuse):
        keys = [identity(recipe) for recipe in members(payload)]
        name = keys[0]
        if len(keys) > 1:
            name = f"group-{hashlib.sha256(' '.join(keys).encode()).hexdigest()[:24]}"
        renamed |= dict.fromkeys(keys, name)
        made.append((name, payload, [of[key] for key in keys]))
    return [
        replace(
            parts[0],
            id=name,
            payload=payload,
            needs=tuple(
                dict.fromkeys(renamed.get(need, need) for part in parts for need in part.needs)
            ),
            cost_s=sum(part.cost_s for part in parts),
            deadline_s=parts[0].deadline_s and parts[0].deadline_s * len(parts),
        )
        for name, payload, parts in made
    ]


def reports(payload: Payload, report: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """(key, its own report) for every recipe of a payload; `report` where it has none."""
    own = report.get("members", {})
    for recipe in members(payload):
        key = identity(recipe)
        yield key, own.get(key, report)


def execute_group(
    payload: Payload,
    *,
    attempt: int,
    prepare: Callable[[Payload], Any],
    hold: Callable[[Sequence[Payload]], Any],
    compute: Callable[[Payload], Report],
) -> Report:
    """Carry every recipe of the payload out; a failure is its own.

    Args:
        prepare: makes sure that what a recipe needs is stored, before anything waits for another.
        hold: a context in which nobody else computes the recipes' own stages.
        compute: carries one recipe out.

    Returns:
        The report of the recipe, or for a group `members` with one each (`ok` is false, with the
        error, where it raised), `objectives` of those that did not, and their mean `objective`.

    Raises:
        Exception: what the recipe raised, or the last of a group of which every one raised.
    """
    recipes = members(payload)
    # The last attempt took its worker down: a smaller load may not.
    side_by_side = list(recipes) if attempt == 1 else []
    found: dict[str, Report] = {}
    failed: list[Exception] = []

    def guarded(recipe: Payload) -> None:
        try:
            found[identity(recipe)] = {"ok": True, **compute(recipe)}
        except Exception as error:
            failed.append(error)
            found[identity(recipe)] = {
                "ok": False,
                "error_type": type(error).__name__,
                "error": str(error),
            }

    for recipe in list(side_by_side):
        try:
            prepare(recipe)
        except Exception:  # it will raise again, alone, where the error is recorded as its own
            side_by_side.remove(recipe)
    with hold(side_by_side):
        together([partial(guarded, recipe) for recipe in side_by_side], width=payload["fuse"])
    for recipe in recipes:
        if identity(recipe) not in found:
            guarded(recipe)
    if len(failed) == len(recipes):
        raise failed[-1]
    if payload["kind"] != "group":
        return found[identity(payload)]
    objectives = [r["objective"] for r in found.values() if "objective" in r]
    report: Report = {"members": found, "wall_s": sum(r.get("wall_s", 0) for r in found.values())}
    if objectives:
        report |= {"objectives": objectives, "objective": sum(objectives) / len(objectives)}
    return report
