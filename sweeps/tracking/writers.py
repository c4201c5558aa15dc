"""The one interface of all trackers, and what stands behind it."""

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from sweeps.ledger.files import Store
from sweeps.ledger.schema import LedgerError
from sweeps.tracking.runs import CellRun

LIVE = "live"  # the folder, or the tag, of what runs
FLUSH_S = 1  # of points that are live; tensorboardX's own two minutes are longer than many cells


class TrackerError(RuntimeError):
    """The tracker cannot be used; the message says why and what to do."""


Points = Mapping[str, tuple[int, tuple[float, ...]]]
"""Curve → the step of the first of these values, from 0, and the values of the steps from there."""


class Writer(Protocol):
    """Writes runs, each once, and shows what runs meanwhile."""

    where: str
    """What the user looks at."""

    def has(self, run: CellRun) -> bool:
        """Whether the run is there, whole."""

    def write(self, run: CellRun) -> None:
        """Write a run that is not there."""

    def live(self, name: str, points: Points) -> None:
        """More of something that runs; a curve that begins at 0 again is one of a new attempt."""

    def forget(self, name: str) -> None:
        """It runs no more: nothing is left of what `live` showed of it."""

    def close(self) -> None:
        """Nothing more comes."""


class TensorBoard:
    """Event files, a folder per cell: written aside and renamed, so that it is there or not.

    Levels and seed are what its page HPARAMS sorts and filters the cells by. TensorBoard keeps
    points as 32-bit floats; the ledger has 64.
    """

    def __init__(self, study: str, place: str) -> None:
        if "://" in place:
            raise LedgerError(
                f"TensorBoard's folder must be local, got {place}; write tensorboard:DIR"
            )
        from tensorboardX import SummaryWriter
        from tensorboardX.summary import hparams

        self._writer, self._hparams = SummaryWriter, hparams
        self._root = Path(place).expanduser().absolute() / study
        self._live: dict[str, Any] = {}  # name → its open writer
        self._seen: set[tuple[str, str]] = set()  # (name, curve)
        self.where = f"tensorboard --logdir {self._root.parent}"

    def has(self, run: CellRun) -> bool:
        return (self._root / run.name).is_dir()

    def write(self, run: CellRun) -> None:
        aside = self._root / f".{run.name}.part"
        shutil.rmtree(aside, ignore_errors=True)
        out = self._writer(logdir=str(aside), write_to_disk=True)
        try:
            at = {"walltime": run.started + run.wall_s}
            about = json.dumps({**run.tags, **run.parameters}, indent=1, default=str)
            out.add_text("cell", f"```\n{about}\n```", 0, walltime=run.started)
            # Without the summary of the experiment, which TensorBoard takes from the first run that
            # it finds: arms have metrics of their own, and it finds all of them by itself.
            for part in self._hparams(dict(run.levels), {})[1:]:
                out.file_writer.add_summary(part, walltime=run.started)
            for name, value in run.metrics.items():
                out.add_scalar(f"metric/{name}", value, 0, **at)
            for name, values in run.curves.items():
                for step, value in enumerate(values):
                    out.add_scalar(f"curve/{name}", value, step, **at)
        finally:
            out.close()
        os.replace(aside, self._root / run.name)

    def live(self, name: str, points: Points) -> None:
        if not self._live:  # what a killed run left
            shutil.rmtree(self._root / LIVE, ignore_errors=True)
        if any(not first and (name, curve) in self._seen for curve, (first, _) in points.items()):
            self.forget(name)
        if name not in self._live:
            folder = str(self._root / LIVE / name)
            self._live[name] = self._writer(logdir=folder, flush_secs=FLUSH_S)
        for curve, (first, values) in points.items():
            self._seen.add((name, curve))
            for step, value in enumerate(values, start=first):
                self._live[name].add_scalar(f"curve/{curve}", value, step)

    def forget(self, name: str) -> None:
        if (out := self._live.pop(name, None)) is not None:
            out.close()
        self._seen = {seen for seen in self._seen if seen[0] != name}
        shutil.rmtree(self._root / LIVE / name, ignore_errors=True)

    def close(self) -> None:
        """Every run is closed as it is written; nothing runs any more."""
        for name in list(self._live):
            self.forget(name)
        shutil.rmtree(self._root / LIVE, ignore_errors=True)


class MLflow:
    """An MLflow run per cell, in the experiment that is called as the study.

    `place` is a tracking URI or a folder; empty: MLFLOW_TRACKING_URI, or what MLflow takes then.
    """

    def __init__(self, study: str, place: str) -> None:
        import mlflow
        from mlflow.entities import Metric, Param, RunTag

        self._kinds = Metric, Param, RunTag
        self._client = mlflow.MlflowClient(tracking_uri=place or None)
        found = self._client.get_experiment_by_name(study)
        self._experiment = found.experiment_id if found else self._client.create_experiment(study)
        self.where = f"MLflow experiment {study} ({place or mlflow.get_tracking_uri()})"
        self._live: dict[str, str] | None = None  # name → MLflow's id; None: nothing was shown yet
        self._seen: set[tuple[str, str]] = set()  # (name, curve)

    def has(self, run: CellRun) -> bool:
        wanted = f"tags.cell = '{run.key}' and attributes.status = 'FINISHED'"
        return bool(self._client.search_runs([self._experiment], wanted, max_results=1))

    def write(self, run: CellRun) -> None:
        metric, param, tag = self._kinds
        start, end = round(run.started * 1000), round((run.started + run.wall_s) * 1000)
        made = self._client.create_run(self._experiment, start_time=start, run_name=run.name)
        name = made.info.run_id
        self._client.log_batch(
            name,
            params=[param(k, str(v)[:500]) for k, v in run.parameters.items()],
            tags=[tag(k, v[:500]) for k, v in run.tags.items()],
        )
        points = [metric(k, v, end, 0) for k, v in run.metrics.items()]
        points += [
            metric(f"curve/{_plain(k)}", v, end, step)
            for k, values in run.curves.items()
            for step, v in enumerate(values)
        ]
        for first in range(0, len(points), 1000):
            self._client.log_batch(name, metrics=points[first : first + 1000])
        self._client.set_terminated(name, "FINISHED", end)

    def live(self, name: str, points: Points) -> None:
        if self._live is None:  # what a killed run left
            self._live = {}
            for left in self._client.search_runs([self._experiment], f"tags.{LIVE} = 'yes'"):
                self._client.delete_run(left.info.run_id)
        if any(not first and (name, curve) in self._seen for curve, (first, _) in points.items()):
            self.forget(name)
        if name not in self._live:
            made = self._client.create_run(
                self._experiment, run_name=f"{LIVE}/{name}", tags={LIVE: "yes"}
            )
            self._live[name] = made.info.run_id
        metric, now = self._kinds[0], round(time.time() * 1000)
        self._seen.update((name, curve) for curve in points)
        found = [
            metric(f"curve/{_plain(curve)}", value, now, step)
            for curve, (first, values) in points.items()
            for step, value in enumerate(values, start=first)
        ]
        for at in range(0, len(found), 1000):
            self._client.log_batch(self._live[name], metrics=found[at : at + 1000])

    def forget(self, name: str) -> None:
        self._seen = {seen for seen in self._seen if seen[0] != name}
        if self._live and name in self._live:
            self._client.delete_run(self._live.pop(name))

    def close(self) -> None:
        """Every run is ended as it is written; nothing runs any more."""
        for name in list(self._live or {}):
            self.forget(name)


def _plain(name: str) -> str:
    """A curve's name as MLflow allows one."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)


class WeightsAndBiases:
    """A wandb run per cell, in the project `place`, or one that is called as the study.

    Its id is the cell's key, so that a run is never there twice. WANDB_MODE=offline keeps it here.
    """

    def __init__(self, study: str, place: str) -> None:
        import wandb

        self._wandb, self._project, self._study = wandb, place or study, study
        self.where = f"wandb project {self._project}"
        self._there: set[str] | None = None

    def has(self, run: CellRun) -> bool:
        if self._there is None:
            folder = Path(os.environ.get("WANDB_DIR", ".")) / "wandb"
            self._there = {path.name.rpartition("-")[2] for path in folder.glob("*run-*")}
        return run.key in self._there

    def write(self, run: CellRun) -> None:
        wandb = self._wandb
        out = wandb.init(
            project=self._project,
            id=run.key,
            name=run.name,
            group=run.tags["arm"][:128],
            config={**run.parameters, **{f"tag.{k}": v for k, v in run.tags.items()}},
            resume="allow",
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, disable_code=True
            ),
        )
        steps = max(map(len, run.curves.values()), default=0)
        for step in range(steps):
            at = {f"curve/{k}": v[step] for k, v in run.curves.items() if step < len(v)}
            out.log(at, step=step)
        out.summary.update({f"metric/{k}": v for k, v in run.metrics.items()})
        out.finish()

    def live(self, name: str, points: Points) -> None:
        """Nothing: a wandb run has its process for itself, and this one's are whole cells."""

    def forget(self, name: str) -> None:
        """Nothing was shown."""

    def close(self) -> None:
        """Every run is finished as it is written."""


TRACKERS: dict[str, tuple[Callable[[str, str], Writer], str]] = {
    "tensorboard": (TensorBoard, "tensorboardX"),
    "mlflow": (MLflow, "mlflow"),
    "wandb": (WeightsAndBiases, "wandb"),
}
"""Name → what opens a writer of a study at a place, and the package that it needs."""


def split_spec(spec: str, option: str) -> tuple[str, str]:
    """`"tensorboard:DIR"` → ("tensorboard", "DIR"); the place may be left out.

    Raises:
        LedgerError: a tracker that there is not.
    """
    import difflib

    name, _, place = spec.partition(":")
    if name not in TRACKERS:
        near = difflib.get_close_matches(name, TRACKERS, n=1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise LedgerError(f'{option} must be one of {", ".join(TRACKERS)}, got "{name}"{hint}')
    return name, place


def open_writer(spec: str, study: str, ledger: Store, option: str = "--track") -> Writer:
    """The writer that `spec` names: "tensorboard[:DIR]", "mlflow[:URI]" or "wandb[:PROJECT]".

    TensorBoard's events lie in the study's folder, under tensorboard/, unless a place is named.

    Raises:
        LedgerError: an unknown tracker, a package that is not installed, a place of no use.
        TrackerError: the tracker does not answer.
    """
    name, place = split_spec(spec, option)
    make, package = TRACKERS[name]
    if name == "tensorboard" and not place:
        place = ledger.path("tensorboard") if ledger.local else f"{ledger.root}/tensorboard"
    try:
        return make(study, place)
    except LedgerError:
        raise
    except ImportError as error:
        raise LedgerError(
            f"{option} {name} needs the package {package} ({error}); pip install {package}, or "
            "export from an environment that has it: python analysis/export.py RESULTS --to "
            f"{name}"
        ) from None
    except Exception as error:
        raise TrackerError(f"{name} does not answer: {_first(error)}") from error


def _first(error: Any) -> str:
    """The first line of an error."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
