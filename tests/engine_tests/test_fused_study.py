"""`--fuse K`: the same cells, up to rounding, and they say it; who is grouped with whom."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import toy_study
from studies import elsewhere, here

from cluster.queue import WorkItem
from sweeps import ablation_controller, apga_methods
from sweeps.engine.fused import group_items
from sweeps.ledger.files import Store
from sweeps.ledger.read import read_ledger, read_predictions


def item(kind: str, arm: int, seed: int, needs: tuple[str, ...] = ()) -> WorkItem:
    key = f"{kind}-{arm}{seed}"
    payload = {"kind": kind, "key": key, "config": {"arm": arm}, "data": "d", "seed": seed}
    if kind == "stage":
        payload["stage"] = key
    return WorkItem(id=key, payload=payload, needs=needs, deadline_s=10.0)


def test_what_differs_in_the_seed_alone_is_grouped_and_needs_follow():
    renamed: dict[str, str] = {}
    stages = group_items([item("stage", 0, seed) for seed in range(5)], 3, renamed)
    assert [[p["seed"] for p in s.payload["members"]] for s in stages] == [[0, 2, 4], [1, 3]]
    assert [s.deadline_s for s in stages] == [30.0, 20.0]
    cells = [item("cell", arm, seed, (f"stage-0{seed}",)) for arm in (0, 1) for seed in (0, 1)]
    cells = group_items([*cells, item("cell", 2, 0, ("stage-01", "other"))], 2, renamed)
    assert [len(c.payload.get("members", ())) for c in cells] == [2, 2, 0]
    assert cells[0].needs == (stages[0].id, stages[1].id)
    assert cells[2].needs == (stages[1].id, "other")
    assert cells[2].payload["fuse"] == 2  # its own trainings may be fused
    one = [item("cell", 0, 0)]
    assert group_items(one, 1, renamed) == one


def test_a_failure_in_a_group_is_its_own(tmp_path):
    answer = here(
        toy_study, "--results", tmp_path, "--inline", "--fuse", 3, "--seeds", 3,
        "--set", "raise_at_seed=1",
    )  # fmt: skip
    assert answer.returncode == 3
    assert "6 failed" in answer.stdout
    frame = read_ledger(str(tmp_path / "toy")).cells
    assert frame[frame["status"] == "failed"]["seed"].tolist() == [1] * 6
    ok = frame[frame["status"] == "ok"]
    assert len(ok) == 12
    assert (ok["fused"] == 1).all()  # the toy trains nothing that could be fused
    here(toy_study, "--results", tmp_path / "apart", "--inline", "--seeds", 3)
    where = ["arm", "seed"]
    apart = read_ledger(str(tmp_path / "apart" / "toy")).cells.set_index(where)
    found = ok.set_index(where)["metric.accuracy"]
    assert found.equals(apart.loc[found.index, "metric.accuracy"])


@pytest.mark.ray
@pytest.mark.slow
def test_groups_on_ray_commit_the_cells_of_an_inline_run_and_a_failure_is_its_own(tmp_path):
    settings = ("--fuse", 2, "--seeds", 3, "--set", "raise_at_seed=1")
    answer = elsewhere("--results", tmp_path / "ray", *settings)
    assert answer.returncode == 3, answer.stdout + answer.stderr
    assert "12 of 18 cells are committed" in answer.stdout
    here(toy_study, "--results", tmp_path / "inline", "--inline", *settings)
    columns = ["arm", "seed", "status", "error_type", "metric.accuracy", "fused", "attempts"]
    on_ray, inline = (
        read_ledger(str(tmp_path / name / "toy")).cells[columns] for name in ("ray", "inline")
    )
    assert on_ray.equals(inline)
    assert on_ray["status"].value_counts().to_dict() == {"ok": 12, "failed": 6}


def both(script, study: str, folder: Path, *settings: str):
    """The cells and a reader of predictions of a study run apart and with --fuse 4."""
    found = []
    script = SimpleNamespace(STUDY=script.STUDY, last_step=toy_study.last_step, __doc__="")
    for name, more in (("apart", ()), ("fused", ("--fuse", 4))):
        arguments = [x for setting in settings for x in ("--set", setting)]
        answer = here(
            script, "--results", folder / name, "--inline", "--quiet", "--data", "ihc-colon",
            "--seeds", 2, *arguments, *more,
        )  # fmt: skip
        assert answer.returncode == 0, answer.stdout
        root = str(folder / name / study)
        found.append((read_ledger(root).cells, Store(root)))
    return found


def close(apart, fused, tolerance: float) -> None:
    (cells, store), (others, other) = apart, fused
    assert cells["key"].tolist() == others["key"].tolist()
    for key in cells["key"]:
        ours = np.stack(read_predictions(store, key)["probabilities"])
        theirs = np.stack(read_predictions(other, key)["probabilities"])
        assert np.abs(ours - theirs).max() < tolerance


@pytest.mark.slow
def test_base_classifiers_of_two_seeds_fused(tmp_path):
    apart, fused = both(
        apga_methods, "apga_methods", tmp_path,
        "method=baseline", "k_shot=16", "base_epochs=2", "base_min_steps=0",
    )  # fmt: skip
    assert (apart[0]["fused"] == 1).all()
    assert (fused[0]["fused"] == 2).all()
    close(apart, fused, 1e-3)


@pytest.mark.slow
def test_rewards_and_final_classifiers_of_two_seeds_fused(tmp_path):
    apart, fused = both(
        ablation_controller, "controller_ablation", tmp_path,
        "controller=gru", "policy_gradient=ppo", "generator_steps=4", "k_shot=8",
        "pool_per_class=16", "iterations=2", "classifier_epochs=1", "classifier_min_steps=4",
        "reward_metric=log_likelihood", "reward_min_steps=4", "validation_per_class=16",
    )  # fmt: skip
    assert (fused[0]["fused"] == 4).all()  # two seeds with two rewards an iteration
    for own, other in zip(apart[0]["curves"], fused[0]["curves"], strict=True):
        assert own["reward"] == pytest.approx(other["reward"], abs=1e-3)
        assert len(set(own["reward"])) > 1
    for name in ("metric.classifier_trainings", "metric.optimiser_steps"):
        assert apart[0][name].tolist() == fused[0][name].tolist()
    close(apart, fused, 0.02)
