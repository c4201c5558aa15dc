"""A study's arms beside the fleet: as trials of Ray Tune, and in Optuna's database. Nobody waits.

The broker has each result first. Tune, at a tenth of a second an arm, hears of it when it comes to
it, and is left behind where the cells are faster. The database is written from the broker's results
in batches, so that at the end of a run only the last batch is missing.
"""

import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from cluster.broker import warner
from cluster.connect import NAMESPACE
from sweeps.search.view import ArmsView

BATCH_S = 2.0


def follow(
    *,
    broker_name: str,
    storage_path: str,
    study_name: str,
    levels: Mapping[str, Sequence[Any]],
    arms: Sequence[tuple[str, Mapping[str, Any], Mapping[int, float]]],
    missing: Collection[str],
    database: Path | None,
) -> None:
    """Follow a study until its driver has said that it has ended.

    Args:
        storage_path: a folder for Tune's own bookkeeping.
        database: of Optuna's study, for optuna-dashboard; None: there is none.
        study_name, levels, arms, missing: as in `cluster.tune.Followed`.
    """
    study = {"study_name": study_name, "levels": levels, "arms": arms, "missing": set(missing)}
    broker = ray.get_actor(broker_name, namespace=NAMESPACE)
    # Made before Tune is imported, which takes seconds, and by this thread: two that import the
    # same packages at once may see halves of them.
    view = None if database is None else ArmsView(database, **study, warn=warner(broker_name))
    shown = threading.Thread(target=show, args=(view, broker), daemon=True)
    shown.start()
    from cluster.tune import follow as follow_with_tune

    follow_with_tune(broker_name=broker_name, storage_path=storage_path, **study)
    shown.join()


def show(view: ArmsView | None, broker: Any) -> None:
    """Write what the broker has heard, batch by batch, until the run has ended and all is there."""
    seen, ended = 0, False
    while not ended:
        news, over, ended = ray.get(broker.news_of_arms.remote(seen, BATCH_S))
        seen += len(news)
        if view is None:
            continue
        for arm, seed, objective in news:
            view.hear(arm, seed, objective)
        for arm in over:
            view.close(arm)
        view.write(ended=ended)
    ray.get(broker.say_shown.remote())
