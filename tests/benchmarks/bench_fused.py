"""K replicas trained as one network against the same K trainings one after the other.

    python tests/benchmarks/bench_fused.py          # the 32 px networks, on a CPU
    python tests/benchmarks/bench_fused.py --cuda   # and the larger ones, on a GPU

On a GPU wall time counts, and a third way is timed: K processes that share it.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from functools import partial

import torch
import torch.multiprocessing
from timing import Figure, gpu_clock, machine, paired

from imaging_core.classifiers import build_classifier
from imaging_core.fitting import FitConfig
from imaging_core.fused_fitting import Job, fit_alone, fit_fused
from imaging_core.seeding import torch_generator

K = 5
SMALL = (("tiny-resnet", 32, 8), ("tiny-resnet", 32, 32), ("small-resnet", 32, 32))
LARGE = (("resnet34", 96, 64), ("densenet169", 224, 25))
STEPS = {"tiny-resnet": 8, "small-resnet": 6, "resnet34": 4, "densenet169": 4}
ON_GPU = 10
"""Times as many steps on a GPU, where one takes milliseconds."""


def job(name: str, side: int, batch: int, seed: int, device: str) -> Job:
    """One training of `STEPS` full batches on images of noise."""
    steps = STEPS[name] * (ON_GPU if device == "cuda" else 1)
    draws = torch_generator(seed, "images")
    images = torch.randn(2 * batch, 1, side, side, generator=draws).to(device)
    labels = torch.randint(2, (2 * batch,), generator=draws).to(device)
    model = build_classifier(
        name, channels=1, classes=2, size=side, generator=torch_generator(seed, "net")
    ).to(device)
    return Job(
        model=model,
        images=images,
        labels=labels,
        config=FitConfig(
            epochs=steps // 2, batch_size=batch, learning_rate=1e-3, optimiser="adamw",
            schedule="constant", weight_decay=1e-4, patience=0, min_steps=0, augment="none",
        ),
        generator=torch_generator(seed, "fit"),
    )  # fmt: skip


def jobs(name: str, side: int, batch: int, device: str) -> list[Job]:
    return [job(name, side, batch, seed, device) for seed in range(K)]


def _title(name: str, side: int, batch: int) -> str:
    return f"{K} fused trainings ({name}, {side} px, batch {batch})"


def figures() -> list[Figure]:
    """On the CPU: fused against one after the other."""
    torch.set_num_threads(1)
    found = []
    for name, side, batch in SMALL:
        ready = jobs(name, side, batch, "cpu")
        found.append(
            paired(
                f"{_title(name, side, batch)} against one after the other",
                partial(fit_fused, ready),
                partial(_in_turn, ready),
                limit="said, not asked",
                runs=5,
            )
        )
    return found


def _in_turn(ready: list[Job]) -> None:
    for one in ready:
        fit_alone(one)


def _wall(call: Callable[[], object]) -> float:
    began = gpu_clock()
    call()
    return gpu_clock() - began


def _process(name: str, side: int, batch: int, seed: int, gate, seconds, runs: int) -> None:
    """One of K processes on the GPU: every run begins and ends with the others."""
    ready = job(name, side, batch, seed, "cuda")
    fit_alone(ready)
    for run in range(runs):
        torch.cuda.synchronize()
        gate.wait()
        took = _wall(partial(fit_alone, ready))
        gate.wait()
        seconds.put((run, took))


def _sharing(name: str, side: int, batch: int, runs: int) -> float:
    """Median over runs of the slowest of K processes."""
    context = torch.multiprocessing.get_context("spawn")
    gate, seconds = context.Barrier(K), context.Queue()
    processes = [
        context.Process(target=_process, args=(name, side, batch, seed, gate, seconds, runs))
        for seed in range(K)
    ]
    for process in processes:
        process.start()
    took: dict[int, list[float]] = {}
    for _ in range(K * runs):
        run, one = seconds.get()
        took.setdefault(run, []).append(one)
    for process in processes:
        process.join()
    return statistics.median(max(of_run) for of_run in took.values())


def on_gpu(runs: int = 5) -> None:
    """Prints seconds and ratios: fused, one after the other, K processes sharing the GPU."""
    print(f"{torch.cuda.get_device_name()}, {machine()}, K = {K}, medians of {runs}")
    for name, side, batch in (*SMALL, *LARGE):
        ready = jobs(name, side, batch, "cuda")
        fit_fused(ready), _in_turn(ready)
        pairs = [
            (_wall(partial(fit_fused, ready)), _wall(partial(_in_turn, ready))) for _ in range(runs)
        ]
        fused = statistics.median(a for a, _ in pairs)
        turn = statistics.median(b / a for a, b in pairs)
        del ready
        torch.cuda.empty_cache()
        shared = _sharing(name, side, batch, runs)
        print(
            f"{_title(name, side, batch)}: fused {fused:.3g} s; one after the other {turn:.2f} × "
            f"as long; {K} processes {shared / fused:.2f} ×"
        )


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--cuda", action="store_true", help="on a GPU, wall time")
    if arguments.parse_args().cuda:
        if not torch.cuda.is_available():
            sys.exit("error: --cuda needs a GPU, and torch sees none")
        on_gpu()
    else:
        for figure in figures():
            print(f"{figure.what}: {figure.ours_s:.3g} s, ratio {figure.ratio:.2f}")
