"""The command line that every search shares."""

from typing import Annotated

import typer

from imaging_core.fields import ConfigError
from sweeps.engine import options
from sweeps.engine.cli import LastStep, absolute
from sweeps.engine.run import Where
from sweeps.engine.search import Range, Search, prepare
from sweeps.engine.session import EXIT_CODES, Session, run_app
from sweeps.engine.study import Request
from sweeps.process import command_line


def main(search: Search, last_step: LastStep, description: str | None) -> None:
    """Parse the command line and run `search`; ends the process with a documented exit code."""
    with command_line():
        run_app(build_app(search, last_step, description))


def describe_space(search: Search) -> str:
    """One line per axis for `--help`."""
    lines = [f"- {name}: {', '.join(map(str, ls))} (each)" for name, ls in search.compare.items()]
    for name, axis in search.space.items():
        text = (
            f"{axis.low:g} to {axis.high:g}{', log-uniform' if axis.log else ''}"
            if isinstance(axis, Range)
            else ", ".join(map(str, axis.levels))
        )
        only = "".join(f", only with {n}={'/'.join(map(str, v))}" for n, v in axis.when.items())
        lines.append(f"- {name}: {text}{only}")
    return "\n\n".join(lines)


def build_app(search: Search, last_step: LastStep, description: str | None) -> typer.Typer:
    """The command line of `search`; `description` is the script's docstring (none with
    PYTHONOPTIMIZE=2)."""
    app = typer.Typer(
        add_completion=False, rich_markup_mode="markdown", pretty_exceptions_show_locals=False
    )

    @app.command(
        help=f"{(description or search.question).strip()}\n\n**Space**\n\n{describe_space(search)}",
        epilog=EXIT_CODES,
    )
    def command(
        trials: Annotated[
            int | None,
            typer.Option(
                help="Proposals per compared level, the default included. "
                f"Default: {search.trials}."
            ),
        ] = None,
        tuning_seeds: Annotated[
            str | None,
            typer.Option(
                metavar="N|LIST",
                help='How many seeds to tune with ("5" means 1000..1004), or which; disjoint from '
                f"--seeds. Default: {search.tuning_seeds}.",
            ),
        ] = None,
        rounds_of: Annotated[
            int,
            typer.Option(
                help="Propose so many at a time per compared level, from finished rounds alone: "
                "the same search for any number of workers. 0: from whatever is there."
            ),
        ] = 0,
        address: options.Address = "local",
        data: Annotated[str | None, options.data_option(search.data)] = None,
        preset: Annotated[
            str, typer.Option(help=f"One of {', '.join(search.task.presets)}.")
        ] = "demo",
        protocol: options.Protocol = "held-out",
        seeds: Annotated[str | None, options.seeds_option(search.seeds)] = None,
        setting: Annotated[
            list[str] | None,
            options.setting_option(
                "Fix a field (one value), make it a choice (several), or restrict what is "
                "compared; may be repeated."
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
    ) -> None:
        request = Request(
            preset=preset,
            data=data,
            protocol=protocol,
            seeds=seeds,
            settings=tuple(setting or ()),
        )
        where = Where(
            address=address,
            workers=workers,
            cpus_per_worker=cpus_per_worker,
            gpus_per_worker=gpus_per_worker,
            deadline_s=deadline,
            inline=inline,
        )
        session = Session()

        def run() -> int:
            if protocol not in ("held-out", "paper"):
                raise ConfigError(f'protocol must be one of held-out, paper, got "{protocol}"')
            root = absolute(results)
            tuning = prepare(
                search, request, trials=trials, tuning_seeds=tuning_seeds, rounds_of=rounds_of
            )
            # Optuna is imported here, after everything that can be refused.
            from sweeps.engine.search_flow import run_search

            return run_search(
                tuning,
                where,
                last_step,
                session=session,
                results=root,
                only_plan=plan,
                retry_failed=retry_failed,
                quiet=quiet,
            )

        code = session.conclude(run)
        raise typer.Exit(code)

    return app
