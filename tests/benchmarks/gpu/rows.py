"""One measured number, how much of it is measured, and the table of all."""

import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from timing import gpu_clock


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        part: the measurement it belongs to, a name of `bench_gpu.PARTS`.
        value: the number; None where it could not be taken, and `note` says why.
        goal: what the project asks for, as text; "" where it asks for nothing.
        met: whether the goal is met; None without a goal or a number.
        note: what it is held against, or why it is missing.
    """

    part: str
    what: str
    value: float | None
    unit: str
    goal: str = ""
    met: bool | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is measured. The defaults are for a GPU; tests measure less.

    Attributes:
        side, batch: of APGA's steps with the paper's networks: pixels, images.
        small_side: the same of the demo's networks.
        networks, networks_side, networks_batch, networks_steps: of the classifiers' images per
            second.
        runs: repetitions of a pair that is timed in turn.
        rewards: trainings of the reward loop that are timed.
        workers: processes that share a device, one count after the other; `share_s` seconds each.
        study, cell: what is added to the command lines of the demo study and of the paper's cell.
    """

    side: int = 224
    batch: int = 25
    small_side: int = 64
    networks: tuple[str, ...] = ("densenet169", "resnet34")
    networks_side: int = 224
    networks_batch: int = 128
    networks_steps: int = 20
    runs: int = 15
    rewards: int = 20
    workers: tuple[int, ...] = (1, 2, 4, 8)
    share_s: float = 8.0
    study: tuple[str, ...] = ()
    cell: tuple[str, ...] = ()


TINY = Size(
    side=32,
    batch=4,
    small_side=32,
    networks=("tiny-resnet",),
    networks_side=32,
    networks_batch=4,
    networks_steps=1,
    runs=1,
    rewards=1,
    workers=(1, 2),
    share_s=0.5,
    study=("--seeds", "1", "--set", "policy_gradient=ppo", "--set", "controller=gru",
           "--set", "method=controller", "--set", "iterations=1", "--set", "pool_per_class=8"),
    cell=("--set", "base_epochs=1", "--set", "epochs=1", "--set", "min_steps=1",
          "--set", "classifier=tiny-resnet", "--set", "policy_network=small-unet"),
)  # fmt: skip
"""On a CPU, in seconds: what the tests run."""

Part = Callable[[str, Size], Sequence[Row]]
"""(device, how much) → its rows."""


def clock_of(device: str) -> Callable[[], float]:
    """Seconds: of this process on a CPU, of the wall on a GPU once it has done its work."""
    return gpu_clock if device == "cuda" else time.process_time


def skipped(part: str, what: str, reason: str, goal: str = "") -> Row:
    """A number that cannot be taken here."""
    return Row(part=part, what=what, value=None, unit="", goal=goal, note=f"skipped: {reason}")


def needs_cuda(part: str, what: str, goal: str = "") -> Row:
    """What only a GPU can say."""
    return skipped(part, what, "needs a CUDA device", goal)


def machine(device: str) -> dict[str, Any]:
    """What the numbers were taken on; the card's name first."""
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        card, memory = properties.name, properties.total_memory
    else:
        card, memory = f"no card ({platform.machine()}, one thread)", 0
    return {
        "card": card,
        "card_gib": round(memory / 2**30, 1),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if device == "cuda" else None,
        "python": platform.python_version(),
    }


def document(rows: Sequence[Row], about: dict[str, Any]) -> dict[str, Any]:
    """The JSON form: `about` (machine, commit, date) and the rows as they are."""
    return {**about, "rows": [asdict(row) for row in rows]}


def markdown(found: dict[str, Any]) -> str:
    """The table of a `document`."""
    rows = [Row(**row) for row in found["rows"]]
    goals = [row for row in rows if row.goal]
    lines = [
        "# On a GPU",
        "",
        f"`make bench-gpu` on {found['card']} ({found['card_gib']} GiB), torch {found['torch']}, "
        f"CUDA {found['cuda']}, Python {found['python']}; commit {found['commit']}, "
        f"{found['date']}. Goals: {sum(row.met is True for row in goals)} met, "
        f"{sum(row.met is False for row in goals)} not met, "
        f"{sum(row.met is None for row in goals)} not measured.",
        "",
        "| part | what | value | goal | met | note |",
        "|---|---|---|---|---|---|",
    ]
    words = {True: "yes", False: "**no**", None: ""}
    for row in rows:
        value = "—" if row.value is None else f"{_number(row.value)} {row.unit}".strip()
        cells = (row.part, row.what, value, row.goal, words[row.met], row.note)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
