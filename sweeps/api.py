"""Studies from Python: what a notebook asks of a ledger, and a study that it runs.

    from sweeps import open_study, run
    from sweeps.apga_methods import STUDY

    study = run(STUDY, seeds=3, settings={"method": ["baseline_matched", "apga"]})
    study.cells.groupby("arm")["metric.test_at_best_val"].agg(["mean", "std", "count"])
    open_study("results/apga_methods").curves("validation_accuracy")

Reading needs neither Ray nor torch, and changes nothing.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sweeps.ledger.files import Store
from sweeps.ledger.places import whole
from sweeps.ledger.read import Ledger, read_artifacts, read_ledger
from sweeps.ledger.schema import LedgerError, Manifest

if TYPE_CHECKING:
    from sweeps.engine.study import Study


class StudyRefused(ValueError):
    """The study was not started: bad input, which was printed with its remedy."""


class OpenStudy:
    """One study's ledger as frames; what was read stays as it was, `reload` reads it anew.

    Args:
        root: the study's folder or URI, `results/<study>`.

    Raises:
        LedgerError: no study there.
    """

    def __init__(self, root: str) -> None:
        self.root = whole(root, "the study's folder")
        self._ledger  # noqa: B018  # a folder without a study is refused here

    @cached_property
    def _ledger(self) -> Ledger:
        return read_ledger(self.root)

    def reload(self) -> "OpenStudy":
        """The study as its ledger is now."""
        return OpenStudy(self.root)

    def __repr__(self) -> str:
        counts = self.cells["status"].value_counts()
        states = ", ".join(f"{count} {status}" for status, count in counts.items())
        return f"<study {self.manifest.study}: {len(self.cells)} cells ({states}) in {self.root}>"

    @property
    def manifest(self) -> Manifest:
        """What was declared and last planned."""
        return self._ledger.manifest

    @property
    def cells(self) -> pd.DataFrame:
        """One row per planned cell: key, arm, seed, `factor.<name>`, status ("ok", "failed",
        "missing"), `metric.<name>` (NaN unless ok), config, host, device, started, wall_s, …

        A copy, in plan order.
        """
        return self._ledger.cells.copy()

    def _ok(self, arm: str | None) -> pd.DataFrame:
        cells = self._ledger.cells
        if arm is not None and arm not in set(cells["arm"]):
            raise KeyError(f'no arm "{arm}"; arms: {", ".join(cells["arm"].unique())}')
        chosen = cells["status"] == "ok"
        return cells[chosen & (cells["arm"] == arm)] if arm is not None else cells[chosen]

    def curves(self, name: str | None = None, arm: str | None = None) -> pd.DataFrame:
        """Long form: key, arm, seed, curve, step (from 0), value; all curves and arms by default.

        Raises:
            KeyError: no finished cell has such a curve, or there is no such arm.
        """
        rows = [
            (row.key, row.arm, row.seed, curve, step, value)
            for row in self._ok(arm).itertuples()
            for curve, values in dict(row.curves or {}).items()
            if name in (None, curve)
            for step, value in enumerate(values)
        ]
        if name is not None and not rows:
            known = {c for curves in self._ok(arm)["curves"] for c in dict(curves or {})}
            raise KeyError(f'no curve "{name}"; curves: {", ".join(sorted(known)) or "none"}')
        return pd.DataFrame(rows, columns=["key", "arm", "seed", "curve", "step", "value"])

    def predictions(self, split: str | None = None, arm: str | None = None) -> pd.DataFrame:
        """Long form: key, arm, seed, split, id, group, label, probabilities (a list per example).

        Args:
            split: "validation" or "test"; None is both.

        Raises:
            KeyError: no such arm.
            LedgerError: predictions are damaged.
        """
        reader, found = self._ledger.predictions(), []
        for row in self._ok(arm).itertuples():
            try:
                table = reader.read(row.key)
            except FileNotFoundError:
                continue  # a study need not store any
            table = table if split is None else table[table["split"] == split]
            found.append(table.assign(key=row.key, arm=row.arm, seed=row.seed))
        columns = ["key", "arm", "seed", "split", "id", "group", "label", "probabilities"]
        if not found:
            return pd.DataFrame(columns=columns)
        return pd.concat(found, ignore_index=True)[columns]

    def artifacts(self, key: str) -> dict[str, np.ndarray]:
        """The small arrays of one cell (keep probabilities, mask gallery); empty where it has none.

        Raises:
            KeyError: no such cell.
        """
        if key not in set(self._ledger.cells["key"]):
            raise KeyError(f'no cell "{key}" in {self.root}')
        return read_artifacts(Store(self.root), key)

    def decisions(self) -> pd.DataFrame:
        """Every comparison with the baseline by the primary metric: arm, baseline, n (common
        seeds), difference (mean over them), answer ("better", "worse", "equivalent", "undecided"),
        and text, which says what an open one would cost. Empty where nothing can be compared.

        Needs the `analysis` extra.
        """
        from analysis.decisions import decisions
        from analysis.partitions import over_partitions
        from sweeps.ledger.schema import arm_label

        found = decisions(over_partitions(self._ledger))
        names = ["arm", "baseline", "n", "difference", "answer", "text"]
        if found is None:
            return pd.DataFrame(columns=names)
        labels = [arm_label(levels) for levels in found.arms.levels]
        rows = [
            (labels[d.row], labels[d.reference], d.pair.n, d.pair.mean, d.answer, d.text)
            for d in found.every
        ]
        return pd.DataFrame(rows, columns=names)


def open_study(root: str) -> OpenStudy:
    """The study in the folder or URI `root` (`results/<study>`), to read.

    Raises:
        LedgerError: no study there.
    """
    return OpenStudy(root)


def run(
    study: "Study",
    *,
    seeds: int | Sequence[int] | None = None,
    preset: str = "demo",
    data: str | None = None,
    settings: Mapping[str, Any] | None = None,
    results: str = "results",
    inline: bool = False,
    options: Sequence[str] = (),
) -> OpenStudy:
    """Run `study` as its script would, with the same lock, ledger and resume; then open it.

    Args:
        study: a declaration, `sweeps.apga_methods.STUDY` or one of your own.
        seeds: how many, or which.
        settings: field or factor → value, or a list of levels, as --set.
        inline: in this process, without Ray.
        options: any others, as on the command line: ["--keep", "weights", "--workers", "4"].

    Raises:
        StudyRefused: bad input; nothing was started.
        KeyboardInterrupt: by a signal; what is committed stays, and the same call resumes.
        RuntimeError: what computes died; what is committed stays.
    """
    from analysis import reporting
    from sweeps.engine.cli import build_app

    arguments = ["--preset", preset, "--results", results, *(["--inline"] if inline else [])]
    if seeds is not None:
        listed = [seeds] if isinstance(seeds, int) else [*map(str, seeds), *[""][: len(seeds) == 1]]
        arguments += ["--seeds", ",".join(map(str, listed))]
    if data is not None:
        arguments += ["--data", data]
    for name, value in (settings or {}).items():
        several = isinstance(value, Sequence) and not isinstance(value, str)
        levels = value if several else [value]
        arguments += ["--set", f"{name}={','.join(map(str, levels))}"]
    app = build_app(study, reporting.run, study.question)
    code: int | str | None = 0
    try:
        app([*arguments, *options])
    except SystemExit as end:
        code = end.code
    root = f"{whole(results).rstrip('/')}/{study.name}"
    if code == 2:
        raise StudyRefused(f"{study.name} was not started: see the message above")
    if isinstance(code, int) and code > 128:
        raise KeyboardInterrupt
    try:
        return open_study(root)
    except LedgerError:
        raise RuntimeError(f"{study.name} ended with exit code {code}") from None
