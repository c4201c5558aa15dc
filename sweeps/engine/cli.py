"""The command line that every study and every search shares."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import Parameter, Signature
from typing import Any

import typer

from imaging_core.fields import ConfigError
from sweeps.engine import notify, options
from sweeps.engine.budget import Budget
from sweeps.engine.course import MakeSource, run_search, run_study
from sweeps.engine.run import Resources
from sweeps.engine.search import Range, Search
from sweeps.engine.session import Reporting, Session, run_app
from sweeps.engine.source import Grid
from sweeps.engine.study import Request, Study, describe_factors
from sweeps.engine.yaml_files import with_file
from sweeps.exits import EXIT_CODES
from sweeps.process import command_line

__all__ = ["Reporting", "build_app", "main"]


def main(
    declared: Study | Search,
    reporting: Reporting,
    description: str | None,
    arguments: Sequence[str] | None = None,
    *,
    make_source: MakeSource = Grid,
) -> None:
    """Parse the command line and run what a script declares; ends the process with a documented
    exit code.

    Args:
        reporting: what is made of the ledger once the cells are there.
        description: the script's docstring (none with PYTHONOPTIMIZE=2).
        arguments: those of the process where they are not given.
        make_source: what says which cell of a study comes next.
    """
    app = build_app(declared, reporting, description, make_source)
    with command_line():
        run_app(app if arguments is None else partial(app, list(arguments)))


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


def build_app(
    declared: Study | Search,
    reporting: Reporting,
    description: str | None,
    make_source: MakeSource = Grid,
) -> typer.Typer:
    """The command line of a study or a search; arguments as in `main`."""
    if isinstance(declared, Search):
        about = f"**Space**\n\n{describe_space(declared)}"
        own = options.of_search(declared.trials, declared.tuning_seeds)
        shared = {name: options.OF_STUDY[name] for name in options.OF_SEARCH_TOO}
        # Refused with the reason, not as words that nobody knows; --help does not list them.
        shared |= options.hidden(options.NOT_OF_SEARCH)
        setting = (
            "Fix a field (one value), make it a choice (several), or restrict what is "
            "compared; may be repeated."
        )
    else:
        factors = "\n\n".join(f"- {line}" for line in describe_factors(declared))
        about = f"**Factors** (vary them with --set)\n\n{factors}"
        own, shared = options.OF_STUDY, {}
        setting = (
            "Restrict or extend a factor's levels, or fix a field of the configuration; may be "
            "repeated."
        )
    known = {
        **options.of_request(
            data=declared.data, presets=declared.task.presets, seeds=declared.seeds, setting=setting
        ),
        **own,
        **shared,
        **options.OF_RUN,
    }

    def command(context: typer.Context, **typed: Any) -> None:
        request = Request(
            preset=typed["preset"],
            data=typed["data"],
            protocol=typed["protocol"],
            seeds=typed["seeds"],
            settings=tuple(typed["setting"] or ()),
            keep=tuple(typed.get("keep") or ()),
            until=typed.get("until"),
            most_seeds=typed.get("max_seeds"),
            track=tuple(typed.get("track") or ()),
            first=typed.get("first"),
            folds=typed.get("folds"),
            design=typed.get("design"),
        )
        urls = tuple(typed["notify"] or ())
        session = Session(
            resources=Resources(
                address=typed["address"],
                workers=typed["workers"],
                cpus_per_worker=typed["cpus_per_worker"],
                gpus_per_worker=typed["gpus_per_worker"],
                deadline_s=typed["deadline"],
                inline=typed["inline"],
                budget=Budget(
                    hours=typed.get("max_hours"),
                    gpu_hours=typed.get("max_gpu_hours"),
                    gpus_per_slot=typed["gpus_per_worker"] or 1.0,
                ),
            ),
            reporting=reporting,
            only_plan=typed["plan"],
            retry_failed=typed["retry_failed"],
            quiet=typed["quiet"],
            pilot=typed.get("pilot", False),
        )

        def run() -> int:
            session.resources.budget.check()
            notify.check(urls)
            asked = request
            if typed["config"] is not None:
                named = options.typed(context, ("preset", "data", "protocol", "seeds"))
                study = declared.as_study if isinstance(declared, Search) else declared
                asked = with_file(request, study, typed["config"], named)
            if isinstance(declared, Search):
                for name in options.typed(context, options.NOT_OF_SEARCH):
                    raise ConfigError(options.NOT_OF_SEARCH[name])
                session.results = options.absolute(typed["results"])
                return run_search(declared, asked, session, **{name: typed[name] for name in own})
            if session.pilot and not session.only_plan:
                raise ConfigError("--pilot goes with --plan, which then says what the rest costs")
            if typed["show_config"] or typed["yaml"] or typed["arm"] is not None:
                from sweeps.engine.configuration import show

                return show(
                    declared,
                    asked,
                    results=typed["results"],
                    arm=typed["arm"],
                    as_yaml=typed["yaml"],
                )
            session.results = options.absolute(typed["results"])
            return run_study(declared, asked, session, make_source)

        code = session.conclude(run)
        notify.tell_end(urls, declared.name, code, session.count)
        raise typer.Exit(code)

    app = typer.Typer(
        add_completion=False, rich_markup_mode="markdown", pretty_exceptions_show_locals=False
    )
    app.command(help=f"{(description or declared.question).strip()}\n\n{about}", epilog=EXIT_CODES)(
        _with_options(command, known)
    )
    return app


def _with_options(
    command: Callable[..., None], known: Mapping[str, tuple[Any, Any]]
) -> Callable[..., None]:
    """The function as typer reads it, its options spelled out: name → (annotated type, default)."""
    command.__signature__ = Signature(
        [
            Parameter("context", Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
            *(
                Parameter(name, Parameter.KEYWORD_ONLY, annotation=kind, default=default)
                for name, (kind, default) in known.items()
            ),
        ]
    )
    command.__annotations__ = {
        "context": typer.Context,
        **{name: kind for name, (kind, _) in known.items()},
    }
    return command
