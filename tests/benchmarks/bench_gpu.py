"""Everything that is asked of a GPU, in one command, as docs/benchmarks_gpu.{md,json}.

    make bench-gpu                                       # every part
    export PYTHONPATH=tests/support
    python tests/benchmarks/bench_gpu.py --only masking sharing   # these; the other rows stay
    python tests/benchmarks/bench_gpu.py --cpu --out /tmp/try     # without a GPU: tiny sizes

Each part writes its rows when it ends, so a command that is killed leaves what it has measured. A
part that fails says so in its row, and the others go on. What needs CUDA (graphs, MPS, shares of a
GPU) is left out on a CPU with the reason in its row; the rest of the code is the same.
"""

import argparse
import datetime
import json
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from gpu.networks import masking, precision, reward
from gpu.rows import TINY, Part, Row, Size, document, machine, markdown
from gpu.sharing import sharing
from gpu.studies import cell, demo

from sweeps.engine.provenance import source
from sweeps.engine.worker import prepare_process

PARTS: dict[str, Part] = {
    "masking": masking,
    "reward": reward,
    "sharing": sharing,
    "precision": precision,
    "demo": demo,
    "cell": cell,
}
DOCS = Path(__file__).resolve().parents[2] / "docs"
NAME = "benchmarks_gpu"


def measured(part: str, device: str, size: Size) -> list[Row]:
    """The rows of a part; if it fails, one that says so."""
    try:
        return list(PARTS[part](device, size))
    except Exception as error:  # an error of one part is a result; the others are still wanted
        traceback.print_exc()
        said = (str(error).strip() or type(error).__name__).splitlines()[-1]
        note = f"failed: {type(error).__name__}: {said[:200]}"
        return [Row(part=part, what="all of it", value=None, unit="", note=note)]


def merged(rows: Sequence[Row], parts: Sequence[str], about: dict[str, Any], out: Path) -> dict:
    """These parts' rows, and those of the others that the file holds of the same card."""
    kept: list[Row] = []
    file = out / f"{NAME}.json"
    if file.exists():
        old = json.loads(file.read_text())
        if old["card"] == about["card"]:
            kept = [Row(**row) for row in old["rows"] if row["part"] not in parts]
    place = {name: i for i, name in enumerate(PARTS)}
    return document(sorted([*kept, *rows], key=lambda row: place[row.part]), about)


def write(found: dict[str, Any], out: Path) -> str:
    """Both files; returns the Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{NAME}.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    text = markdown(found)
    (out / f"{NAME}.md").write_text(text)
    return text


def run(parts: Sequence[str], device: str, size: Size, out: Path) -> list[Row]:
    """Measure the parts, one after the other, and write the table after each."""
    prepare_process()
    commit = source()
    about = machine(device) | {
        "commit": commit["git_commit"][:12] + "-dirty" * commit["git_dirty"],
        "date": str(datetime.date.today()),
    }
    rows: list[Row] = []
    for place, part in enumerate(parts):
        began = time.monotonic()
        rows += measured(part, device, size)
        write(merged(rows, parts[: place + 1], about, out), out)
        print(f"{part}: {time.monotonic() - began:.0f} s", flush=True)
    return rows


def main() -> int:
    """Exit code: 0, 1 where a part failed or a goal is not met, 2 without a GPU."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--cpu", action="store_true", help="tiny sizes on a CPU, to try the code")
    parser.add_argument("--out", type=Path, help="a folder; default docs/, needed with --cpu")
    asked = parser.parse_args()
    if not asked.cpu and not torch.cuda.is_available():
        print(
            "error: torch sees no GPU here; --cpu --out FOLDER runs the same code with tiny sizes",
            file=sys.stderr,
        )
        return 2
    if asked.cpu and asked.out is None:
        print("error: --cpu needs --out FOLDER: docs/ is for a GPU's figures", file=sys.stderr)
        return 2
    device, size = ("cpu", TINY) if asked.cpu else ("cuda", Size())
    out = asked.out or DOCS
    rows = run(asked.only, device, size, out)
    print((out / f"{NAME}.md").read_text())
    bad = any(row.met is False or row.note.startswith("failed") for row in rows)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
