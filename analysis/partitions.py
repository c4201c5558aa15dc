"""A study whose factors deal the images out anew (`fold`, `split_seed`): partitions are replicates.

What is compared is the same arm on every partition, so analysis sees arms without these factors and
partition × seed where other studies have seeds. Seeds of one partition are averaged before anything
is tested; over partitions Nadeau and Bengio's correction holds (`sweeps.search.paired`).
"""

from dataclasses import dataclass, replace

import numpy as np

from analysis.inference import Paired, paired_family
from analysis.reading import ledger_of
from sweeps.ledger.declared import PARTITIONS, declared_in, partition_of, without_partition
from sweeps.ledger.read import Ledger
from sweeps.ledger.schema import Manifest, PlannedCell, arm_label

REPLICATES = "replicates"
"""Of `Manifest.extra`, here alone: partitions, and seeds of each."""


@dataclass(frozen=True, kw_only=True)
class Partitioned:
    """How the columns of arms × replicates belong together: partition by partition.

    Attributes:
        count: partitions.
        seeds: of each.
        overlap: test images for each one that is learned from.
    """

    count: int
    seeds: int
    overlap: float

    def means(self, differences: np.ndarray) -> np.ndarray:
        """(m, partitions) of (m, partitions × seeds): the mean over the seeds that are there."""
        cube = self._cube(differences)
        there = ~np.isnan(cube)
        total = np.where(there, cube, 0.0).sum(axis=2)
        count = there.sum(axis=2)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def all(self, settled: np.ndarray) -> np.ndarray:
        """(m, partitions) whether every seed of a partition is."""
        return self._cube(settled).all(axis=2)

    def _cube(self, values: np.ndarray) -> np.ndarray:
        return values.reshape(len(values), self.count, self.seeds)

    @property
    def said(self) -> str:
        """For the notes under a table."""
        each = f", the mean over {self.seeds} seeds each" if self.seeds > 1 else ""
        return (
            f"{self.count} partitions of the patients{each}; interval and p by Nadeau and "
            "Bengio's corrected t, as partitions share what is learned from "
            f"({self.overlap:.2f} test images for each image of the other parts)"
        )


def partitioned_in(manifest: Manifest) -> Partitioned | None:
    """How the replicates of `over_partitions` belong together; None of an ordinary study."""
    found = manifest.extra.get(REPLICATES)
    return Partitioned(**found) if found else None


def family_of(differences: np.ndarray, partitioned: Partitioned | None) -> list[Paired]:
    """`paired_family` of (m, replicates): over seeds, or over partitions with their correction."""
    if partitioned is None:
        return paired_family(differences)
    return paired_family(partitioned.means(differences), partitioned.overlap)


def read_study(root: str, *, details: bool = True) -> Ledger:
    """`ledger_of`, with partitions as replicates.

    Raises:
        LedgerError: no study there, or what it declared is damaged.
    """
    return over_partitions(ledger_of(root, details=details))


def over_partitions(ledger: Ledger) -> Ledger:
    """The ledger with arms that the partition does not tell apart, and a replicate's number for its
    seed: partition by partition, seed by seed. The same ledger where there is one partition.
    """
    manifest = ledger.manifest
    if not any(len(manifest.factors.get(name, ())) > 1 for name in PARTITIONS):
        return ledger
    partitions = list(dict.fromkeys(partition_of(cell.levels) for cell in manifest.cells))
    seeds = sorted({cell.seed for cell in manifest.cells})
    declared, _ = declared_in(manifest)
    place = {cell.arm: partitions.index(partition_of(cell.levels)) for cell in manifest.cells}
    levels = {cell.arm: without_partition(cell.levels) for cell in manifest.cells}
    labels = {arm: arm_label(of_arm) for arm, of_arm in levels.items()}
    turn = {seed: number for number, seed in enumerate(seeds)}
    cells = ledger.cells.assign(
        arm=ledger.cells["arm"].map(labels),
        seed=ledger.cells["arm"].map(place) * len(seeds) + ledger.cells["seed"].map(turn),
    )
    order = {label: number for number, label in enumerate(dict.fromkeys(labels.values()))}
    rows = np.lexsort((cells["seed"].to_numpy(), cells["arm"].map(order).to_numpy()))
    replicates = Partitioned(
        count=len(partitions), seeds=len(seeds), overlap=declared.overlap if declared else 0.0
    )
    planned = [
        PlannedCell(
            key=cell.key,
            arm=labels[cell.arm],
            levels=levels[cell.arm],
            seed=place[cell.arm] * len(seeds) + turn[cell.seed],
        )
        for cell in manifest.cells
    ]
    seen = replace(
        manifest,
        factors=without_partition(manifest.factors),
        baseline=without_partition(manifest.baseline),
        seeds=tuple(range(len(partitions) * len(seeds))),
        cells=tuple(sorted(planned, key=lambda cell: (order[cell.arm], cell.seed))),
        extra={**manifest.extra, REPLICATES: vars(replicates)},
    )
    return replace(ledger, manifest=seen, cells=cells.iloc[rows].reset_index(drop=True))
