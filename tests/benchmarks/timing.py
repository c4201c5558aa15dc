"""How the benchmarks measure: two ways in turn, medians, and the ratio pair by pair."""

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of `docs/benchmarks.md`.

    Attributes:
        what: what was timed, with its size.
        ours_s, rival_s: median seconds of each (NaN: there is no rival).
        ratio: median of rival ÷ ours, pair by pair: above 1 ours is faster.
        limit: what the project asks for, as text.
    """

    what: str
    ours_s: float
    rival_s: float
    ratio: float
    limit: str


def paired(
    what: str,
    ours: Callable[[], object],
    rival: Callable[[], object],
    *,
    limit: str,
    runs: int = 7,
    clock: Callable[[], float] = time.process_time,
) -> Figure:
    """Time `ours` and `rival` in turn, after one warm-up of each.

    By default processor seconds of this process: on a shared machine wall time would measure the
    others.
    """
    ours(), rival()
    a, b = [], []
    for _ in range(runs):
        for call, seconds in ((ours, a), (rival, b)):
            began = clock()
            call()
            seconds.append(clock() - began)
    return Figure(
        what=what,
        ours_s=statistics.median(a),
        rival_s=statistics.median(b),
        ratio=statistics.median(y / x for x, y in zip(a, b, strict=True)),
        limit=limit,
    )


def gpu_clock() -> float:
    """Wall seconds, once the GPU has done what it was asked for."""
    import torch

    torch.cuda.synchronize()
    return time.perf_counter()


def machine() -> str:
    """Where the figures were taken."""
    import torch

    return f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}"
