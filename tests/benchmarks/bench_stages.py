"""Shared stages: what λ_zeros × decay costs where every seed trains its base classifier once.

The study is `sweeps/apga_regularisation.py`, 4 × 3 arms × 5 seeds. Its 60 cells at the demo budget
take a quarter of an hour here, so it is measured in two parts: the whole structure at a budget of
one step, where the ledger counts the stages; and at the demo's budget the stages and cells of one
arm at 5 seeds, from which the 60 follow, because an arm's levels change no number of steps. Each
rival computes the same five cells.

python tests/benchmarks/bench_stages.py          # everything
python tests/benchmarks/bench_stages.py --count  # one part (or --measure)
"""

import math
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from our_runs import ROOT, run_study
from rivals import Recipe, job_per_cell, optuna_and_joblib, plain_tune
from timing import Figure

from apga_core.config import APGAConfig
from imaging_core.fields import as_dict, build
from sweeps.apga_regularisation import STUDY

SCRIPT = ROOT / "sweeps" / "apga_regularisation.py"
ARMS, SEEDS = 12, 5
ROUNDS = 3
ONE_STEP = {"base_epochs": 1, "epochs": 1, "min_steps": 1, "policy_warmup_steps": 0}
HIPPO = 4.81  # GPU-hours without ÷ with stage trees, at best (Hippo, Shin et al.)


def counted() -> list[Figure]:
    """All 60 cells with next to no training: how often each stage was computed."""
    budget = [text for name, value in ONE_STEP.items() for text in ("--set", f"{name}={value}")]
    with tempfile.TemporaryDirectory() as results:
        run = run_study(SCRIPT, Path(results), "--quiet", *budget)
    assert len(run.cells_s) == ARMS * SEEDS
    return [
        Figure(
            what=f"times `{stage}` is computed for {ARMS * SEEDS} cells, against once per cell",
            ours_s=len(seconds),
            rival_s=ARMS * SEEDS,
            ratio=ARMS * SEEDS / len(seconds),
            limit=f"{SEEDS}, not {ARMS * SEEDS}",
        )
        for stage, seconds in sorted(run.stages.items())
    ]


def measured() -> Iterator[Figure]:
    """Compute seconds of the 60 cells at the demo's budget, ours against each rival's.

    Ours and a rival's in turn, because a machine's speed drifts over minutes: the ratio is the
    median over the rounds.
    """
    fields = {**STUDY.task.presets["demo"], **STUDY.fixed, **STUDY.baseline}
    whole = as_dict(build(APGAConfig, fields))
    recipes = [
        Recipe(core=STUDY.core, fields=whole, data=STUDY.data, seed=seed) for seed in range(SEEDS)
    ]
    rounds: list[OneArm] = []
    found = []
    for name, way in (
        ("Ray Tune, a function trial per cell", plain_tune),
        ("one Ray Train job per cell", job_per_cell),
        ("Optuna and joblib", optuna_and_joblib),
    ):
        ours, theirs = [], []
        for _ in range(ROUNDS if way is plain_tune else 1):
            rounds.append(OneArm.run())
            ours.append(rounds[-1].of_all)
            with tempfile.TemporaryDirectory() as storage:
                cells_s = way(recipes, storage).cells_s
            theirs.append(ARMS * SEEDS * statistics.median(cells_s))
        found.append(
            Figure(
                what=f"compute seconds of {ARMS * SEEDS} cells, demo budget, against {name}",
                ours_s=statistics.median(ours),
                rival_s=statistics.median(theirs),
                ratio=statistics.median(b / a for a, b in zip(ours, theirs, strict=True)),
                limit="≥ 2" if way is plain_tune else "—",
            )
        )
    shared = statistics.median(one.shared_s for one in rounds)
    cell = statistics.median(one.cell_s for one in rounds)
    yield _one("one seed's stages (base, controls), demo budget", shared)
    yield _one("one cell on stored stages, demo budget", cell)
    yield paper_budget(shared, cell)
    yield from found


@dataclass(frozen=True, kw_only=True)
class OneArm:
    """One arm of the study at every seed: medians of the seeds' stages, and of the cells."""

    shared_s: float
    cell_s: float

    @property
    def of_all(self) -> float:
        """Compute seconds of the whole study."""
        return SEEDS * self.shared_s + ARMS * SEEDS * self.cell_s

    @classmethod
    def run(cls) -> "OneArm":
        with tempfile.TemporaryDirectory() as results:
            run = run_study(
                SCRIPT, Path(results), "--quiet", "--seeds", SEEDS,
                "--set", "lambda_zeros=0.1", "--set", "baseline_decay=0.5",
            )  # fmt: skip
        assert {len(seconds) for seconds in run.stages.values()} == {SEEDS}
        return cls(
            shared_s=sum(statistics.median(seconds) for seconds in run.stages.values()),
            cell_s=statistics.median(run.cells_s),
        )


def paper_budget(shared_s: float, cell_s: float) -> Figure:
    """Converge, then continue, in the paper preset's epochs: modelled, not run.

    The measured seconds give an epoch's price in each phase. Sharing alone can give at most
    (a base + a continuation) ÷ a continuation, whatever the number of arms.
    """
    demo = build(APGAConfig, {**STUDY.task.presets["demo"], **STUDY.fixed})
    paper = build(APGAConfig, {**STUDY.task.presets["paper"], **STUDY.fixed})
    per_epoch = shared_s / demo.base_epochs
    # The demo's policy warms up on batches of its own, which cost about a second phase's.
    batches = math.ceil(demo.min_steps / demo.epochs)
    continued = cell_s / (demo.epochs + demo.policy_warmup_steps / batches)
    base, phase = paper.base_epochs * per_epoch, paper.epochs * continued
    ours = SEEDS * base + ARMS * SEEDS * phase
    theirs = ARMS * SEEDS * (base + phase)
    return Figure(
        what=f"the same at the paper's budget (base {paper.base_epochs} epochs, then "
        f"{paper.epochs}), modelled from the times above; at most "
        f"{(base + phase) / phase:.2f} by sharing alone",
        ours_s=ours,
        rival_s=theirs,
        ratio=theirs / ours,
        limit=f"Hippo's {HIPPO} at best",
    )


def figures() -> Iterator[Figure]:
    yield from counted()
    yield from measured()


def _one(what: str, seconds: float) -> Figure:
    return Figure(what=what, ours_s=seconds, rival_s=math.nan, ratio=math.nan, limit="—")


if __name__ == "__main__":
    parts = {"--count": counted, "--measure": measured}
    for part in [parts[a] for a in sys.argv[1:]] or [figures]:
        for figure in part():
            print(figure, flush=True)
