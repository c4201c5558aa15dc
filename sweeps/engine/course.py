"""One command from its lock to its last line: a study, or a search and the study of its winners."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any

from rich.console import Console
from rich.markup import escape

from sweeps.engine import words
from sweeps.engine.budget import Budgeted
from sweeps.engine.declaring import declared_manifest
from sweeps.engine.display import Display
from sweeps.engine.pilot import Pilot, price
from sweeps.engine.plan import Plan, make_plan
from sweeps.engine.provenance import source as commit
from sweeps.engine.recipe import Recipes
from sweeps.engine.run import Summary, carry_out, database
from sweeps.engine.search import Search, prepare, reporting_study
from sweeps.engine.session import Session
from sweeps.engine.source import ArmSource, Grid
from sweeps.engine.study import Request, Study
from sweeps.engine.trackers import tracked
from sweeps.engine.tuning import Proposed
from sweeps.exits import OK, SOME_FAILED, verdict
from sweeps.ledger.commit import write_manifest
from sweeps.ledger.fetched import fetched_once
from sweeps.ledger.files import Store
from sweeps.ledger.lock import Lock
from sweeps.ledger.quarantine import quarantine_damaged, suspected

MakeSource = Callable[[Plan, Store], ArmSource]
"""What makes a run of a plan and its ledger; called where the ledger is locked."""


def run_study(
    study: Study, request: Request, session: Session, make_source: MakeSource = Grid
) -> int:
    """Plan, run, report; returns the exit code.

    Raises:
        BaseException: what `Session.conclude` tells the user of.
    """
    with fetched_once():
        return _run_study(study, request, session, make_source)


def _run_study(study: Study, request: Request, session: Session, make_source: MakeSource) -> int:
    results = session.results
    plan = make_plan(study, request, results=results, retry_failed=session.retry_failed)
    ledger = Store(results).child(plan.study.name)
    if session.only_plan and session.pilot:
        return _run_pilot(plan, session)
    if session.only_plan:
        Console().print(words.describe(plan, results), soft_wrap=True)
        return OK
    if request.until is not None:
        from sweeps.engine.race import Race

        make_source = Race
    session.count = partial(words.count_line, plan, ledger)
    with Lock(ledger) as lock:
        session.tables = partial(
            session.reporting, results, plan.study.name, Console(), quiet=session.quiet
        )
        if _set_aside(ledger, plan):
            plan = _again(plan, session, retry_failed=session.retry_failed)
        summary, source = _compute(plan, session, lock.token, make_source)
        session.tables()
        if suspected(ledger) & plan.keys:
            # Predictions are read by the last step alone, which names those that are damaged.
            _set_aside(ledger, plan)
            plan = _again(plan, session, retry_failed=False)
            summary, source = _compute(plan, session, lock.token, make_source)
            session.tables()
        there = words.committed(source.plan, ledger)
        Console().print(words.last_line(source.plan, summary, there), soft_wrap=True)
        return verdict(there=there, wanted=len(source.plan.keys))


def _again(plan: Plan, session: Session, *, retry_failed: bool) -> Plan:
    return make_plan(plan.study, plan.request, results=session.results, retry_failed=retry_failed)


def _set_aside(ledger: Store, plan: Plan) -> bool:
    """Put cells that cannot be read into quarantine, and name them; whether there were any."""
    damaged = quarantine_damaged(ledger, set(plan.keys))
    for name, reason in damaged:
        Console(stderr=True).print(
            f"[yellow]damaged:[/] {escape(name)} ({escape(reason)}) moved to quarantine/, "
            "computed again",
            soft_wrap=True,
        )
    return bool(damaged)


def _run_pilot(plan: Plan, session: Session) -> int:
    """A cell of every arm, then the plan of the rest and its price; returns the exit code."""
    ledger = Store(session.results).child(plan.study.name)
    session.count = partial(words.count_line, plan, ledger)
    with Lock(ledger) as lock:
        _compute(plan, session, lock.token, Pilot)
    plan = _again(plan, session, retry_failed=session.retry_failed)
    console = Console()
    console.print(words.describe(plan, session.results), soft_wrap=True)
    if plan.todo:
        gpus = session.resources.gpus_per_worker or 0.0
        console.print(price(plan, session.results, gpus), soft_wrap=True)
    return OK


def _compute(
    plan: Plan, session: Session, token: str, make_source: MakeSource
) -> tuple[Summary, ArmSource]:
    """What the plan's source wants, and the manifest that says so."""
    ledger = Store(session.results).child(plan.study.name)
    source = make_source(plan, ledger)
    budgeted = Budgeted(source, session.resources.budget) if session.resources.budget else None
    source = budgeted or source
    session.count = lambda: words.count_line(source.plan, ledger)
    known = source.plan
    write_manifest(ledger, declared_manifest(known, ledger, {}))
    began, summary = time.monotonic(), Summary()

    def watch(display: Display) -> AbstractContextManager[None]:
        if budgeted:
            budgeted.use(lambda: display.slots)
        return tracked(plan, ledger, display.say, display)

    if source.left:
        if not session.quiet:
            Console().print(words.describe(plan, session.results), soft_wrap=True)
        recipes = Recipes(
            plan.study,
            plan.request,
            results=session.results,
            token=token,
            deadline_s=session.resources.deadline_s,
        )
        summary = carry_out(
            source,
            recipes,
            session,
            total=len(plan.keys) - len(plan.todo) + source.left,  # a race may want more than so far
            committed=len(plan.done),
            stages=[work.key for work in plan.stages],
            watch=watch,
        )
        if budgeted and budgeted.line:
            Console().print(budgeted.line, soft_wrap=True)
        summary.stages_reused = plan.reused
        if source.plan is not known:
            write_manifest(ledger, declared_manifest(source.plan, ledger, {}))
    else:
        with tracked(plan, ledger, lambda text, always=False: Console().print(escape(text))):
            pass
    summary.wall_s = time.monotonic() - began
    return summary, source


def run_search(search: Search, request: Request, session: Session, **asked: Any) -> int:
    """Tune, write what came of it, rerun winners and defaults; returns the exit code.

    Args:
        asked: as in `search.prepare`.

    Raises:
        BaseException: what `Session.conclude` tells the user of.
    """
    tuning = prepare(search, request, results=session.results, **asked)
    # Optuna is imported here, after everything that can be refused.
    from sweeps.engine.outcome import winners, write_outcome
    from sweeps.search.campaign import Campaign
    from sweeps.search.storage import to_log

    ledger, console = tuning.store, Console()
    tuning = replace(tuning, commit=commit(), retry_failed=session.retry_failed)
    if session.only_plan:
        console.print(words.describe_search(tuning, tuning.known()), soft_wrap=True)
        return OK
    with Lock(ledger) as lock:
        tuning = replace(tuning, token=lock.token, deadline_s=session.resources.deadline_s)
        session.count = lambda: words.counted(tuning, tuning.known())
        _set_aside(ledger, tuning.plan(tuning.read()))
        tuning.write_manifest(tuning.known())
        if not session.quiet:
            console.print(words.describe_search(tuning, tuning.known()), soft_wrap=True)
        # Builds the database too, so that a run that was killed at its very end leaves none
        # running. On a cluster, Tune's own campaign warns.
        campaign = Campaign(
            tuning.problem,
            tuning.known(),
            record=tuning.record,
            record_stop=tuning.record_stop,
            database=database(ledger),
            warn=_warn if session.resources.inline else to_log,
        )
        source, budget = Proposed(tuning, campaign), session.resources.budget
        budgeted = Budgeted(source, budget) if budget else None
        if campaign.left:
            committed = sum(len(p.values) for p in campaign.trials)
            there = source.plan

            def watch(display: Display) -> AbstractContextManager[None]:
                if budgeted:
                    budgeted.use(lambda: display.slots)
                return tracked(there, ledger, display.say, display)

            carry_out(
                budgeted or source,
                tuning.recipes,
                session,
                total=committed + source.left,
                committed=committed,
                stages=None,
                watch=watch,
            )
        tuning = replace(tuning, retry_failed=False)  # what failed again has failed
        trials = tuning.known()
        tuning.write_manifest(trials)
        console.print(words.counted(tuning, trials), soft_wrap=True)
        write_outcome(Store(session.results).child(search.name), tuning, trials)
        if budgeted and budgeted.spent:
            console.print(budgeted.line_of(words.cells_left(tuning, trials)), soft_wrap=True)
            return SOME_FAILED
        if budgeted:  # the report has what the search left of it
            session.resources = replace(session.resources, budget=budgeted.rest)
    best = winners(tuning, trials)
    if lacking := [group for group in tuning.problem.groups if group not in best]:
        console.print(
            f"no proposal of {', '.join(lacking) or search.name} is complete: nothing to report "
            f"(see {ledger.root}/failures; --retry-failed computes them again)",
            soft_wrap=True,
        )
        return verdict(there=len(best), wanted=len(tuning.problem.groups))
    study, request = reporting_study(tuning, {group: p.params for group, p in best.items()})
    return run_study(study, request, session)


def _warn(text: str) -> None:
    """Something that a quiet user wants to know as well."""
    Console(stderr=True).print(escape(text), soft_wrap=True, style="yellow")
