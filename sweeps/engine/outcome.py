"""What came of a search: its winners, and the files that say so."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.engine.tuning import Tuning
from sweeps.ledger.files import Store
from sweeps.search.optuna_study import importances
from sweeps.search.trials import COMPLETE, Trial, best_of


def winners(tuning: Tuning, trials: Sequence[Trial]) -> dict[str, Trial]:
    """Group → its best complete proposal; a group without one is left out."""
    found = {group: best_of(tuning.problem, group, trials) for group in tuning.problem.groups}
    return {group: best for group, best in found.items() if best is not None}


def write_outcome(store: Store, tuning: Tuning, trials: Sequence[Trial]) -> list[str]:
    """`search/` in the study's folder: trials.csv, importance.csv and winners.json.

    Returns:
        the names written.
    """
    axes = list(tuning.problem.space)
    ended = ["ended_in"] if tuning.problem.prune else []
    head = ["number", "group", "state", "seeds", "objective", *ended, *axes]
    rows = [
        {
            "number": p.number,
            "group": p.group,
            "state": p.state,
            "seeds": len(p.values),
            "objective": p.mean if p.values else "",
            **dict.fromkeys(ended, "" if p.ended_in is None else p.ended_in),
            **p.params,
        }
        for p in trials
    ]
    shares = [
        {"group": group, "axis": axis, "importance": share}
        for group, found in importances(tuning.problem, trials).items()
        for axis, share in found.items()
    ]
    best: Mapping[str, Any] = {
        group: {
            "number": p.number,
            "point": dict(p.params),
            "objective": p.mean,
            "default": dict(tuning.problem.defaults[group]),
            "complete": sum(q.group == group and q.state == COMPLETE for q in trials),
        }
        for group, p in winners(tuning, trials).items()
    }
    files = {
        "search/trials.csv": _csv(head, rows),
        "search/importance.csv": _csv(["group", "axis", "importance"], shares),
        "search/winners.json": json.dumps(best, indent=1).encode(),
    }
    for name, content in files.items():
        store.write(name, content)
    return list(files)


def _csv(head: list[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, head, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
