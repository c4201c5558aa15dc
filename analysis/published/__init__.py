"""The papers' printed values as data: 120 of them, each with its table and page."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from typing import Any

import yaml


@dataclass(frozen=True, kw_only=True)
class Value:
    """One printed mean ± std, in the paper's unit."""

    mean: float
    std: float


@dataclass(frozen=True, kw_only=True)
class Line:
    """A row or a column of a printed table, and what it is in our studies.

    Attributes:
        label: as printed.
        levels: factor → level of the arms that belong here.
        metric: our metric, or None where the other axis or the table names it.
    """

    label: str
    levels: Mapping[str, str] = field(default_factory=dict)
    metric: str | None = None


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option of a dataset as the paper has it, and what the loader does without it."""

    printed: str | float
    default: str | float


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """One table of a paper.

    Attributes:
        name: as a study's manifest names it.
        paper, cite, number, page: where it stands (page of the arXiv version).
        data: names of the datasets that are the paper's own.
        class_sizes: images of each class over all parts, where the paper prints them of private
            data that only their folder's name tells from others; empty elsewhere.
        protocol: "paper" where the printed values are of the split that selected, else "held-out".
        options: of the dataset, by name.
        setting: configuration field → what the paper states of it.
        at_least: configuration field → the least that a converged run of the paper's has.
        percent: whether the printed values are percent (else fractions).
        runs, runs_stated: runs behind each mean, and whether the paper says so.
        rows, columns: in the printed order.
        metric: the metric of every cell whose row and column name none.
        focus: the label of the row or column that holds the paper's own method.
        values: (row label, column label) → the printed value.
    """

    name: str
    paper: str
    cite: str
    number: int
    page: int
    caption: str
    data: tuple[str, ...]
    class_sizes: tuple[int, ...]
    protocol: str
    options: Mapping[str, Option]
    setting: Mapping[str, str | float]
    at_least: Mapping[str, float]
    percent: bool
    runs: int
    runs_stated: bool
    rows: tuple[Line, ...]
    columns: tuple[Line, ...]
    metric: str | None
    focus: str
    focus_axis: str
    values: Mapping[tuple[str, str], Value]

    @property
    def where(self) -> str:
        """`"Ye et al. 2020, Table 3, p. 9"`, short enough to stand under a table."""
        return f"{self.cite}, Table {self.number}, p. {self.page} of the arXiv version"


@dataclass(frozen=True, kw_only=True)
class ClaimChecked:
    """A sentence of a paper held against that paper's own tables."""

    paper: str
    claim: str
    printed_tables_say: str
    finding: str
    how: str


def _line(entry: Mapping[str, Any]) -> Line:
    return Line(label=entry["label"], levels=entry.get("levels", {}), metric=entry.get("metric"))


def _table(name: str, paper: Mapping[str, Any], entry: Mapping[str, Any]) -> PublishedTable:
    (axis, focus), *_ = entry["focus"].items()
    options = paper.get("options", {}) | entry.get("options", {})
    return PublishedTable(
        name=name,
        paper=paper["key"],
        cite=paper["cite"],
        number=entry["number"],
        page=entry["page"],
        caption=entry["caption"],
        data=tuple(entry["data"]),
        class_sizes=tuple(entry.get("class_sizes", ())),
        protocol=entry["protocol"],
        options={option: Option(**values) for option, values in options.items()},
        setting=paper["setting"] | entry.get("setting", {}),
        at_least=paper.get("at_least", {}) | entry.get("at_least", {}),
        percent=entry["unit"] == "percent",
        runs=entry["runs"],
        runs_stated=entry["runs_stated"],
        rows=tuple(_line(row) for row in entry["rows"]),
        columns=tuple(_line(column) for column in entry["columns"]),
        metric=entry.get("metric"),
        focus=focus,
        focus_axis=axis,
        values={
            (row["label"], column): Value(mean=mean, std=std)
            for row in entry["rows"]
            for column, (mean, std) in row["values"].items()
        },
    )


@lru_cache
def _papers() -> tuple[Mapping[str, Any], ...]:
    folder = resources.files("analysis.published")
    return tuple(
        yaml.safe_load(folder.joinpath(name).read_text(encoding="utf-8"))
        for name in ("apga.yaml", "ye2020.yaml")
    )


@lru_cache
def published_tables() -> Mapping[str, PublishedTable]:
    """Every printed table by name, in the order of the papers."""
    return {
        name: _table(name, paper["paper"], entry)
        for paper in _papers()
        for name, entry in paper["tables"].items()
    }


def claims_checked(paper: str) -> tuple[ClaimChecked, ...]:
    """The sentences of `paper` ("apga" | "ye2020") that were held against its own tables."""
    return tuple(
        ClaimChecked(
            paper=paper,
            claim=entry["claim"],
            printed_tables_say=entry["printed_tables_say"],
            finding=entry["finding"],
            how=entry.get("how", ""),
        )
        for source in _papers()
        if source["paper"]["key"] == paper
        for entry in source["claims_checked"]
    )
