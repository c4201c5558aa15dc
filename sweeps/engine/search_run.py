"""Carry a search out, on a cluster or in this process, and write what came of it."""

import csv
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sweeps.engine.display import Display
from sweeps.engine.plan import stage_store
from sweeps.engine.run import (
    Summary,
    Where,
    capacity,
    database,
    joined,
    lost,
    over,
)
from sweeps.engine.scratch import scratch
from sweeps.engine.search import Tuning
from sweeps.engine.search_work import TuningWork
from sweeps.engine.session import Session
from sweeps.engine.work import EXECUTE, end_of_run, execute, lost_row, prepare_process
from sweeps.ledger.cells import has_failure
from sweeps.ledger.commit import commit_failure
from sweeps.ledger.files import Store, StoreError
from sweeps.ledger.lock import LateCommit, must_hold
from sweeps.search.campaign import Campaign
from sweeps.search.optuna_study import importances
from sweeps.search.proposals import COMPLETE, Proposal, best_of

STAGE = "stage"


def search_inline(campaign: Campaign, work: TuningWork, display: Display) -> Summary:
    """Every arm that is missing, seed after seed, in this process."""
    prepare_process()
    summary = Summary(slots=1, where="in this process")
    while (proposal := campaign.next()) is not None:
        _compute(campaign, proposal, work, display, summary)
    return summary


def _compute(
    campaign: Campaign, proposal: Proposal, work: TuningWork, display: Display, summary: Summary
) -> None:
    for seed, items in work.steps(proposal):
        for item in items:
            is_stage = item.payload["kind"] == STAGE
            label = item.arm or item.id.rpartition("-")[0]
            if is_stage and not _missing(work, item.id):
                continue  # an earlier seed's step has computed it
            display.started(item.id, label)
            began, report = time.monotonic(), None
            try:
                report = execute(item.payload, device="cpu", node="inline", attempt=1)
            except (StoreError, LateCommit):
                raise
            except Exception:
                if is_stage:
                    raise
            seconds = time.monotonic() - began
            summary.compute_s += seconds
            ok = report is not None
            over(summary, display, item.id, is_stage=is_stage, ok=ok, seconds=seconds)
        if report is None:
            campaign.fail(proposal)
            goes_on = False
        else:
            goes_on = campaign.report(proposal, seed, float(report["objective"]))
        campaign.tell(proposal)
        if not goes_on:
            return


def _missing(work: TuningWork, stage: str) -> bool:
    return not stage_store(work.results).has(stage)


def search_on_cluster(
    work: TuningWork,
    *,
    session: Session,
    where: Where,
    display: Display,
    say: Callable[..., None],
) -> Summary:
    """Every arm that is missing, on the fleet; one Tune trial per arm.

    Raises:
        Interrupted: by a signal; what was committed stays.
        StoreError, LateCommit: the ledger cannot be read or written, or is another controller's.
        ClusterError: no cluster as asked for.
        ClusterLost: the broker, Tune's driver, the whole fleet or the cluster is gone.
    """
    with joined(where, session, work.tuning.search.core, say) as (stays, note):
        summary = _serve(work, where=where, display=display, say=say, stays=stays)
        summary.where = note
    return summary


def _serve(
    work: TuningWork,
    *,
    where: Where,
    display: Display,
    say: Callable[..., None],
    stays: bool,
) -> Summary:
    from cluster.drive import Load, drive
    from cluster.queue import Event

    summary, ledger = Summary(), work.store

    def on_slots(slots: int) -> None:
        summary.slots = display.slots = slots

    def on_event(event: Event) -> None:
        is_stage = event.arm is None
        if event.kind == "started":
            display.started(event.item, event.arm or event.item.rpartition("-")[0])
        elif event.kind == "lost":
            lost(summary, display, event.item)
        else:
            if error := end_of_run(event.report):
                raise error
            ok = event.kind == "finished"
            seconds = float(event.report.get("wall_s", 0.0))
            summary.compute_s += seconds
            over(summary, display, event.item, is_stage=is_stage, ok=ok, seconds=seconds)
            if not ok and not is_stage and not has_failure(ledger, event.item):
                must_hold(ledger, work.token)
                payload = work.payload(event.item)
                commit_failure(ledger, lost_row(payload, event.report, event.attempt))

    drive(
        Load(
            study=work.tuning.name,
            execute=EXECUTE,
            levels={},
            shared=[],
            arms=[],
            finished=[],
            scratch=scratch(ledger),
            database=database(ledger),
            search=(work.tuning.problem, work),
        ),
        capacity(where),
        stays=stays,
        say=say,
        on_slots=on_slots,
        on_event=on_event,
        on_tick=display.refresh,
    )
    return summary


def winners(tuning: Tuning, proposals: Sequence[Proposal]) -> dict[str, Proposal]:
    """Group → its best complete proposal; a group without one is left out."""
    found = {group: best_of(tuning.problem, group, proposals) for group in tuning.problem.groups}
    return {group: best for group, best in found.items() if best is not None}


def write_outcome(store: Store, tuning: Tuning, proposals: Sequence[Proposal]) -> list[str]:
    """`search/` in the study's folder: trials.csv, importance.csv and winners.json.

    Returns:
        the names written.
    """
    axes = list(tuning.problem.space)
    head = ["number", "group", "state", "seeds", "objective", *axes]
    trials = [
        {
            "number": p.number,
            "group": p.group,
            "state": p.state,
            "seeds": len(p.values),
            "objective": p.mean if p.values else "",
            **p.point,
        }
        for p in proposals
    ]
    shares = [
        {"group": group, "axis": axis, "importance": share}
        for group, found in importances(tuning.problem, proposals).items()
        for axis, share in found.items()
    ]
    best: Mapping[str, Any] = {
        group: {
            "number": p.number,
            "point": dict(p.point),
            "objective": p.mean,
            "default": dict(tuning.problem.defaults[group]),
            "complete": sum(q.group == group and q.state == COMPLETE for q in proposals),
        }
        for group, p in winners(tuning, proposals).items()
    }
    files = {
        "search/trials.csv": _csv(head, trials),
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
