"""Data at their real size: what a worker pays, in processor seconds and memory of its own.

A MURA-shaped tree and PatchCamelyon-shaped files are made first (`shaped_data`), a share of their
real size (MEDRL_BENCH_SHARE, a tenth by default); figures of the full sizes are that many times as
long, as all of them are linear in the images. The rival is what workers did before: each holds the
pixels, and three parts in float32.

python tests/benchmarks/run_all.py bench_data
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from shaped_data import mura_tree, pcam_files
from timing import Figure

ROOT = Path(__file__).resolve().parents[2]
SHARE = float(os.environ.get("MEDRL_BENCH_SHARE", "0.1"))
FULL = {"mura": 10_412, "pcam": 327_680}  # XR_WRIST; all of PatchCamelyon
RUNS, WORKERS = 3, 4


def figures() -> list[Figure]:
    """For each dataset: a warm worker's seconds, memory and peak, and decoding for four at once."""
    found = []
    for kind, make in (("mura", mura_tree), ("pcam", pcam_files)):
        images = round(FULL[kind] * SHARE / (10 if kind == "pcam" else 1))
        with tempfile.TemporaryDirectory() as folder:
            place = make(Path(folder, "data"), images)
            found += _of(f"{kind}:{place}", f"{images:,} images of {kind}'s shape", Path(folder))
    return found


def _of(data: str, what: str, folder: Path) -> list[Figure]:
    cold = [_together(data, folder / f"cold-{way}", way) for way in ("ours", "before")]
    warm = [[_worker(data, folder / "cold-ours", way) for _ in range(RUNS)] for way in WAYS]
    ours, before = ({name: median(run[name] for run in runs) for name in runs[0]} for runs in warm)
    return [
        _figure(f"{what}: CPU s of {WORKERS} workers that find an empty cache", *cold, "—"),
        *(
            _figure(f"{what}: {words} of a worker, warm", ours[name], before[name], limit)
            for name, words, limit in (
                ("cpu_s", "CPU s to the first batch", "0.08 + what torch takes"),
                ("private_mib", "private MiB (torch's and numpy's included)", "flat in images"),
                ("peak_mib", "peak MiB, shared pages included", "—"),
            )
        ),
    ]


def _figure(what: str, ours: float, before: float, limit: str) -> Figure:
    return Figure(what=what, ours_s=ours, rival_s=before, ratio=before / ours, limit=limit)


WAYS = ("ours", "before")


def _start(data: str, cache: Path, way: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, __file__, way, data],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        env={**os.environ, "MEDRL_IMAGE_CACHE": str(cache), "PYTHONPATH": str(ROOT)},
    )


def _worker(data: str, cache: Path, way: str) -> dict[str, float]:
    return json.loads(_start(data, cache, way).communicate()[0])


def _together(data: str, cache: Path, way: str) -> float:
    """CPU s of WORKERS processes at once; before, each decoded for itself."""
    caches = [cache] * WORKERS if way == "ours" else ["off"] * WORKERS
    runs = [_start(data, each, way) for each in caches]
    return sum(json.loads(run.communicate()[0])["cpu_s"] for run in runs)


def _child(way: str, data: str) -> None:
    """One worker, as far as its first batch; prints what it cost."""
    import time

    import torch

    torch.set_num_threads(1)
    from imaging_core.datasets import load
    from imaging_core.standardised import standardised

    began = time.process_time()
    name, _, path = data.partition(":")
    found = load(name, path)
    parts = (found.train, found.validation, found.test)
    if way == "before":  # the pixels in every process, everything computed in each
        from dataclasses import replace

        parts = tuple(replace(p, images=np.array(p.images), hashes=None) for p in parts)
        found = replace(found, train=parts[0], validation=parts[1], test=parts[2])
        found.check()
    _ = found.fingerprint
    mean_std = found.train.mean_std
    tensors = [standardised(p.images, *mean_std, "cpu") for p in parts]
    if way == "before":
        tensors = [tensor[:] for tensor in tensors]
    tensors[0][torch.arange(25)]
    spent = time.process_time() - began
    rolled = dict(
        line.split(":", 1) for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    )
    peak = next(
        line.split()[1]
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    # Clean pages are a file's, which the kernel holds once however many processes map it.
    private = int(rolled["Private_Dirty"].split()[0])
    print(json.dumps({"cpu_s": spent, "private_mib": private / 1024, "peak_mib": int(peak) / 1024}))


if __name__ == "__main__":
    _child(*sys.argv[1:3])
