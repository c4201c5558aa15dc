"""Whole command lines on a GPU: the demo study with one and with eight workers, a paper's cell."""

import tempfile
from pathlib import Path

from our_runs import ROOT, StudyRun, run_study
from shaped_data import mura_tree

from gpu.rows import Row, Size

SHARE_GOAL, CELL_GOAL_MIN = 3.0, 30.0
SHARES = (1.0, 0.125)
REAL = ROOT.parent / "shared" / "data" / "kermany-cxr"
"""Real chest radiographs of 224 px, beside the checkout where they were fetched."""
OPTIONS = "size={size}&classes=normal,pneumonia"
MADE_IMAGES = 1_200


def slots(device: str, share: float) -> list[str]:
    """How the engine is told where to compute: a share of the GPU per worker, or this process."""
    return ["--gpus-per-worker", f"{share:g}"] if device == "cuda" else ["--inline"]


def demo(device: str, size: Size) -> list[Row]:
    """`ablation_controller --preset demo`, one worker on the GPU, then eight."""
    script = ROOT / "sweeps" / "ablation_controller.py"
    runs = {}
    for share in SHARES if device == "cuda" else SHARES[:1]:
        with tempfile.TemporaryDirectory() as results:
            arguments = ["--preset", "demo", *size.study, *slots(device, share)]
            runs[share] = run_study(script, Path(results), *arguments)
    return demo_rows(runs)


def demo_rows(runs: dict[float, StudyRun]) -> list[Row]:
    """Cells per hour of each run, from its first stage to its last commit, and the gain."""
    found = []
    for share, run in runs.items():
        working_s = run.wall_s - run.start_s - run.end_s
        what = f"ablation_controller --preset demo, {1 / share:g} worker(s) on the device"
        value = 3600 * len(run.cells_s) / working_s
        note = f"{len(run.cells_s)} cells, whole command {run.wall_s:.0f} s"
        found.append(Row(part="demo", what=what, value=value, unit="cells/h", note=note))
    if len(found) == len(SHARES):
        first, last = (row.value or 0.0 for row in found)
        found.append(
            Row(
                part="demo",
                what="cells per hour, eight workers ÷ one",
                value=last / first,
                unit="×",
                goal=f"≥ {SHARE_GOAL:g}",
                met=last >= SHARE_GOAL * first,
            )
        )
    return found


def cell(device: str, size: Size) -> list[Row]:
    """One full cell of `apga_methods --preset paper` with its stages, from random weights."""
    with tempfile.TemporaryDirectory() as folder:
        data, name = dataset(Path(folder), size)
        arguments = [
            "--preset", "paper", "--data", data, "--set", "method=apga", "--seeds", "1",
            "--set", "weights=none", "--set", "policy_weights=none", *size.cell,
            *slots(device, 1.0),
        ]  # fmt: skip
        script = ROOT / "sweeps" / "apga_methods.py"
        return cell_rows(run_study(script, Path(folder) / "results", *arguments), name, size.side)


def dataset(folder: Path, size: Size, images: int | None = None) -> tuple[str, str]:
    """What --data says, and what it is: the real radiographs if they are here, else made ones."""
    options = OPTIONS.format(size=size.side)
    if (REAL / "manifest.csv").exists() and images is None:
        return f"folder:{REAL}?{options}", "kermany-cxr"
    tree = mura_tree(folder, images or MADE_IMAGES)
    return f"mura:{tree}?part=XR_WRIST&size={size.side}", f"{images or MADE_IMAGES} made images"


def cell_rows(run: StudyRun, data: str, side: int) -> list[Row]:
    """Minutes of compute, of the cell and of the stages that it stands on."""
    minutes = run.compute_s / 60
    stages = ", ".join(f"{name} {sum(s):.0f} s" for name, s in run.stages.items())
    return [
        Row(
            part="cell",
            what=f"a full cell of --preset paper (APGA) on {data} at {side} px, its stages too",
            value=minutes,
            unit="min",
            goal=f"< {CELL_GOAL_MIN:g} min",
            met=minutes < CELL_GOAL_MIN,
            note=f"cell {run.cells_s[0]:.0f} s; {stages}",
        )
    ]
