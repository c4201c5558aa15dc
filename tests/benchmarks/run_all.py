"""Every benchmark, as a table on the terminal and in docs/benchmarks.{md,csv}.

make bench
"""

import datetime
import math
from pathlib import Path

import bench_masking
import bench_planning
import bench_reward_loop
import pandas as pd
from timing import Figure, machine

BENCHMARKS = (bench_reward_loop, bench_masking, bench_planning)
DOCS = Path(__file__).resolve().parents[2] / "docs"


def _number(value: float) -> str:
    return "—" if math.isnan(value) else f"{value:.3g}"


def table(figures: list[Figure]) -> pd.DataFrame:
    """One row per figure, numbers as text."""
    return pd.DataFrame(
        {
            "what": [f.what for f in figures],
            "ours, CPU s": [_number(f.ours_s) for f in figures],
            "rival, CPU s": [_number(f.rival_s) for f in figures],
            "rival ÷ ours": [_number(f.ratio) for f in figures],
            "asked for": [f.limit for f in figures],
        }
    )


def main() -> None:
    figures = [figure for bench in BENCHMARKS for figure in bench.figures()]
    found = table(figures)
    DOCS.mkdir(exist_ok=True)
    found.to_csv(DOCS / "benchmarks.csv", index=False)
    head = " | ".join(found.columns)
    rows = "\n".join(f"| {' | '.join(row)} |" for row in found.to_numpy().tolist())
    rule = "|---" * len(found.columns)
    text = (
        "# Benchmarks\n\n"
        f"`make bench`, {datetime.date.today()}, {machine()}, one thread. Medians of processor "
        "seconds, ours and the rival's in turn; the ratio is the median over pairs.\n\n"
        f"| {head} |\n{rule}|\n{rows}\n\n"
        "`python tests/benchmarks/bench_ledger_read.py` times tables from ledgers of up to 100,000 "
        "cells.\n"
    )
    (DOCS / "benchmarks.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
