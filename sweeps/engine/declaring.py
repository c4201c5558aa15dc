"""What a plan declares before it runs: how its comparisons will be decided."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from imaging_core.fields import ConfigError, did_you_mean
from sweeps.engine.plan import Plan, manifest_of
from sweeps.engine.seeds import seeds_of
from sweeps.engine.study import Study
from sweeps.ledger.books import MANIFEST_BOOK, Damaged
from sweeps.ledger.declared import (
    Declared,
    compared,
    declaring,
    partition_of,
    without_partition,
)
from sweeps.ledger.files import Store
from sweeps.ledger.read import MANIFEST
from sweeps.ledger.schema import Manifest


def primary_direction(study: Study) -> bool:
    """Whether more of the primary metric is better.

    Raises:
        ConfigError: the core has no such metric, or one without a better way.
    """
    metrics = {metric.name: metric for metric in study.task.metrics}
    directed = [name for name, found in metrics.items() if found.higher_is_better is not None]
    if study.primary not in directed:
        raise ConfigError(
            f"primary must be a metric of {study.core} that has a better way "
            f"({', '.join(directed)}), got {study.primary!r}"
            f"{did_you_mean(study.primary, directed)}"
        )
    return bool(metrics[study.primary].higher_is_better)


def declared_of(plan: Plan) -> Declared:
    """How the comparisons of `plan` will be decided.

    Raises:
        ConfigError: see `primary_direction`.
    """
    study, seeds = plan.study, len(plan.seeds)
    if plan.request.until is None:
        looks: tuple[int, ...] = (seeds,)
    else:
        from sweeps.search.looks import schedule  # scipy, which nothing else of a plan needs

        looks = schedule(len(seeds_of(study, plan.request)))
    baseline = {name: str(level) for name, level in study.baseline.items()}
    arms = [arm.text_levels for arm in plan.arms]
    partitions = len({partition_of(levels) for levels in arms})
    if partitions > 1:
        looks = (partitions,)
        baseline = without_partition(baseline)
        arms = [
            dict(each)
            for each in dict.fromkeys(tuple(without_partition(levels).items()) for levels in arms)
        ]
    return Declared(
        metric=study.primary,
        higher_is_better=primary_direction(study),
        margin=study.margin,
        error=study.error,
        comparisons=len(compared(arms, baseline)),
        baseline=baseline,
        looks=looks,
        partitions=partitions if partitions > 1 else 0,
        overlap=plan.overlap if partitions > 1 else 0.0,
        after_cells=len(plan.done),
    )


def declared_line(plan: Plan) -> str:
    """`"decides by accuracy: margin 0.01, error 5% over 9 comparisons, at 5 seeds"`.

    Raises:
        ConfigError: see `primary_direction`.
    """
    told = declared_of(plan)
    at = f"at {', '.join(map(str, told.looks))} seeds"
    if told.partitions:
        at = f"over {told.partitions} partitions of the patients, {len(plan.seeds)} seeds each"
    return (
        f"decides by {told.metric}: margin {told.margin:g}, error {told.error:.0%} over "
        f"{told.comparisons} comparisons, {at}"
    )


def declared_manifest(plan: Plan, ledger: Store, extra: Mapping[str, Any]) -> Manifest:
    """`study.json` for this plan, with what it declares; `extra` is what else it says.

    Raises:
        ConfigError: see `primary_direction`.
    """
    try:
        earlier = MANIFEST_BOOK.read(ledger, MANIFEST)
    except Damaged:
        earlier = None  # written anew below
    manifest = manifest_of(plan, extra)
    return replace(
        manifest, extra={**manifest.extra, **declaring(declared_of(plan), manifest, earlier)}
    )
