"""Every benchmark, as a table on the terminal and in docs/benchmarks.{md,csv}.

make bench                                                # all of them, about 90 minutes
export PYTHONPATH=tests/support                           # the toy core of bench_slots
python tests/benchmarks/run_all.py bench_masking          # this one; the other rows stay
"""

import datetime
import importlib
import math
import sys
from pathlib import Path

import pandas as pd
from timing import Figure, machine

BENCHMARKS = (
    "bench_reward_loop",
    "bench_masking",
    "bench_planning",
    "bench_ledger_read",
    "bench_far_ledger",
    "bench_stages",
    "bench_slots",
    "bench_many_slots",
    "bench_order",
    "bench_head",
    "bench_data",
    "bench_broker",
    "bench_checkpoints",
)
DOCS = Path(__file__).resolve().parents[2] / "docs"
TABLE = DOCS / "benchmarks.csv"


def _number(value: float) -> str:
    return "—" if math.isnan(value) else f"{value:.3g}"


def rows(name: str, figures: list[Figure]) -> pd.DataFrame:
    """One row per figure, numbers as text."""
    return pd.DataFrame(
        {
            "benchmark": name,
            "what": [f.what for f in figures],
            "ours, s": [_number(f.ours_s) for f in figures],
            "rival, s": [_number(f.rival_s) for f in figures],
            "rival ÷ ours": [_number(f.ratio) for f in figures],
            "asked for": [f.limit for f in figures],
            "date": str(datetime.date.today()),
            "machine": machine(),
        }
    )


def merged(new: pd.DataFrame) -> pd.DataFrame:
    """`new` and what the table holds of other benchmarks, in the order of BENCHMARKS."""
    kept = [new]
    if TABLE.exists():
        old = pd.read_csv(TABLE, dtype=str, keep_default_na=False)
        if list(old.columns) == list(new.columns):
            kept.append(old[~old["benchmark"].isin(set(new["benchmark"]))])
    found = pd.concat(kept)
    place = {name: i for i, name in enumerate(BENCHMARKS)}
    return found.sort_values("benchmark", key=lambda names: names.map(place), kind="stable")


def write(found: pd.DataFrame) -> str:
    """The table into the docs; returns its Markdown."""
    DOCS.mkdir(exist_ok=True)
    found.to_csv(TABLE, index=False)
    head = " | ".join(found.columns)
    body = "\n".join(f"| {' | '.join(row)} |" for row in found.to_numpy().tolist())
    rule = "|---" * len(found.columns)
    text = (
        "# Benchmarks\n\n"
        "`make bench` runs all of them, `python tests/benchmarks/run_all.py NAME …` some. One "
        "thread. Medians of processor seconds, ours and the rival's in turn; the ratio is the "
        "median over pairs. Stages, slots and arms are wall seconds of whole runs on every core, "
        "medians of five (stages against Ray Tune: of three rounds of five cells, in turn).\n\n"
        f"| {head} |\n{rule}|\n{body}\n"
    )
    (DOCS / "benchmarks.md").write_text(text)
    return text


def main() -> None:
    unknown = sorted(set(sys.argv[1:]) - set(BENCHMARKS))
    if unknown:
        sys.exit(f"no benchmark {', '.join(unknown)}; known: {', '.join(BENCHMARKS)}")
    text = ""
    for name in sys.argv[1:] or BENCHMARKS:
        text = write(merged(rows(name, list(importlib.import_module(name).figures()))))
    print(text)


if __name__ == "__main__":
    main()
