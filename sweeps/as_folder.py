"""What a cell made of its data, as a folder that the next study reads with --data folder:.

    python sweeps/as_folder.py results/selection_methods/KEY --out chosen
    python sweeps/as_folder.py results/kshot/KEY --out masked
    python sweeps/apga_methods.py --data 'folder:chosen?size=32x32&colour=grey'

Of a cell that chose candidates: the images that its final classifier was trained on (the real ones
and the chosen ones, these as training images only), and its validation and test images. Of a cell
with a policy (computed with --keep weights): every image as the policy's mask leaves it. Groups and
parts stay what they are, so no patient changes sides. The last line says how to read the folder.
"""

if __name__ == "__main__":  # before the imports, which take a second
    from sweeps.engine.session import listen

    listen()

from pathlib import Path
from typing import Annotated

import typer

from imaging_core.fields import ConfigError
from sweeps.engine.session import Session
from sweeps.exits import OK
from sweeps.process import command_line


def run(text: str, out: Path, *, device: str) -> int:
    """Write the folder and say how to read it; returns the exit code.

    Raises:
        ConfigError, DataError, LedgerError: bad input, or a cell that made nothing of its data.
    """
    from sweeps.engine.applied import (
        apply_to,
        config_of,
        load_cell,
        load_row,
        own_data,
        own_pool,
        stages_beside,
    )
    from sweeps.engine.pictures import (
        PARTS,
        how_to_read,
        of_part,
        selected_pictures,
        write_dataset,
    )
    from sweeps.ledger.read import read_artifacts

    store, row, task = load_row(text)
    data = own_data(row)
    artifacts = read_artifacts(store, row["key"])
    if "kept" in artifacts:
        pool = own_pool(row, stages_beside(store))
        pictures = selected_pictures(
            config_of(row, task), row["seed"], data, pool, artifacts["kept"]
        )
    else:
        cell = load_cell(text)
        pictures = []
        for part in PARTS:
            split = getattr(data, part)
            applied = apply_to(cell, split.images, device=device)
            if applied.masked is None:
                raise ConfigError(
                    "a cell makes images by choosing from a pool or by a policy's masks, this one "
                    f"does neither ({row['arm']})"
                )
            pictures += of_part(part, split, data.classes, applied.masked)
    write_dataset(out, pictures)
    print(f"{len(pictures)} images in {out}; {how_to_read(data, out.absolute())}")
    return OK


def main(
    cell: Annotated[str, typer.Argument(help="results/STUDY/KEY, of a committed cell.")],
    out: Annotated[str, typer.Option(metavar="DIR", help="A folder that is empty or not there.")],
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Parse the command line and write the folder; the exit codes are those of a study."""
    raise typer.Exit(Session().conclude(lambda: run(cell, Path(out), device=device)))


app = typer.Typer(add_completion=False)
app.command(help=f"\b\n{__doc__ or ''}".replace("\n\n", "\n\n\b\n"))(main)

if __name__ == "__main__":
    with command_line():
        app()
