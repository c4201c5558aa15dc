"""`--show-config`: every field of an arm, its value, and where that comes from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from imaging_core.field_rules import rule_of
from imaging_core.fields import ConfigError, as_dict, as_typed, sources
from sweeps.engine.plan import Plan, make_plan
from sweeps.engine.study import (
    DATA,
    NO_FIELDS,
    SETTING,
    Arm,
    Request,
    Study,
    apply,
    arms_named,
    place_data,
)
from sweeps.exits import OK


@dataclass(frozen=True, kw_only=True)
class FieldLine:
    """One field of one arm.

    Attributes:
        name, value: the field, and what the arm has there.
        source: "paper" and "ours" are the class's own defaults; "preset", "study" (the script
            fixes it), "--config", "--set"; "arm" is a level of the study; "data" had room for no
            more.
        where: the section of the paper, or why it is ours; empty for other sources.
        type, range: what the field may hold.
        meaning: in a line.
    """

    name: str
    value: Any
    source: str
    where: str
    type: str
    range: str
    meaning: str


def field_lines(plan: Plan, arm: Arm) -> list[FieldLine]:
    """Every field of `arm`, in the order of declaration."""
    study, shared = apply(plan.study, plan.request)
    task = study.task
    of_bundle = study.bundles.get(arm.label, {}) if study.bundles else {}
    of_study = {**study.fixed, **study.of_preset.get(plan.request.preset, {})}
    default_of = sources(task.config)
    typed = [text.partition("=")[0].strip() for text in plan.request.settings]
    layers: tuple[tuple[str, Mapping[str, Any] | set[str]], ...] = (
        ("arm", {**{n: v for n, v in arm.levels.items() if n not in NO_FIELDS}, **of_bundle}),
        ("--set", set(typed)),
        ("--config", {name for name, _ in plan.request.of_file}),
        ("study", of_study),
        ("preset", task.presets[plan.request.preset]),
    )
    lines = []
    given = {**as_dict(task.config()), **shared, **layers[0][1]}
    for name, value in as_dict(arm.config).items():
        source = next((which for which, names in layers if name in names), None)
        if as_typed(task.config, name, given[name]) != value:
            source = "data"
        origin, where = default_of[name]
        kind, allowed = rule_of(task.config, name)
        lines.append(
            FieldLine(
                name=name,
                value=value,
                source=source or origin,
                where="" if source else where,
                type=kind,
                range=allowed,
                meaning=task.meanings.get(name, ""),
            )
        )
    return lines


def chosen_arm(plan: Plan, text: str | None) -> Arm:
    """The arm that `--arm` names: levels it has, "method=apga,k_shot=25"; None is the baseline.

    Raises:
        ConfigError: no arm has these levels, or several do.
    """
    if text is None:
        baseline = {name: str(level) for name, level in plan.study.baseline.items()}
        found = [arm for arm in plan.arms if baseline.items() <= arm.text_levels.items()]
        return (found or plan.arms)[0]
    found = arms_named(plan.arms, text, "--arm")
    if len(found) > 1:
        labels = [arm.label for arm in found]
        raise ConfigError(
            f'--arm must name one arm, "{text}" names {len(found)}: {"; ".join(labels[:8])}'
            f"{'; …' if len(labels) > 8 else ''}"
        )
    return found[0]


def configuration_table(plan: Plan, arm: Arm) -> Table:
    """`field_lines` as a table, which 80 columns can hold."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("field", no_wrap=True)
    table.add_column("value", overflow="fold", max_width=24)
    table.add_column("what it is; type and range; where the value is from")
    for line in field_lines(plan, arm):
        values = {str(as_dict(other.config)[line.name]): None for other in plan.arms}
        others = [text for text in values if text != str(line.value)]
        more = f" (arms: {', '.join(others[:3])}{', …' if len(others) > 3 else ''})"
        source = f"{line.source} ({line.where})" if line.where else line.source
        what = (line.meaning, f"{line.type} {line.range}".strip(), f"from {source}")
        table.add_row(
            line.name,
            escape(f"{line.value}{more if others else ''}"),
            escape("; ".join(text for text in what if text)),
        )
    return table


def configuration_yaml(plan: Plan, arm: Arm) -> str:
    """The whole study as the file that `--config` reads, each field with where it comes from.

    What the arms differ in stands under factors; what the data had no room for is left to the data.
    """
    import yaml

    study, shared = apply(plan.study, plan.request)
    lines = field_lines(plan, arm)
    default = as_dict(study.task.config())
    others = plan.arms if plan.notes else ()
    fitted = {
        line.name for each in others for line in field_lines(plan, each) if line.source == "data"
    }

    def one(value: Any) -> str:
        text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
        return text.removesuffix("\n...\n").strip()

    factors = {n: levels for n, levels in study.factors.items() if n != SETTING}
    out = [
        f"# {study.name}, for --config; where a field comes from, arm {arm.label}",
        f"study: {study.name}",
        f"preset: {plan.request.preset}",
        *([] if DATA in factors else [f"data: {one(place_data(plan.request.data or study.data))}"]),
        f"protocol: {plan.request.protocol}",
        f"seeds: {one(list(plan.seeds))}",
    ]
    if factors:
        out.append("factors:")
        out += [f"  {name}: {one(list(levels))}" for name, levels in factors.items()]
    out.append("fields:")
    for line in lines:
        if line.name in factors:
            continue
        value = shared.get(line.name, default[line.name])
        if line.name in fitted:
            out.append(f"  # {line.name} is left to the data, which has room for {line.value}")
            continue
        source = line.source if line.source not in ("arm", "data") else "study"
        allowed = f" {line.range}" if line.range else ""
        out.append(
            f"  {line.name}: {one(as_typed(study.task.config, line.name, value))}"
            f"  # {source}; {line.type}{allowed}; {line.meaning}"
        )
    return "\n".join(out) + "\n"


def show(study: Study, request: Request, *, results: str, arm: str | None, as_yaml: bool) -> int:
    """Print the configuration of one arm; nothing is computed. Returns the exit code.

    Raises:
        ConfigError: as `make_plan` and `chosen_arm`.
    """
    plan = make_plan(study, request, results=results, retry_failed=False)
    chosen = chosen_arm(plan, arm)
    if as_yaml:
        print(configuration_yaml(plan, chosen), end="")
        return OK
    console = Console()
    others = f", one of {len(plan.arms)} (--arm shows another)" if len(plan.arms) > 1 else ""
    console.print(
        f"[bold]{plan.study.name}[/], arm {escape(chosen.label)}{others}; preset "
        f"{request.preset}, core {plan.study.core} version {plan.study.task.version}",
        soft_wrap=True,
    )
    console.print(configuration_table(plan, chosen))
    return OK
