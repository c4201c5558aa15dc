"""Several workers on one device: how many rewards they make together, with and without MPS.

A worker is a process, as in the fleet: it trains the demo's reward classifiers one after the other,
in a loop of its own, while the others do the same.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from gpu.rows import Row, Size, needs_cuda, skipped

GOAL = 3.0
HERE = Path(__file__).resolve().parents[1]
MPS = "nvidia-cuda-mps-control"
START_S = 300.0


def sharing(device: str, size: Size) -> list[Row]:
    """Rewards per second of 1, 2, 4, 8 workers; each count as a multiple of one alone."""
    found = _counts(device, size, "without MPS", {})
    what = "workers on one device with MPS"
    if device != "cuda":
        return [*found, needs_cuda("sharing", what)]
    if shutil.which(MPS) is None:
        return [*found, skipped("sharing", what, f"{MPS} is not installed here")]
    with mps() as environment:
        return found + _counts(device, size, "with MPS", environment)


def _counts(device: str, size: Size, how: str, environment: Mapping[str, str]) -> list[Row]:
    found, alone = [], 0.0
    for count in size.workers:
        speed = together(count, device, size.share_s, environment)
        alone = alone or speed / count
        times = speed / alone
        best = count == max(size.workers)
        found.append(
            Row(
                part="sharing",
                what=f"{count} worker{'s' * (count > 1)} on one device, {how}: "
                f"{speed:.3g} rewards/s, against one alone",
                value=times,
                unit="×",
                goal=f"≥ {GOAL:g}" if best else "",
                met=times >= GOAL if best else None,
            )
        )
    return found


def together(count: int, device: str, seconds: float, environment: Mapping[str, str]) -> float:
    """Rewards per second of `count` workers that begin at once, all of them together.

    Raises:
        RuntimeError: a worker failed; with what it said.
    """
    paths = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    whole = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"} | dict(environment)
    command = [sys.executable, "-m", "gpu.sharing", device, str(seconds)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with contextlib.ExitStack() as workers:
        said = workers.enter_context(tempfile.TemporaryFile("w+"))
        running = [
            workers.enter_context(subprocess.Popen(command, env=whole, stderr=said, **pipes))
            for _ in range(count)
        ]
        # What ends early ends the others too: each waits for a line that then never comes.
        workers.callback(lambda: [one.kill() for one in running if one.poll() is None])
        for one in running:
            if one.stdout.readline().strip() != "ready":
                said.seek(0)
                raise RuntimeError(f"a worker on {device} did not start: {said.read()[-2000:]}")
        for one in running:
            one.stdin.write("go\n")
            one.stdin.flush()
        speeds = []
        for one in running:
            answer, _ = one.communicate(timeout=START_S + seconds)
            if one.returncode:
                said.seek(0)
                raise RuntimeError(f"a worker on {device} failed: {said.read()[-2000:]}")
            speeds.append(float(answer))
    return sum(speeds)


def rewards_per_second(device: str, seconds: float, ready) -> float:
    """Rewards of the demo preset, one after the other, for so long; `ready()` before the first."""
    from bench_reward_loop import reward_loop

    from gpu.rows import clock_of
    from selection_core.config import PRESETS, SelectionConfig
    from sweeps.engine.worker import prepare_process

    prepare_process()
    loop = reward_loop(SelectionConfig(**PRESETS["demo"]), device)
    loop.environment.reward(loop.keep)
    if device == "cuda":
        clock_of(device)()  # the warm-up is over
    ready()
    began, made = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        loop.environment.reward(loop.keep)  # a score is read on the host: it waits for the device
        made += 1
    return made / (time.monotonic() - began)


@contextlib.contextmanager
def mps() -> Iterator[dict[str, str]]:
    """NVIDIA's multi-process service of our own; yields what its clients' environment needs.

    Raises:
        RuntimeError: it does not start; with what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        places = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        environment = os.environ | places
        begun = subprocess.run([MPS, "-d"], env=environment, capture_output=True, text=True)
        if begun.returncode:
            raise RuntimeError(f"{MPS} -d: {begun.stdout}{begun.stderr}".strip())
        try:
            yield places
        finally:
            subprocess.run([MPS], input="quit\n", env=environment, text=True, timeout=60)


def main() -> None:
    """A worker: says when it is ready, waits for a line, then says how fast it was."""

    def ready() -> None:
        print("ready", flush=True)
        if not sys.stdin.readline():
            sys.exit(1)  # nobody is there any more

    device, seconds = sys.argv[1:]
    print(rewards_per_second(device, float(seconds), ready))


if __name__ == "__main__":
    main()
