"""Use the networks of a cell that was computed with --keep weights, on images that it never saw.

    python sweeps/apply.py results/kshot/KEY                                # the cell's own data
    python sweeps/apply.py results/kshot/KEY --data folder:/new?size=32x32  # labelled images
    python sweeps/apply.py results/kshot/KEY --images /new/images           # any images
    python sweeps/apply.py results/selection_methods/KEY --pool /new        # candidates to choose
    python sweeps/apply.py results/selection_methods/KEY --pool own         # the cell's own ones

A cell is its study's folder and its key, or the key's first letters. Written to --out:

    predictions.parquet   one row per image: split, id, group, label, predicted, p(<class>) …
    masks.parquet         APGA: split, id, file, share of the image that is kept, p of every pixel
    masks/<split>/*.png   APGA: p as grey values, 255 is 1
    pool.parquet          a controller: place in the pool, file, label, keep probability, kept

A controller sees another pool as it saw its own: standardised by its own training pool.
"""

if __name__ == "__main__":  # before the imports, which take a second
    from sweeps.engine.session import listen

    listen()

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from imaging_core.datasets import ImageDataset
from imaging_core.fields import ConfigError
from imaging_core.keeping import Applied
from sweeps.engine.session import Session
from sweeps.exits import OK
from sweeps.process import command_line

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """N images and what the networks say of them; `groups` and `labels` are empty if unknown."""

    split: str
    ids: list[str]
    applied: Applied
    groups: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


def of_dataset(data: ImageDataset, part: str, applied: Applied) -> Shown:
    """One part of a dataset."""
    split = getattr(data, part)
    return Shown(
        split=part,
        ids=[str(x) for x in split.ids],
        applied=applied,
        groups=tuple(str(x) for x in split.groups),
        labels=tuple(data.classes[x] for x in split.labels),
    )


def write_predictions(path: Path, classes: tuple[str, ...], shown: list[Shown]) -> None:
    """One row per image; `label` and `group` are null where nobody knows them."""
    p = np.concatenate([part.applied.probabilities for part in shown])
    rows = [
        (part.split, *row)
        for part in shown
        for row in zip(
            part.ids,
            part.groups or [None] * len(part.ids),
            part.labels or [None] * len(part.ids),
            strict=True,
        )
    ]
    known = zip(("split", "id", "group", "label"), zip(*rows, strict=True), strict=True)
    table = pa.table(
        {
            **{name: pa.array(values, pa.string()) for name, values in known},
            "predicted": pa.array([classes[i] for i in p.argmax(1)], pa.string()),
            **{f"p({name})": pa.array(p[:, i]) for i, name in enumerate(classes)},
        }
    )
    pq.write_table(table, path)


def write_masks(out: Path, shown: list[Shown]) -> None:
    """`masks.parquet` (height and width in its metadata), and p of every image as a PNG."""
    from sweeps.engine.pictures import file_name, write_png

    p = np.concatenate([part.applied.importance for part in shown]).astype(np.float32)
    names = [(part.split, name) for part in shown for name in part.ids]
    files = [f"masks/{part}/{file_name(n, name)}" for n, (part, name) in enumerate(names)]
    for file, image in zip(files, p, strict=True):
        write_png(out / file, (image * 255).round().astype(np.uint8))
    table = pa.table(
        {
            "split": [part for part, _ in names],
            "id": [name for _, name in names],
            "file": files,
            "area": (p >= 0.5).mean(axis=(1, 2)),
            "p": pa.array(list(p.reshape(len(p), -1)), pa.list_(pa.float32())),
        }
    ).replace_schema_metadata({"height": str(p.shape[1]), "width": str(p.shape[2])})
    pq.write_table(table, out / "masks.parquet")


def main(
    cell: Annotated[str, typer.Argument(help="results/STUDY/KEY, of a committed cell.")],
    data: Annotated[
        str | None,
        typer.Option(metavar="NAME[:PATH]", help="A dataset. Default: the cell's own."),
    ] = None,
    images: Annotated[
        str | None, typer.Option(metavar="DIR", help="Images without labels, instead of --data.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="Part of the dataset: train, validation, test or all.")
    ] = "test",
    pool: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|own",
            help="Candidates for the cell's controller: a folder per class, or the cell's own.",
        ),
    ] = None,
    out: Annotated[str, typer.Option(metavar="DIR", help="Where to write.")] = "applied",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Parse the command line and apply; the exit codes are those of a study."""

    def work() -> int:
        if sum(x is not None for x in (data, images, pool)) > 1:
            raise ConfigError("give one of --data, --images and --pool, not several")
        if split not in (*PARTS, "all"):
            raise ConfigError(f'--split must be one of {", ".join(PARTS)}, all, got "{split}"')
        if pool is not None:
            return choose(cell, pool, Path(out), device=device)
        return look(cell, data, images, split, Path(out), device=device)

    raise typer.Exit(Session().conclude(work))


def look(
    text: str, data: str | None, images: str | None, split: str, out: Path, *, device: str
) -> int:
    """Predictions and masks of a dataset or a folder; returns the exit code.

    Raises:
        ConfigError, DataError, LedgerError: bad input.
    """
    from sweeps.engine.applied import apply_to, data_of, images_in, load_cell, own_data

    cell = load_cell(text)
    if images is not None:
        pixels, names = images_in(images, cell.kept)
        applied = apply_to(cell, pixels, device=device)
        shown = [Shown(split="images", ids=names, applied=applied)]
    else:
        found = own_data(cell.row) if data is None else data_of(data, cell)
        shown = [
            of_dataset(found, part, apply_to(cell, getattr(found, part).images, device=device))
            for part in (PARTS if split == "all" else (split,))
        ]
    out.mkdir(parents=True, exist_ok=True)
    write_predictions(out / "predictions.parquet", cell.kept.classes, shown)
    print(f"{sum(len(part.ids) for part in shown)} images: {out / 'predictions.parquet'}")
    for part in shown:
        if part.labels:
            predicted = [cell.kept.classes[i] for i in part.applied.probabilities.argmax(1)]
            right = sum(a == b for a, b in zip(predicted, part.labels, strict=True))
            share = right / len(predicted)
            print(f"{part.split}: accuracy {share:.4f} ({right} of {len(predicted)})")
    if shown[0].applied.importance is not None:
        write_masks(out, shown)
        print(f"masks of the policy: {out / 'masks.parquet'}, {out / 'masks'}")
    return OK


def choose(text: str, pool: str, out: Path, *, device: str) -> int:
    """What the cell's controller keeps of a pool; returns the exit code.

    Raises:
        ConfigError, DataError, LedgerError: bad input.
    """
    from selection_core.pool_folder import read_pool
    from sweeps.engine.applied import apply_to, load_cell, own_pool

    cell = load_cell(text)
    kept = cell.kept
    if pool == "own":
        candidates = own_pool(cell.row, cell.stages)
        pixels, labels = candidates["images"], candidates["labels"]
        files = [""] * len(labels)
    else:
        pixels, labels, files = read_pool(
            pool,
            kept.classes,
            per_class=0,
            channels=kept.channels,
            size=kept.size,
            rng=np.random.default_rng(0),  # every image is taken, in the order of their names
        )
    applied = apply_to(cell, pixels, labels, device=device)
    if applied.keep_probability is None:
        method = getattr(kept.config, "method", "")
        raise ConfigError(f"--pool needs a cell with a controller, this one has method={method}")
    out.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "pool_index": np.arange(len(labels)),
            "file": files,
            "label": [kept.classes[i] for i in labels],
            "keep_probability": applied.keep_probability,
            "kept": applied.keep,
        }
    )
    pq.write_table(table, out / "pool.parquet")
    print(f"{int(applied.keep.sum())} of {len(labels)} candidates kept: {out / 'pool.parquet'}")
    return OK


app = typer.Typer(add_completion=False)
app.command(help=f"\b\n{__doc__ or ''}".replace("\n\n", "\n\n\b\n"))(main)

if __name__ == "__main__":
    with command_line():
        app()
