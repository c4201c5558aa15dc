"""A study's own command line in a process of its own, and what its ledger says of the run."""

import json
import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from sweeps.ledger.read import read_ledger

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = ROOT / "tests" / "support"
TOY = SUPPORT / "toy_study.py"


@dataclass(frozen=True, kw_only=True)
class StudyRun:
    """What one call of a study's script took.

    Attributes:
        wall_s: of the process, from its start to its end.
        start_s: until the first stage began.
        end_s: from the last commit to the end of the process.
        table_s: from the last commit until its tables are there; NaN where it makes none.
        begun: when the first stage did, in seconds since 1970.
        spans: begin and end of each cell, likewise.
        stages: name of a stage → seconds of each that was computed.
        cells_s: seconds of each cell.
        last_line: what the script said of itself.
    """

    wall_s: float
    start_s: float
    end_s: float
    stages: dict[str, list[float]]
    cells_s: list[float]
    last_line: str
    table_s: float = math.nan
    begun: float = 0.0
    spans: list[tuple[float, float]] = field(default_factory=list)

    @property
    def cells_wall_s(self) -> float:
        """From the begin of the first cell to the end of the last."""
        return max(end for _, end in self.spans) - min(begin for begin, _ in self.spans)

    def busy(self, workers: int) -> float:
        """Share of the workers' time that cells take, once all have come to work and until work
        runs out: from the end of the `workers`-th cell to the begin of the last one.
        """
        first = sorted(end for _, end in self.spans)[workers - 1]
        last = max(begin for begin, _ in self.spans)
        worked = sum(max(min(end, last) - max(begin, first), 0.0) for begin, end in self.spans)
        return worked / (workers * (last - first))

    @property
    def compute_s(self) -> float:
        """Seconds of all stages and cells."""
        return sum(self.cells_s) + sum(sum(seconds) for seconds in self.stages.values())


def run_study(script: Path, results: Path, *arguments: object) -> StudyRun:
    """Run `script` on this machine's slots.

    Raises:
        RuntimeError: its exit status is not 0.
    """
    paths = [str(ROOT), str(SUPPORT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(p for p in paths if p),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }
    environment.pop("RAY_ADDRESS", None)
    began = time.time()
    command = [sys.executable, str(script), "--results", str(results), *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    ended = time.time()
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}")
    (study,) = [p.parent for p in results.glob("*/study.json")]
    stages: dict[str, list[float]] = {}
    begun = []
    for stated in (results / "stages").glob("*.json"):
        seconds = float(json.loads(stated.read_bytes())["seconds"])
        stages.setdefault(stated.name.rpartition("-")[0], []).append(seconds)
        begun.append(stated.stat().st_mtime - seconds)
    cells = read_ledger(str(study)).cells
    starts = cells["started"].map(lambda t: t.timestamp())
    ends = starts + cells["wall_s"]
    over = float(ends.max())
    tables = study / "tables" / "index.json"
    first = min([*begun, float(starts.min())])
    return StudyRun(
        wall_s=ended - began,
        start_s=first - began,
        table_s=tables.stat().st_mtime - over if tables.exists() else math.nan,
        begun=first,
        end_s=ended - over,
        stages=stages,
        cells_s=cells["wall_s"].tolist(),
        spans=list(zip(starts, ends, strict=True)),
        last_line=done.stdout.strip().splitlines()[-1],
    )
