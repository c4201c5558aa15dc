"""Whole cells of the selection core on made-up images of 16 × 16 pixels, in well under a second.

Run as a script it prints the hash of the default cell: what a fresh interpreter computes.
"""

import hashlib
import pickle

import numpy as np
import torch
from safetensors.numpy import load, save

from imaging_core.datasets.base import ImageDataset, Split
from imaging_core.fields import build
from imaging_core.task import load_function, no_progress
from selection_core.task import TASK

TINY = {
    "k_shot": 6,
    "validation_per_class": 8,
    "pool": "mixed",
    "pool_per_class": 8,
    "generator_steps": 4,
    "generator_snapshots": 2,
    "generator_batch": 8,
    "generator_width": 4,
    "generator_latent": 4,
    "classifier": "tiny-resnet",
    "classifier_steps": 6,
    "classifier_epochs": 3,
    "classifier_batch": 8,
    "classifier_learning_rate": 5e-3,
    "reward_steps": 6,
    "reward_metric": "log_likelihood",
    "reward_epochs": 3,
    "controller_width": 8,
    "controller_feedforward": 8,
    "batches": 2,
    "iterations": 3,
    "episodes": 2,
    "learning_rate": 1e-2,
}


def make_part(name, count, seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = rng.integers(0, 160, (count, 1, 16, 16)) + 60 * labels[:, None, None, None]
    return Split(
        images=images.astype(np.uint8),
        labels=labels,
        groups=np.array([f"{name}-{i // 4}" for i in range(count)]),
        ids=np.array([f"{name}-{i}" for i in range(count)]),
    )


def make_data():
    """Two classes that differ in brightness: 48 training, 24 validation and 24 test images."""
    return ImageDataset(
        name="made-up",
        classes=("dark", "bright"),
        train=make_part("train", 48, 0),
        validation=make_part("validation", 24, 1),
        test=make_part("test", 24, 2),
    )


def compute_stages(config, data, seed, memory):
    """Every stage of a cell; `memory` keeps them by identity, as the engine's store does."""
    computed = {}
    for name, stage in TASK.stages(config, seed).items():
        key = (data.fingerprint, repr(stage))
        if key not in memory:
            needs = {need: computed[need] for need in stage.needs}
            compute = load_function(stage.compute)
            arrays = compute(stage.inputs, data, needs, device="cpu", progress=no_progress)
            # As the engine stores them: what comes back has no order of its own.
            memory[key] = load(save({k: np.asarray(v, order="C") for k, v in arrays.items()}))
        computed[name] = memory[key]
    return computed


def run_cell(data, seed=0, memory=None, **fields):
    """The stages and the outcome of a cell of `TINY` with `fields` on top."""
    config = build(TASK.config, {**TINY, **fields})
    TASK.check(config, data)
    computed = compute_stages(config, data, seed, {} if memory is None else memory)
    train = load_function(TASK.train)
    return computed, train(config, data, seed, computed, device="cpu", progress=no_progress)


def as_bytes(computed, outcome):
    """Everything a cell and its stages yield, in one comparable value."""
    return pickle.dumps(
        (
            {s: {k: arrays[k].tobytes() for k in sorted(arrays)} for s, arrays in computed.items()},
            dict(outcome.metrics),
            dict(outcome.curves),
            {k: v.tobytes() for k, v in outcome.artifacts.items()},
            [p.probabilities.tobytes() for p in outcome.predictions],
        )
    )


def digest(computed, outcome):
    """SHA-256 of `as_bytes`."""
    return hashlib.sha256(as_bytes(computed, outcome)).hexdigest()


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(digest(*run_cell(make_data())))
