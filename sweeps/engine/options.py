"""The command-line options that studies and searches share."""

from collections.abc import Iterable
from typing import Annotated

import typer

from imaging_core import datasets

Address = Annotated[
    str,
    typer.Option(
        help="'local' starts Ray on this machine; 'auto' joins the running cluster, or "
        "starts one here where there is none; HOST:PORT joins that one."
    ),
]
Protocol = Annotated[
    str, typer.Option(help="'held-out', or 'paper' (as printed, and labelled so).")
]
Results = Annotated[
    str, typer.Option(metavar="DIR", help="Folder or URI (s3://, gs://) of results.")
]
OnlyPlan = Annotated[bool, typer.Option("--plan", help="Say what would be computed, and stop.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Compute failed cells again.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="At most so many workers. Default: every slot.")
]
GpusPerWorker = Annotated[
    float | None,
    typer.Option(min=0.0, help="May be a fraction. Default: 1 where there are GPUs."),
]
CpusPerWorker = Annotated[float, typer.Option(min=0.05)]
Deadline = Annotated[
    float | None,
    typer.Option(
        min=1.0,
        metavar="SECONDS",
        help="A cell that runs longer is ended and counts as failed. Default: 6 hours.",
    ),
]
DEADLINE_S = 6 * 3600.0
Inline = Annotated[bool, typer.Option("--inline", help="No Ray, in this process, for a debugger.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="The last line and errors only.")]


def data_option(default: str) -> typer.models.OptionInfo:
    """`--data`, its default named."""
    return typer.Option(
        metavar="NAME[:PATH]",
        help=f"Dataset; known: {', '.join(datasets.names())}. Default: {default}.",
    )


def setting_option(text: str) -> typer.models.OptionInfo:
    """`--set`, which may be repeated."""
    return typer.Option("--set", metavar="FACTOR=a,b", help=text)


def seeds_option(default: int) -> typer.models.OptionInfo:
    """`--seeds`, its default named."""
    return typer.Option(
        metavar="N|LIST",
        help=f'How many ("5" means 0..4), or which ("0,1,7"; "7," is one). Default: {default}.',
    )


Keep = Annotated[
    list[str] | None,
    typer.Option(
        metavar="weights",
        help="Store each cell's networks beside it (final classifier, policy, controller), for "
        "sweeps/apply.py; --plan says how many bytes. The cells are the same.",
    ),
]
Track = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TRACKER[:PLACE]",
        help="Write committed cells to tensorboard[:DIR], mlflow[:URI] or wandb[:PROJECT] as they "
        "come (analysis/export.py does it afterwards); may be repeated.",
    ),
]
Config = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.yaml",
        help="Read preset, data, seeds, factors and fields from a file (--show-config --yaml "
        "writes one); what is typed beside it wins.",
    ),
]
ShowConfig = Annotated[
    bool,
    typer.Option(
        "--show-config",
        help="Every field of an arm: value, where it comes from, type, range, meaning; and stop.",
    ),
]
AsYaml = Annotated[
    bool, typer.Option("--yaml", help="With --show-config: as the file that --config reads.")
]
Arm = Annotated[
    str | None,
    typer.Option(
        metavar="FACTOR=LEVEL,…", help="With --show-config: of this arm. Default: the baseline."
    ),
]


def typed(context: typer.Context, names: Iterable[str]) -> tuple[str, ...]:
    """Those of the parameters `names` that stand on the command line."""
    default = ("DEFAULT", "DEFAULT_MAP")
    return tuple(n for n in names if context.get_parameter_source(n).name not in default)
