"""Presets on data that they were not made for, and what a plan says of the data."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from imaging_core.datasets import ImageDataset
from imaging_core.task import Task
from sweeps.engine.study import Arm, Request, Study


def typed_fields(request: Request) -> frozenset[str]:
    """The fields that the user typed behind --set, or in the file of --config."""
    typed = (text.partition("=")[0].strip() for text in request.settings)
    return frozenset(typed) | {name for name, _ in request.of_file}


def fit_arms(
    task: Task,
    arms: Sequence[Arm],
    data: Mapping[str, ImageDataset],
    typed: Collection[str],
    fields: Mapping[str, Collection[str]],
) -> tuple[list[Arm], list[str]]:
    """The arms with the preset's values lowered to what the data offers, and a line on each change.

    What the user typed stays, and is refused by the task's check. A level of the study that the
    data cannot serve (and that nobody typed) is left out.

    Args:
        task: of the study.
        arms: in plan order.
        data: "name:path" → the dataset.
        typed: fields that the user typed.
        fields: arm label → fields that make the arm what it is, besides its levels.
    """
    if task.fit is None:
        return list(arms), []
    found, notes = [], []
    for arm in arms:
        own = fields.get(arm.label, ())
        changes = task.fit(arm.config, data[arm.data], typed)
        if left_out := [name for name in changes if name in arm.levels or name in own]:
            notes += [
                f"left out: {name}={getattr(arm.config, name)}, {arm.data} has room for "
                f"{changes[name]}"
                for name in left_out
            ]
            continue
        notes += [
            f"{name} is {value} (preset: {getattr(arm.config, name)}), as {arm.data} has no room "
            "for more; --set decides otherwise"
            for name, value in changes.items()
        ]
        found.append(replace(arm, config=replace(arm.config, **changes)) if changes else arm)
    return found, notes


def with_levels_of(study: Study, arms: Sequence[Arm]) -> Study:
    """The study with the levels that `arms` have; its baseline is one of them."""
    factors = {
        name: tuple(level for level in levels if any(arm.levels[name] == level for arm in arms))
        for name, levels in study.factors.items()
    }
    baseline = {
        name: level if level in factors[name] or not factors[name] else factors[name][-1]
        for name, level in study.baseline.items()
    }
    return replace(study, factors=factors, baseline=baseline)


def described(text: str, data: ImageDataset) -> list[str]:
    """What the data is: classes, images per class and part, groups per part, and its notes."""
    lines = [f"data {text}: classes {', '.join(data.classes)}"]
    for name in ("train", "validation", "test"):
        part = getattr(data, name)
        sizes = ", ".join(
            f"{label} {part.class_sizes.get(index, 0)}" for index, label in enumerate(data.classes)
        )
        groups = len(set(part.groups.tolist()))
        lines.append(f"  {name}: {len(part)} images ({sizes}) of {groups} groups")
    return [*lines, *(f"  {note}" for note in data.notes)]
