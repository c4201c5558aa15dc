"""Does the advantage carry the reward's signal, and does the policy survive learning from it?

A reward of known worth and known noise: half of the candidates are worth +1, half −1, and a
selection a earns `base` + `slope` · mean(worth · a) + N(0, noise²). What an update should follow is
then exact: slope · mean(worth · (a − p)), the earning above what the policy p that drew a expects.
Its correlation with the advantage, over all draws of a run, is the score; 1 is no noise, and noise
alone bounds it by √(signal variance / all variance). With `sign=-1` the reward falls where the
worth rises, and the correlation with the worth must turn negative.
"""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from imaging_core.fields import build
from imaging_core.seeding import numpy_generator, torch_generator
from imaging_core.task import Progress, no_progress
from selection_core.config import SelectionConfig
from selection_core.controllers import build_controller
from selection_core.policy_training import train_controller
from selection_core.training import keep_auc

CONTROLLERS = ("gru", "gru_attention", "transformer")
BASE, SLOPE = 0.7, 0.5  # at p = 1/2 of 256 candidates the signal's deviation is 0.016


def planted_candidates(
    seed: int, *, candidates: int, features: int, batches: int, separation: float = 2.0
) -> tuple[np.ndarray, np.ndarray]:
    """(S, L, F) float32 inputs and (S, L) worth in {−1, +1}, in random order.

    Inputs are N(0, 1) but along one direction, where the worths' means are ±`separation` apart
    from 0.
    """
    rng = numpy_generator(seed, "planted_signal/candidates")
    worth = rng.permutation(np.repeat([-1.0, 1.0], candidates // 2))
    direction = rng.normal(size=features)
    direction /= np.linalg.norm(direction)
    x = rng.normal(size=(candidates, features)) + separation * np.outer(worth, direction)
    return x.reshape(batches, -1, features).astype(np.float32), worth.reshape(batches, -1)


def run(
    config: SelectionConfig,
    seed: int,
    *,
    noise: float,
    slope: float = SLOPE,
    sign: int = 1,
    candidates: int = 256,
    features: int = 64,
) -> dict[str, Any]:
    """Train one controller on the planted reward.

    Returns:
        correlation of advantage and signal; per iteration entropy (nats a decision), auc of the
        keep probability against the worth, and expected (the policy's earning above BASE, without
        noise).
    """
    x, worth = planted_candidates(
        seed, candidates=candidates, features=features, batches=config.batches
    )
    controller = build_controller(
        config, inputs=features, generator=torch_generator(seed, "controller/weights")
    )
    luck = numpy_generator(seed, "planted_signal/noise")
    earned: list[float] = []

    def reward(selection: np.ndarray) -> float:
        earned.append(slope * float((worth * selection).mean()))
        return BASE + sign * earned[-1] + noise * float(luck.normal())

    result = train_controller(controller, torch.from_numpy(x), reward, config=config, seed=seed)
    expected = slope * (result.policies * worth).mean((1, 2))
    signal = np.reshape(earned, (config.iterations, -1)) - expected[:, None]
    policies = (*result.policies[1:], result.keep_probability)
    return {
        "correlation": float(np.corrcoef(result.advantage.ravel(), signal.ravel())[0, 1]),
        "entropy": result.entropy,
        "auc": tuple(keep_auc(p.ravel(), worth.ravel() > 0) for p in policies),
        "expected": tuple(expected.tolist()),
    }


def measure(
    arms: Mapping[str, Mapping[str, Any]],
    seeds: Iterable[int],
    *,
    controllers: Iterable[str] = CONTROLLERS,
    noises: Iterable[float] = (0.02,),
    progress: Progress = no_progress,
    **settings: Any,
) -> list[dict[str, Any]]:
    """Rows (arm, controller, noise, seed, and what `run` returns); an arm is fields of the config.

    `settings` are `run`'s.
    """
    cells = list(itertools.product(arms, controllers, noises, seeds))
    rows = []
    for done, (arm, controller, noise, seed) in enumerate(cells):
        config = build(SelectionConfig, {**arms[arm], "controller": controller})
        found = run(config, seed, noise=noise, **settings)
        rows.append({"arm": arm, "controller": controller, "noise": noise, "seed": seed, **found})
        progress((done + 1) / len(cells), f"{arm} {controller} noise {noise} seed {seed}")
    return rows


def draw(rows: list[dict[str, Any]], axes: Any) -> Any:
    """Entropy, and AUC, per iteration: a line per run, a colour per arm, on two matplotlib axes.

    Opens no file; returns `axes`.
    """
    arms = list(dict.fromkeys(r["arm"] for r in rows))
    for row in rows:
        colour, first = f"C{arms.index(row['arm'])}", row is _first(rows, row["arm"])
        for panel, name in zip(axes, ("entropy", "auc"), strict=True):
            label = row["arm"] if first else None
            panel.plot(row[name], color=colour, lw=1.2, alpha=0.8, label=label)
    for panel, label in zip(
        axes, ("entropy, nats a decision", "AUC of keep probability"), strict=True
    ):
        panel.set_xlabel("RL iteration")
        panel.set_ylabel(label)
    axes[0].set_ylim(0, 0.72)
    axes[1].set_ylim(0.3, 1)
    axes[0].legend(frameon=False, loc="lower left")
    return axes


def _first(rows: list[dict[str, Any]], arm: str) -> dict[str, Any]:
    return next(r for r in rows if r["arm"] == arm)
