"""The command line that every study shares."""

import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Protocol

import typer
from rich.console import Console
from rich.markup import escape

from imaging_core.fields import ConfigError
from sweeps.engine import options
from sweeps.engine.declaring import declared_line, declared_manifest
from sweeps.engine.display import Display, chatter_to, duration
from sweeps.engine.plan import Plan, make_plan, stage_store
from sweeps.engine.run import Summary, Where, run_inline, run_on_cluster
from sweeps.engine.session import EXIT_CODES, OK, SOME_FAILED, Session, run_app
from sweeps.engine.stages import stated_seconds
from sweeps.engine.study import Request, Study, describe_factors, known_protocol
from sweeps.engine.trackers import tracked
from sweeps.engine.yaml_files import with_file
from sweeps.ledger.background import Compacting
from sweeps.ledger.commit import write_manifest
from sweeps.ledger.compact import compact
from sweeps.ledger.files import Store
from sweeps.ledger.lock import Lock
from sweeps.ledger.places import whole
from sweeps.ledger.progress import say_running, spread
from sweeps.ledger.quarantine import quarantine_damaged, suspected
from sweeps.ledger.read import read_table
from sweeps.ledger.schema import LedgerError
from sweeps.process import command_line

TELL_EVERY_S = 3.0
SAMPLED_STAGES = 96
"""Stored stages whose seconds are read for the estimate."""


class LastStep(Protocol):
    """What a study makes of its ledger once the cells are there (`analysis.last_step.run`)."""

    def __call__(self, results: str, study: str, console: Console, *, quiet: bool) -> None:
        """`results` is the folder or URI of all studies, `study` the name of this one."""


def main(
    study: Study,
    last_step: LastStep,
    description: str | None,
    arguments: Sequence[str] | None = None,
) -> None:
    """Parse the command line and run `study`; ends the process with a documented exit code.

    `arguments` are those of the process where they are not given.
    """
    app = build_app(study, last_step, description)
    with command_line():
        run_app(app if arguments is None else partial(app, list(arguments)))


def build_app(study: Study, last_step: LastStep, description: str | None) -> typer.Typer:
    """The command line of `study`; `description` is the script's docstring (none with
    PYTHONOPTIMIZE=2)."""
    app = typer.Typer(
        add_completion=False, rich_markup_mode="markdown", pretty_exceptions_show_locals=False
    )
    factors = "\n\n".join(f"- {line}" for line in describe_factors(study))

    @app.command(
        help=f"{(description or study.question).strip()}\n\n"
        f"**Factors** (vary them with --set)\n\n{factors}",
        epilog=EXIT_CODES,
    )
    def command(
        context: typer.Context,
        address: options.Address = "local",
        data: Annotated[str | None, options.data_option(study.data)] = None,
        preset: Annotated[
            str, typer.Option(help=f"One of {', '.join(study.task.presets)}.")
        ] = "demo",
        protocol: options.Protocol = "held-out",
        seeds: Annotated[str | None, options.seeds_option(study.seeds)] = None,
        setting: Annotated[
            list[str] | None,
            options.setting_option(
                "Restrict or extend a factor's levels, or fix a field of the "
                "configuration; may be repeated."
            ),
        ] = None,
        results: options.Results = "results",
        plan: options.OnlyPlan = False,
        retry_failed: options.RetryFailed = False,
        workers: options.Workers = None,
        gpus_per_worker: options.GpusPerWorker = None,
        cpus_per_worker: options.CpusPerWorker = 1.0,
        deadline: options.Deadline = options.DEADLINE_S,
        inline: options.Inline = False,
        quiet: options.Quiet = False,
        keep: options.Keep = None,
        track: options.Track = None,
        config: options.Config = None,
        show_config: options.ShowConfig = False,
        as_yaml: options.AsYaml = False,
        arm: options.Arm = None,
    ) -> None:
        request = Request(
            preset=preset,
            data=data,
            protocol=protocol,
            seeds=seeds,
            settings=tuple(setting or ()),
            keep=tuple(keep or ()),
            track=tuple(track or ()),
        )
        where = Where(
            address=address,
            workers=workers,
            cpus_per_worker=cpus_per_worker,
            gpus_per_worker=gpus_per_worker,
            deadline_s=deadline,
            inline=inline,
        )
        run = Session()

        def work() -> int:
            asked = request
            if config is not None:
                typed = options.typed(context, ("preset", "data", "protocol", "seeds"))
                asked = with_file(request, study, config, typed)
            if show_config or as_yaml or arm is not None:
                from sweeps.engine.configuration import show

                return show(study, asked, results=results, arm=arm, as_yaml=as_yaml)
            return run_study(
                study,
                asked,
                where,
                last_step,
                session=run,
                results=results,
                only_plan=plan,
                retry_failed=retry_failed,
                quiet=quiet,
            )

        raise typer.Exit(run.conclude(work))

    return app


def run_study(
    study: Study,
    request: Request,
    where: Where,
    last_step: LastStep,
    *,
    session: Session,
    results: str,
    only_plan: bool,
    retry_failed: bool,
    quiet: bool,
) -> int:
    """Plan, run, report; returns the exit code.

    Raises:
        BaseException: what `Session.conclude` tells the user of.
    """
    known_protocol(request)
    session.results = absolute(results)
    plan = make_plan(study, request, results=results, retry_failed=retry_failed)
    if only_plan:
        Console().print(describe(plan, results), soft_wrap=True)
        return OK
    ledger = Store(results).child(plan.study.name)
    session.count = partial(_count_line, plan, ledger)
    with Lock(ledger) as lock:
        session.tables = partial(last_step, results, plan.study.name, Console(), quiet=quiet)
        return _run_locked(
            plan,
            where,
            last_step,
            session=session,
            results=results,
            retry_failed=retry_failed,
            quiet=quiet,
            token=lock.token,
        )


def absolute(results: str) -> str:
    """The results folder as every worker will name it; refused where it cannot be written."""
    try:
        results = whole(results)
    except LedgerError as error:
        raise ConfigError(str(error)) from None
    if "://" in results:
        _probe(results)
        return results
    path = Path(results)
    try:
        if path.exists() and not path.is_dir():
            raise ConfigError(f"--results must be a folder, got the file {path}")
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)  # another run may look at the same moment
    except OSError as error:
        raise ConfigError(
            f"--results must be a folder that can be written, got {path} ({error.strerror})"
        ) from None
    return str(path)


def _probe(results: str) -> None:
    """Refuse a URI that cannot be written, before anything else touches it."""
    try:
        store = Store(results)
        store.write(".writable", b"")
        store.delete(".writable")
    except (OSError, ValueError) as error:
        raise ConfigError(
            "--results must be a folder or a URI that can be written, got "
            f"{results} ({error.__cause__ or error})"
        ) from None


def _run_locked(
    plan: Plan,
    where: Where,
    last_step: LastStep,
    *,
    session: Session,
    results: str,
    retry_failed: bool,
    quiet: bool,
    token: str,
    repaired: bool = False,
) -> int:
    ledger = Store(results).child(plan.study.name)
    damaged = quarantine_damaged(ledger, set(plan.keys))
    if damaged:
        for name, reason in damaged:
            Console(stderr=True).print(
                f"[yellow]damaged:[/] {escape(name)} ({escape(reason)}) moved to quarantine/, "
                "computed again",
                soft_wrap=True,
            )
        plan = make_plan(plan.study, plan.request, results=results, retry_failed=retry_failed)
    write_manifest(ledger, declared_manifest(plan, ledger, {}))
    summary = Summary()
    began = time.monotonic()
    log = Path(ledger.path("run.log")) if ledger.local else Path("medrl-run.log").absolute()
    if plan.todo:
        session.log = log
        with chatter_to(None if where.inline else log) as console:
            if not quiet:
                console.print(describe(plan, results), soft_wrap=True)
            summary = _carry_out(
                plan,
                where,
                console,
                session=session,
                results=results,
                token=token,
                quiet=quiet,
                log=log,
            )
        if ledger.local:  # Ray's bookkeeping: a cache that nothing reads again
            shutil.rmtree(ledger.path("ray"), ignore_errors=True)
        compact(ledger)
    else:
        with tracked(plan, ledger, lambda text, always=False: Console().print(escape(text))):
            pass
    summary.wall_s = time.monotonic() - began
    last_step(results, plan.study.name, Console(), quiet=quiet)
    if not repaired and suspected(ledger) & plan.keys:
        # Predictions are read by the last step alone, which names those that are damaged.
        plan = make_plan(plan.study, plan.request, results=results, retry_failed=False)
        return _run_locked(
            plan,
            where,
            last_step,
            session=session,
            results=results,
            retry_failed=False,
            quiet=quiet,
            token=token,
            repaired=True,
        )
    Console().print(last_line(plan, summary, ledger), soft_wrap=True)
    return OK if _committed(plan, ledger) == len(plan.keys) else SOME_FAILED


def _carry_out(
    plan: Plan,
    where: Where,
    console: Console,
    *,
    session: Session,
    results: str,
    token: str,
    quiet: bool,
    log: Path,
) -> Summary:
    def say(text: str, *, always: bool = False) -> None:
        if always or not quiet:
            console.print(escape(text), soft_wrap=True, style="dim")

    ledger = Store(results).child(plan.study.name)
    display = Display(
        console,
        total=len(plan.keys),
        committed=len(plan.done),
        todo=len(plan.todo),
        stages=[work.key for work in plan.stages],
        quiet=quiet,
        tell=partial(say_running, ledger, token),
        # In this process nothing ticks between two cells, so each one is told as it starts.
        tell_every_s=0.0 if where.inline else TELL_EVERY_S,
    )
    with Compacting(ledger, token), display, tracked(plan, ledger, say, display):
        if where.inline:
            summary = run_inline(plan, results=results, token=token, display=display)
        else:
            say(f"Ray's log: {log}")
            summary = run_on_cluster(
                plan,
                session=session,
                results=results,
                token=token,
                where=where,
                display=display,
                say=say,
            )
    summary.stages_reused = plan.reused
    return summary


def _committed(plan: Plan, ledger: Store) -> int:
    """How many of the planned cells are there and can be read."""
    table, _ = read_table(ledger, "cells", set(plan.keys), ["key"])
    return table.num_rows


def _count_line(plan: Plan, ledger: Store) -> str:
    return f"{_committed(plan, ledger)} of {len(plan.keys)} cells are committed"


def last_line(plan: Plan, summary: Summary, ledger: Store) -> str:
    """Wall time, compute time, slots, efficiency, stages."""
    line = _count_line(plan, ledger)
    if not (summary.cells or summary.failed):
        return f"{line}; nothing was left to compute"
    line += (
        f"; wall {duration(summary.wall_s)}, compute {duration(summary.compute_s)} on "
        f"{summary.slots} slots, efficiency {summary.efficiency:.0%}; stages: "
        f"{summary.stages_computed} computed, {summary.stages_reused} reused"
    )
    if summary.repeated:
        line += f"; {summary.repeated} interrupted by a lost worker and repeated"
    if summary.failed:
        line += f"; {summary.failed} failed (--retry-failed computes them again)"
    return line


def describe(plan: Plan, results: str) -> str:
    """What is planned, there, failed and left, with an estimate from the ledger's own timings."""
    shared = len(plan.cells) - len(plan.keys)
    lines = [
        f"[bold]{plan.study.name}[/]: {escape(plan.study.question)}",
        f"{len(plan.arms)} arms × {len(plan.seeds)} seeds = {len(plan.cells)} cells"
        f"{f' ({shared} of them shared by two arms)' if shared else ''} on "
        f"{escape(', '.join(plan.fingerprints))} (preset {plan.request.preset}, protocol "
        f"{plan.request.protocol}); {len(plan.done)} committed, {len(plan.failed)} failed, "
        f"[bold]{len(plan.todo)} to compute[/]",
        f"stages: {len(plan.stages)} to compute, {plan.reused} uses of stored or shared ones",
    ]
    lines += [escape(line) for line in (*plan.data, declared_line(plan), *plan.notes)]
    if plan.todo:
        lines.append(_estimate(plan, results))
    return "\n".join(lines)


def _estimate(plan: Plan, results: str) -> str:
    ledger = Store(results).child(plan.study.name)
    table, _ = read_table(ledger, "cells", set(plan.done), ["wall_s"])
    seconds = table["wall_s"].to_pylist()
    if not seconds:
        return "time: unknown until the first cells are there"
    stages = stage_store(results).store
    names = [name[:-5] for name in stages.names("", ".json")]
    stated = stages.each(partial(stated_seconds, stages), spread(names, SAMPLED_STAGES))
    known = [seconds for seconds in stated if seconds]
    total = len(plan.todo) * sum(seconds) / len(seconds)
    total += len(plan.stages) * (sum(known) / len(known) if known else 0.0)
    return f"time: about {duration(total)} of compute ÷ slots (from {len(seconds)} committed cells)"
