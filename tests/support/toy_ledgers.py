"""Ledgers made with the ledger's own writers: what a study would leave, without training."""

import datetime
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np

from sweeps.ledger.commit import commit_cell, commit_failure, write_manifest
from sweeps.ledger.files import Store
from sweeps.ledger.schema import Manifest, PlannedCell, arm_label, canonical, cell_key

FRACTIONS = ("accuracy", "auc", "sensitivity", "specificity", "val_best", "test_at_best_val")
METRICS = tuple(
    {
        "name": name,
        "label": {"accuracy": "Accuracy", "auc": "AUC"}.get(name, name.capitalize()),
        "higher_is_better": True,
        "low": 0,
        "high": 1,
        "meaning": f"{name} on the test split",
    }
    for name in FRACTIONS
)
RISE = {
    "name": "reward_rise",
    "label": "Rise",
    "higher_is_better": None,
    "low": -float("inf"),
    "high": float("inf"),
    "meaning": "of the reward",
}
CONTROLLER_FACTORS = {
    "policy_gradient": ("reinforce", "ppo"),
    "controller": ("gru", "gru_attention", "transformer"),
}


@dataclass(frozen=True)
class Part:
    """The fields of a cell's predictions that the ledger writes."""

    split: str
    ids: np.ndarray
    groups: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray


def row_of(
    cell: PlannedCell,
    metrics: Mapping[str, float],
    curves: Mapping[str, list[float]],
    *,
    data: str = "ihc-colon",
    config: Mapping[str, object] | None = None,
    study: str = "toy",
) -> dict[str, object]:
    """One finished cell as a worker would commit it."""
    return {
        "schema_version": 1,
        "key": cell.key,
        "status": "ok",
        "study": study,
        "core": "selection_core",
        "core_version": 1,
        "arm": cell.arm,
        "levels": dict(cell.levels),
        "config": canonical({"k_shot": 16, **(config or {}), **cell.levels}),
        "seed": cell.seed,
        "data": data,
        "data_fingerprint": "f00d",
        "protocol": "held-out",
        "metrics": dict(metrics),
        "curves": {name: list(values) for name, values in curves.items()},
        "attempts": 1,
        "error_type": None,
        "error": None,
        "traceback": None,
        "git_commit": "0123456789abcdef",
        "git_dirty": False,
        "versions": {"numpy": "2.0.0", "torch": "2.15.0"},
        "host": "bench-1",
        "node": "inline",
        "device": "cpu",
        "started": datetime.datetime(2026, 11, 21, 3, 0, tzinfo=datetime.UTC)
        + datetime.timedelta(seconds=cell.seed),
        "wall_s": 10.0 + cell.seed,
        "cpu_s": 9.5,
        "stage_keys": {"pool": "abc123"},
    }


def predictions_of(rng: np.random.Generator, accuracy: float, patients: int = 12) -> Part:
    """Five images per patient, labelled by patient, right with probability `accuracy`."""
    groups = np.repeat(np.arange(patients), 5)
    labels = groups % 2
    right = rng.random(len(groups)) < accuracy
    score = np.where(right, labels, 1 - labels) * 0.6 + 0.2
    return Part(
        split="test",
        ids=np.array([f"img{i}" for i in range(len(groups))]),
        groups=np.array([f"patient{g}" for g in groups]),
        labels=labels,
        probabilities=np.stack([1 - score, score], axis=1).astype(np.float32),
    )


def make_ledger(
    root: Path,
    *,
    factors: Mapping[str, tuple[str, ...]] = CONTROLLER_FACTORS,
    baseline: Mapping[str, str] | None = None,
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4),
    tables: tuple[str, ...] = ("ye2020_t3_cervical_ablation_test",),
    data: str = "ihc-colon",
    protocol: str = "held-out",
    study: str = "controller_ablation",
    value: Callable[[Mapping[str, str], int, str], float] | None = None,
    missing: tuple[int, ...] = (),
    failed: tuple[int, ...] = (),
    predictions: bool = False,
    artifacts: bool = False,
    config: Mapping[str, object] | None = None,
    extra: Mapping[str, object] | None = None,
    metrics: tuple[str, ...] = FRACTIONS,
    keep: Sequence[int] | None = None,
) -> Path:
    """A study's folder. `missing` and `failed` are positions in the plan (arm-major); `keep` are
    the arms of the product that are planned, all by default.
    """
    store = Store(root)
    rng = np.random.default_rng(7)
    arms = [
        dict(zip(factors, levels, strict=True)) for levels in itertools.product(*factors.values())
    ]
    arms = arms if keep is None else [arms[i] for i in keep]
    cells = tuple(
        PlannedCell(
            key=cell_key(
                "selection_core", 1, {"k_shot": 16, **(config or {}), **arm}, seed, "f00d"
            ),
            arm=arm_label(arm),
            levels=arm,
            seed=seed,
        )
        for arm in arms
        for seed in seeds
    )
    for number, cell in enumerate(cells):
        strength = 0.7 + 0.02 * (number // len(seeds))
        values = {
            name: value(cell.levels, cell.seed, name)
            if value
            else float(np.clip(strength + 0.02 * rng.standard_normal(), 0, 1))
            for name in metrics
        }
        curves = {"reward": [strength * (1 - 0.8**t) for t in range(1, 11)]}
        row = row_of(cell, values, curves, data=data, config=config, study=study)
        if number in missing:
            continue
        if number in failed:
            error = {"status": "failed", "error_type": "ValueError", "error": "loss is NaN"}
            commit_failure(store, {**row, **error, "traceback": "Traceback …", "attempts": 2})
            continue
        parts = (predictions_of(rng, strength),) if predictions else ()
        arrays = {"kept_real": rng.random((3, 8, 8)).astype(np.float32)} if artifacts else None
        with mock.patch(
            "os.fsync"
        ):  # nobody takes this disk away; waiting for it was most of the time
            commit_cell(store, row, parts, arrays)
    manifest = Manifest(
        study=study,
        question="Which controller and which policy gradient choose the best images?",
        core="selection_core",
        factors=factors,
        baseline=baseline or {name: levels[0] for name, levels in factors.items()},
        seeds=seeds,
        preset="demo",
        data=data,
        protocol=protocol,
        data_fingerprint="f00d",
        data_card="One H-DAB slide, cut into patches.",
        tables=tables,
        metrics=tuple(m for m in (*METRICS, RISE) if m["name"] in metrics),
        cells=cells,
        extra=extra or {},
    )
    write_manifest(store, manifest)
    return root
