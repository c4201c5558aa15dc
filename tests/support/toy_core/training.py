"""What the toy core computes."""

import os
import signal
import time
from pathlib import Path

import numpy as np

from imaging_core.task import Outcome, Predictions


def pooled(images: np.ndarray, pooling: int) -> np.ndarray:
    n, c, h, w = images.shape
    blocks = images.reshape(n, c, h // pooling, pooling, w // pooling, pooling)
    return blocks.mean(axis=(3, 5)).reshape(n, -1) / 255.0


def pooled_pixels(inputs, data, needs, *, device, progress):
    time.sleep(inputs["wait_s"])
    return {
        name: pooled(getattr(data, name).images, inputs["pooling"])
        for name in ("train", "validation", "test")
    }


def order(inputs, data, needs, *, device, progress):
    generator = np.random.default_rng(inputs["seed"])
    return {"rows": generator.permutation(len(needs["pixels"]["train"]))}


def train_cell(config, data, seed, stages, *, device, progress) -> Outcome:
    for done in range(10):
        progress(done / 10, "waiting")
        time.sleep(config.wait_s / 10)
    if seed == config.raise_at_seed:
        raise RuntimeError("this seed was told to raise")
    while seed == config.hang_at_seed:
        time.sleep(1)
    if seed == config.hog_at_seed:
        np.empty(10**17)
    if seed == config.kill_at_seed:
        _die(config, seed)
    pixels, rows = stages["pixels"], stages["order"]["rows"][:200]
    x, y = pixels["train"][rows], 2.0 * data.train.labels[rows] - 1
    x = np.hstack([x, np.ones((len(x), 1))])
    weights = np.linalg.solve(x.T @ x + config.ridge * np.eye(x.shape[1]), x.T @ y)
    parts, scores = [], {}
    for name in ("validation", "test"):
        part = getattr(data, name)
        features = np.hstack([pixels[name], np.ones((len(part), 1))])
        p = 1 / (1 + np.exp(-4 * features @ weights))
        scores[name] = float(((p > 0.5) == part.labels).mean())
        parts.append(
            Predictions(
                split=name,
                ids=part.ids,
                groups=part.groups,
                labels=part.labels,
                probabilities=np.stack([1 - p, p], axis=1).astype(np.float32),
            )
        )
    accuracy = float("nan") if seed == config.nan_at_seed else scores["test"]
    return Outcome(
        metrics={"accuracy": accuracy, "val_best": scores["validation"]},
        predictions=tuple(parts),
        curves={"reward": (scores["validation"],)},
    )


def _die(config, seed) -> None:
    counter = Path(config.kill_folder) / f"deaths-{seed}"
    deaths = len(counter.read_text()) if counter.exists() else 0
    if deaths < config.kill_times:
        counter.write_text("x" * (deaths + 1))
        os.kill(os.getpid(), signal.SIGKILL)
