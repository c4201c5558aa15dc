"""Does the controller find what is planted? Half of the candidates carry a wrong label.

The pool is made of real training images outside the k-shot set, so the truth is exact and no
generator is needed. The score is the AUC of the keep probability against "the label is right";
a run with the reward's sign flipped must lose what a normal run wins, and a run with a random
reward (the null) shows how far one seed can stray: candidates move together along a few
directions, so a single null run ranges from near 0 to near 1 and only means over seeds count.
"""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from imaging_core.datasets.base import ImageDataset
from imaging_core.fields import build
from imaging_core.task import Arrays, Progress, Stage, load_function, no_progress
from selection_core.config import PRESETS, SelectionConfig
from selection_core.controller_selection import build_environment, select
from selection_core.policy_reading import READOUTS
from selection_core.task import TASK
from selection_core.training import keep_auc

CONTROLLERS = ("gru", "gru_attention", "transformer")
POLICY_GRADIENTS = ("reinforce", "ppo")
SIGNS = ("normal", "flipped", "random")


def planted_config(**fields: Any) -> SelectionConfig:
    """The demo preset with a half-mislabelled pool of real images, and `fields` on top."""
    planted = {"pool": "real", "pool_label_noise": 0.5}
    return build(SelectionConfig, {**PRESETS["demo"], **planted, **fields})


def _compute(stage: Stage, data: ImageDataset, needs: Mapping[str, Arrays], device: str) -> Arrays:
    compute = load_function(stage.compute)
    return compute(stage.inputs, data, needs, device=device, progress=no_progress)


def prepare(
    data: ImageDataset, config: SelectionConfig, seeds: Iterable[int], *, device: str = "cpu"
) -> dict[int, dict[str, Arrays]]:
    """Seed → its pool and features.

    The first seed's base classifier is the feature extractor of all, to be quick; the k-shot draw,
    the pool and every stream of the controller are the seed's own.
    """
    found: dict[int, dict[str, Arrays]] = {}
    base: Arrays | None = None
    for seed in seeds:
        stages = TASK.stages(config, seed)
        if base is None:
            base = _compute(stages["base"], data, {}, device)
        pool = _compute(stages["pool"], data, {"base": base}, device)
        features = _compute(stages["features"], data, {"pool": pool, "base": base}, device)
        found[seed] = {"pool": pool, "features": features}
    return found


def planted_auc(
    config: SelectionConfig,
    data: ImageDataset,
    seed: int,
    stages: Mapping[str, Arrays],
    *,
    device: str = "cpu",
) -> float:
    """Train one controller; AUC in [0, 1] of its keep probability against the planted truth."""
    environment = build_environment(config, data, seed, stages, device=device)
    readings, _, _ = select(
        config, data, seed, stages, environment, device=device, progress=no_progress
    )
    right = stages["pool"]["labels"] == stages["pool"]["true_labels"]
    return keep_auc(readings[READOUTS[config.policy_readout]], right)


def measure(
    data: ImageDataset,
    seeds: Iterable[int],
    *,
    signs: tuple[str, ...] = SIGNS,
    device: str = "cpu",
    progress: Progress = no_progress,
    **fields: Any,
) -> list[dict[str, Any]]:
    """Rows (controller, policy_gradient, reward_sign, seed, auc) over the six arms of Table 3."""
    seeds = tuple(seeds)
    prepared = prepare(data, planted_config(**fields), seeds, device=device)
    cells = list(itertools.product(CONTROLLERS, POLICY_GRADIENTS, signs, seeds))
    rows = []
    for done, (controller, policy_gradient, sign, seed) in enumerate(cells):
        arm = {
            "controller": controller,
            "policy_gradient": policy_gradient,
            "reward_sign": sign,
        }
        config = planted_config(**fields, **arm)
        auc = planted_auc(config, data, seed, prepared[seed], device=device)
        rows.append({**arm, "seed": seed, "auc": auc})
        progress((done + 1) / len(cells), f"{controller} {policy_gradient} {sign} seed {seed}")
    return rows


def draw(rows: list[dict[str, Any]], axes: Any) -> Any:
    """One dot per seed and a bar at the mean, for each arm and reward sign, on matplotlib axes.

    Opens no file; returns `axes`.
    """
    arms = list(dict.fromkeys((r["controller"], r["policy_gradient"]) for r in rows))
    signs = list(dict.fromkeys(r["reward_sign"] for r in rows))
    for column, sign in enumerate(signs):
        shift = 0.22 * (column - (len(signs) - 1) / 2)
        for place, arm in enumerate(arms):
            values = [
                r["auc"]
                for r in rows
                if (r["controller"], r["policy_gradient"]) == arm and r["reward_sign"] == sign
            ]
            x = place + shift
            label = f"{sign} reward" if place == 0 else None
            axes.plot([x] * len(values), values, "o", color=f"C{column}", alpha=0.6, label=label)
            axes.plot([x - 0.08, x + 0.08], [np.mean(values)] * 2, "-", color=f"C{column}", lw=2)
    axes.axhline(0.5, color="0.7", lw=1, zorder=0)
    axes.set_xticks(range(len(arms)), [f"{c}\n{p}" for c, p in arms])
    axes.set_ylim(0, 1)
    axes.set_ylabel('AUC of keep probability\nfor "the label is right"')
    axes.legend(ncols=len(signs), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    return axes
