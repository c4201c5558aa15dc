"""The command-line options that studies and searches share."""

from collections.abc import Iterable, Mapping
from copy import copy
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from imaging_core import datasets
from imaging_core.fields import ConfigError
from sweeps.ledger.files import Store
from sweeps.ledger.places import whole
from sweeps.ledger.schema import LedgerError

DEADLINE_S = 6 * 3600.0
Options = Mapping[str, tuple[Any, Any]]
"""Name of an option → (its annotated type, its default)."""


def _option(kind: Any, default: Any, *names: str, **how: Any) -> tuple[Any, Any]:
    """An option of this type; `names` and `how` as typer has them."""
    return Annotated[kind, typer.Option(*names, **how)], default


def _flag(name: str, text: str) -> tuple[Any, Any]:
    return _option(bool, False, name, help=text)


OF_RUN: Options = {
    "address": _option(
        str,
        "local",
        help="'local' starts Ray on this machine; 'auto' joins the running cluster, or "
        "starts one here where there is none; HOST:PORT joins that one.",
    ),
    "results": _option(
        str, "results", metavar="DIR", help="Folder or URI (s3://, gs://) of results."
    ),
    "plan": _flag("--plan", "Say what would be computed, and stop."),
    "retry_failed": _flag("--retry-failed", "Compute failed cells again."),
    "workers": _option(
        int | None, None, min=1, help="At most so many workers. Default: every slot."
    ),
    "gpus_per_worker": _option(
        float | None, None, min=0.0, help="May be a fraction. Default: 1 where there are GPUs."
    ),
    "cpus_per_worker": _option(float, 1.0, min=0.05),
    "deadline": _option(
        float | None,
        DEADLINE_S,
        min=1.0,
        metavar="SECONDS",
        help="A cell that gives no sign of progress for so long is ended and counts as "
        "failed. Default: 6 hours.",
    ),
    "inline": _flag("--inline", "No Ray, in this process, for a debugger."),
    "notify": _option(
        list[str] | None,
        None,
        metavar="URL",
        help="Tell this service how the run ended (apprise's URLs, extra notify: json://, "
        "mailto://, slack://, …); may be repeated.",
    ),
    "quiet": _flag("--quiet", "The last line and errors only."),
}


OF_STUDY: Options = {
    "until": _option(
        str | None,
        None,
        metavar="decided",
        help="A race: add seeds in looks to the arms whose comparison with the baseline is "
        "open, and stop each once it is better, worse or equivalent.",
    ),
    "max_seeds": _option(
        int | None, None, metavar="N", help="What a race may use at most. Default: the study's."
    ),
    "design": _option(
        str | None,
        None,
        metavar="full|one-at-a-time|screening",
        help="Which combinations of the factors' levels are computed: all; one move from "
        "the baseline at a time; or two levels a factor in a fraction of resolution IV. "
        "Default: the study's own.",
    ),
    "folds": _option(
        int | None,
        None,
        metavar="K",
        help="Cross-validate: every arm on K folds of the patients (the factor fold), each "
        "of them once the test set; at least 3.",
    ),
    "first": _option(
        str | None,
        None,
        metavar="FACTOR=LEVEL,…",
        help="Compute the arms that have these levels first.",
    ),
    "pilot": _flag(
        "--pilot",
        "With --plan: compute one cell of every arm first (it is kept), and say what "
        "the rest costs in hours.",
    ),
    "max_hours": _option(
        float | None,
        None,
        metavar="H",
        help="Start no further cell after H hours: at most a cell per slot more, then "
        "tables, what the rest would cost, and exit code 3.",
    ),
    "max_gpu_hours": _option(
        float | None,
        None,
        metavar="H",
        help="The same for hours × slots × GPUs per worker (a slot without a GPU counts as one).",
    ),
    "keep": _option(
        list[str] | None,
        None,
        metavar="weights",
        help="Store each cell's networks beside it (final classifier, policy, controller), "
        "for sweeps/apply.py; --plan says how many bytes. The cells are the same.",
    ),
    "track": _option(
        list[str] | None,
        None,
        metavar="TRACKER[:PLACE]",
        help="Write committed cells to tensorboard[:DIR], mlflow[:URI] or wandb[:PROJECT] "
        "as they come (analysis/export.py does it afterwards); may be repeated.",
    ),
    "config": _option(
        str | None,
        None,
        metavar="FILE.yaml",
        help="Read preset, data, seeds, factors and fields from a file (--show-config "
        "--yaml writes one); what is typed beside it wins.",
    ),
    "show_config": _flag(
        "--show-config",
        "Every field of an arm: value, where it comes from, type, range, meaning; and stop.",
    ),
    "yaml": _flag("--yaml", "With --show-config: as the file that --config reads."),
    "arm": _option(
        str | None,
        None,
        metavar="FACTOR=LEVEL,…",
        help="With --show-config: of this arm. Default: the baseline.",
    ),
}


OF_SEARCH_TOO = ("keep", "track", "config", "max_hours", "max_gpu_hours")
"""Options of a study that a search has too."""
NOT_OF_SEARCH = {
    "pilot": "--pilot prices the arms of a plan, and a search proposes its arms while it runs; "
    "--trials 1 computes the default of each compared level, and its cells are kept",
    "until": "--until adds seeds to arms that are compared, and a search's are not known before it "
    "has run; race the winners afterwards, as a study of your own",
    "first": "--first puts arms of a plan ahead, and a search's are proposed; --set restricts them",
    "show_config": "--show-config shows the arms of a plan, and a search's are proposed; --help "
    "lists its space, and the study's own script its configuration",
}
"""Options of a study that a search has not, and why."""


def typed(context: typer.Context, names: Iterable[str]) -> tuple[str, ...]:
    """Those of the parameters `names` that stand on the command line."""
    default = ("DEFAULT", "DEFAULT_MAP")
    return tuple(n for n in names if context.get_parameter_source(n).name not in default)


def of_request(*, data: str, presets: Iterable[str], seeds: int, setting: str) -> Options:
    """What is asked of a study or a search, with the defaults that it declares.

    Args:
        setting: what `--set` does.
    """
    return {
        "data": _option(
            str | None,
            None,
            metavar="NAME[:PATH]",
            help=f"Dataset; known: {', '.join(datasets.names())}. Default: {data}.",
        ),
        "preset": _option(str, "demo", help=f"One of {', '.join(presets)}."),
        "protocol": _option(
            str, "held-out", help="'held-out', or 'paper' (as printed, and labelled so)."
        ),
        "seeds": _option(
            str | None,
            None,
            metavar="N|LIST",
            help=f'How many ("5" means 0..4), or which ("0,1,7"; "7," is one). Default: {seeds}.',
        ),
        "setting": _option(list[str] | None, None, "--set", metavar="FACTOR=a,b", help=setting),
    }


def of_search(trials: int, tuning_seeds: int) -> Options:
    """What only a search is asked, with the defaults that it declares."""
    return {
        "trials": _option(
            int | None,
            None,
            help=f"Proposals per compared level, the default included. Default: {trials}.",
        ),
        "tuning_seeds": _option(
            str | None,
            None,
            metavar="N|LIST",
            help='How many seeds to tune with ("5" means 1000..1004), or which; disjoint '
            f"from --seeds. Default: {tuning_seeds}.",
        ),
        "rounds_of": _option(
            int,
            0,
            help="Propose so many at a time per compared level, from finished rounds "
            "alone: the same search for any number of workers. 0: from whatever is there.",
        ),
        "prune": (
            Annotated[
                str | None,
                typer.Option(
                    metavar="NAME[:OPTION=N,…]",
                    help="Let Optuna's pruner hear each cell while it runs, and end it: median, "
                    "halving or hyperband, with Optuna's options (median:n_warmup_steps=5). How "
                    "often the best arm is ended stands in sweeps/README.md.",
                ),
            ],
            None,
        ),
    }


def hidden(names: Iterable[str]) -> Options:
    """Options of a study that are read and not listed."""
    found = {}
    for name in names:
        kind, default = OF_STUDY[name]
        of, declared = get_args(kind)
        unlisted = copy(declared)
        unlisted.hidden = True
        found[name] = (Annotated[of, unlisted], default)
    return found


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
