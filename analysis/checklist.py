"""A checklist for a paper's appendix: everything that the ledger knows of a study, and no more.

    python analysis/checklist.py results/kshot     # writes checklist.md and checklist.tex there

Data, parts, seeds, decisions, budget, machines, deviations. What checklists ask for and the ledger
does not hold (carbon, consent, ethics) is named as such at the end, so that nobody reads silence as
an answer.
"""

import json
from collections.abc import Iterable
from typing import Annotated

import pandas as pd
import typer

from analysis.aggregate import data_names
from analysis.command import run_command
from analysis.discover import studies_in
from analysis.render import to_latex, to_markdown
from analysis.table import Entry, Row, Table
from sweeps.ledger.declared import declared_in
from sweeps.ledger.files import Store
from sweeps.ledger.predictions import DamagedPredictions
from sweeps.ledger.read import Ledger, read_ledger
from sweeps.ledger.schema import DESIGN

NAMES = ("checklist.md", "checklist.tex")
SHOWN = 12
"""Values of a list that are written out; of more their number is."""
NOT_HELD = (
    ("Carbon and energy", "not measured: no cell states what it used"),
    ("Training images", "the ledger holds predictions on validation and test alone"),
    ("Ethics approval, consent, licence of your own data", "not in the ledger"),
    ("How hyperparameters were found", "only what the study itself varied"),
)

Lines = list[tuple[str, str]]


def listed(values: Iterable[object]) -> str:
    """ "a, b, c", or how many there are where that would not be read."""
    found = list(dict.fromkeys(map(str, values)))
    if len(found) <= SHOWN:
        return ", ".join(found) or "none"
    return f"{len(found)} values, {', '.join(found[:3])} … {found[-1]}"


def hours(seconds: float) -> str:
    """`5400` → "1.50 h"; below an hour in minutes, below a minute in seconds."""
    if seconds >= 3600:
        return f"{seconds / 3600:.2f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"


def study_lines(ledger: Ledger) -> Lines:
    """What was asked, of what, and how the answer was to be found."""
    said, cells = ledger.manifest, ledger.cells
    versions = sorted({str(v) for v in cells["core_version"].dropna().astype(int)})
    lines = [
        ("Question", said.question),
        ("Method", f"{said.core}, version {listed(versions)}"),
        ("Factors", "; ".join(f"{name}: {listed(v)}" for name, v in said.factors.items())),
        ("Baseline", listed(f"{name}={level}" for name, level in said.baseline.items())),
        ("Design", str(said.extra.get(DESIGN, "the study's own arms"))),
        ("Preset", said.preset),
        ("Rebuilt tables", listed(said.tables)),
    ]
    now, before = declared_in(said)
    if now is None:
        lines.append(("Declared before the run", "no primary metric, margin or error"))
    else:
        when = f"when {now.after_cells} cells were there" if now.after_cells else "before the run"
        lines.append(
            (
                f"Declared {when}",
                f"primary metric {now.metric}, margin {now.margin:g}, error {now.error:g} over "
                f"{now.comparisons} comparisons, "
                + (
                    f"over {now.partitions} partitions of the patients (Nadeau and Bengio's t)"
                    if now.partitions
                    else f"looks at {listed(now.looks)} seeds, one split for all"
                ),
            )
        )
    if before:
        lines.append(("Earlier declarations that this one replaced", str(len(before))))
    return lines


def data_lines(ledger: Ledger) -> Lines:
    """The data and its parts, as far as the predictions of one cell per dataset say."""
    said, cells = ledger.manifest, ledger.cells
    lines = [
        ("Data", f"{listed(data_names(said))} (as given: {said.data})"),
        ("Fingerprint (SHA-256)", listed(x[:16] for x in said.data_fingerprint.split(","))),
        (
            "Protocol",
            "held-out: selection, early stopping and rewards see validation only, test is read once"
            if said.protocol == "held-out"
            else f"{said.protocol}: as the paper has it, which reports where it selects",
        ),
    ]
    reader = ledger.predictions()
    done = cells[cells["status"] == "ok"]
    for data, own in done.groupby("data", sort=False):
        head = f" of {data}" if len(done["data"].unique()) > 1 else ""
        try:
            table = reader.read(own["key"].iloc[0]).drop_duplicates(["split", "id"])
        except (FileNotFoundError, DamagedPredictions):
            lines.append((f"Parts{head}", "the first cell's predictions are not there"))
            continue
        lines += [(f"{split.capitalize()} part{head}", _part(part))
                  for split, part in table.groupby("split", sort=False)]  # fmt: skip
        groups = table.groupby("split")["group"].agg(set)
        if len(groups) > 1:
            shared = len(set.intersection(*groups))
            lines.append(
                (f"Groups in both parts{head}", f"{shared} (a group is a patient or slide)")
            )
    return lines


def _part(part: pd.DataFrame) -> str:
    sizes = part["label"].value_counts().sort_index()
    of_class = ", ".join(f"class {label}: {count}" for label, count in sizes.items())
    return f"{len(part)} images of {part['group'].nunique()} groups ({of_class})"


def replicate_lines(ledger: Ledger) -> Lines:
    """Seeds, arms, and what of the plan is there."""
    said, cells = ledger.manifest, ledger.cells
    counts = cells["status"].value_counts()
    per_arm = cells[cells["status"] == "ok"].groupby("arm").size().reindex(cells["arm"].unique())
    per_arm = per_arm.fillna(0).astype(int)
    return [
        ("Seeds", f"{listed(said.seeds)} ({len(said.seeds)}; shared by all arms, so paired)"),
        ("Arms", str(cells["arm"].nunique())),
        (
            "Cells",
            ", ".join(
                [f"{len(cells)} planned", f"{counts.get('ok', 0)} finished"]
                + [f"{counts[x]} {x}" for x in ("failed", "missing") if counts.get(x, 0)]
            ),
        ),
        ("Finished seeds per arm", f"{per_arm.min()} to {per_arm.max()}"),
    ]


def budget_lines(ledger: Ledger) -> Lines:
    """What the finished cells took; every cell of an arm counts."""
    done = ledger.cells[ledger.cells["status"] == "ok"]
    if done.empty:
        return [("Compute", "no finished cell")]
    wall, first, last = done["wall_s"], done["started"].min(), done["started"].max()
    lines = [
        (
            "Compute of the finished cells",
            f"{hours(wall.sum())} of wall time, {hours(done['cpu_s'].sum())} of processor time",
        ),
        ("A cell", f"median {hours(wall.median())}, longest {hours(wall.max())}"),
        *peak_lines(done),
        ("From, to", f"{first:%Y-%m-%d}, {last:%Y-%m-%d}"),
    ]
    for name in ("optimiser_steps", "classifier_trainings", "evaluations"):
        column = f"metric.{name}"
        if column in done and done[column].notna().any():
            low, high = done[column].min(), done[column].max()
            shown = f"{low:g}" if low == high else f"{low:g} to {high:g}"
            lines.append((f"{name.replace('_', ' ').capitalize()} per cell", shown))
    return lines


def peak_lines(done: pd.DataFrame) -> Lines:
    """The most memory that a cell held, where cells say so."""
    lines = []
    for column, what in (("peak_host_bytes", "host"), ("peak_device_bytes", "device")):
        if column in done and done[column].notna().any():
            most, said = done[column].max() / 2**30, done[column].notna().sum()
            lines.append((f"Peak memory of a cell, {what}", f"{most:.2f} GiB ({said} cells say)"))
    return lines


def machine_lines(ledger: Ledger) -> Lines:
    """Where and with what the finished cells were computed."""
    done = ledger.cells[ledger.cells["status"] == "ok"]
    packages: dict[str, set[str]] = {}
    for versions in done["versions"]:
        for name, version in dict(versions or {}).items():
            packages.setdefault(name, set()).add(version)
    devices = done["device"].value_counts()
    return [
        ("Devices", "; ".join(f"{name} ({count} cells)" for name, count in devices.items())),
        ("Hosts", str(done["host"].nunique())),
        ("Software", "; ".join(f"{name} {listed(sorted(v))}" for name, v in packages.items())),
        ("Commit", listed(commit[:12] for commit in done["git_commit"])),
    ]


def deviation_lines(ledger: Ledger) -> Lines:
    """What a reader should know: all that is not as planned, or not the same for every cell."""
    cells, lines = ledger.cells, []
    done, failed = cells[cells["status"] == "ok"], cells[cells["status"] == "failed"]
    if len(failed):
        kinds = failed["error_type"].value_counts()
        shown = ", ".join(f"{kind} ({count})" for kind, count in kinds.items())
        lines.append(("Failed cells", f"{len(failed)}, in no mean: {shown}"))
    if missing := int((cells["status"] == "missing").sum()):
        lines.append(("Cells not computed", str(missing)))
    if dirty := int(done["git_dirty"].fillna(False).astype(bool).sum()):
        lines.append(("Cells computed with uncommitted changes", str(dirty)))
    for column, what in (
        ("git_commit", "commits"),
        ("core_version", "versions of the method"),
        ("device", "kinds of device"),
    ):
        if len(done[column].dropna().unique()) > 1:
            lines.append((f"Several {what}", listed(done[column])))
    if repeated := int((done["attempts"] > 1).sum()):
        lines.append(("Cells repeated after a lost worker", str(repeated)))
    if ledger.damaged:
        lines.append(("Files that could not be read", str(len(ledger.damaged))))
    if ledger.manifest.protocol != "held-out":
        lines.append(("Protocol", "results are reported on data that was selected on"))
    return lines or [("None", "every planned cell finished, by one version, commit and device")]


def common_fields(ledger: Ledger) -> Lines:
    """The fields that every finished cell has the same value of, one line."""
    configs = [json.loads(text) for text in ledger.cells["config"].dropna().unique()]
    if not configs:
        return []
    same = {
        name: value
        for name, value in configs[0].items()
        if all(name in other and other[name] == value for other in configs)
    }
    return [("Settings of every arm", "; ".join(f"{n} = {v}" for n, v in same.items()))]


def checklist(ledger: Ledger) -> Table:
    """The whole list, a group per subject."""
    groups = (
        ("Study", study_lines(ledger)),
        ("Data", data_lines(ledger)),
        ("Replicates", replicate_lines(ledger)),
        ("Budget", budget_lines(ledger)),
        ("Machines", machine_lines(ledger)),
        ("Configuration", common_fields(ledger)),
        ("Deviations", deviation_lines(ledger)),
        ("Not in the ledger", list(NOT_HELD)),
    )
    rows = tuple(
        Row(label=f"{group}: {name}", entries=(Entry(text=text or "none"),), group=group)
        for group, lines in groups
        for name, text in lines
    )
    return Table(
        name="checklist",
        title=f"Checklist of {ledger.manifest.study}",
        stub="Item",
        columns=("What the ledger says",),
        rows=rows,
        prose=("What the ledger says",),
    )


def rebuild(root: str) -> list[str]:
    """Write both files into the study's folder; returns their paths.

    Raises:
        LedgerError: `root` is no study's results.
    """
    ledger = read_ledger(root)
    table, store = checklist(ledger), Store(root)
    for name, text in zip(NAMES, (to_markdown(table), to_latex(table)), strict=True):
        store.write(name, text.encode())
    return [f"{store.root.rstrip('/')}/{name}" for name in NAMES]


def main(
    results: Annotated[str, typer.Argument(help="a study's folder or URI, or results/ for all")],
) -> None:
    """Write a checklist for a paper's appendix, as Markdown and LaTeX, from the ledger alone."""

    def command() -> None:
        for root in studies_in(results):
            print("\n".join(rebuild(root)))

    run_command(command)


if __name__ == "__main__":
    typer.run(main)
