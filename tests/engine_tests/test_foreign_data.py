"""Presets on foreign data: what gives way is said and stored, what was typed is refused."""

import numpy as np
import pytest

from imaging_core import datasets
from imaging_core.datasets import ImageDataset, Split
from imaging_core.fields import ConfigError
from sweeps import kshot, selection_methods
from sweeps.engine.declaring import declared_of
from sweeps.engine.plan import make_plan, manifest_of
from sweeps.engine.study import Request
from sweeps.ledger.schema import CLASS_SIZES


@pytest.fixture
def small(monkeypatch):
    """Foreign data: 32 × 64 pixels, 70 training and 11 validation images a class."""

    def part(name, each, seed):
        names = np.array([f"{name}{i}" for i in range(2 * each)])
        images = np.random.default_rng(seed).integers(0, 255, (2 * each, 1, 32, 64), np.uint8)
        return Split(images=images, labels=np.arange(2 * each) % 2, groups=names, ids=names)

    parts = {"train": part("a", 70, 1), "validation": part("b", 11, 2), "test": part("c", 9, 3)}
    data = ImageDataset(name="own", classes=("no", "yes"), notes=("not used: x",), **parts).check()
    monkeypatch.setattr(datasets, "load", lambda *_, **__: data)
    return data


def plan_of(study, tmp_path, *settings):
    return make_plan(
        study, Request(settings=settings, seeds="1"), results=str(tmp_path), retry_failed=False
    )


def test_a_preset_gives_way_and_the_plan_and_the_cells_say_so(small, tmp_path):
    plan = plan_of(selection_methods.STUDY, tmp_path, "pool=real")
    config = plan.arms[0].config
    assert config.pool_per_class == 54  # 70 less the 16 of k_shot
    assert any(note.startswith("pool_per_class is 54 (preset: 128)") for note in plan.notes)
    assert plan.arms[0].values["pool_per_class"] == 54
    assert plan.data[0].endswith("classes no, yes")
    assert "  validation: 22 images (no 11, yes 11) of 22 groups" in plan.data
    assert "  not used: x" in plan.data
    (recorded,) = manifest_of(plan, {}).extra[CLASS_SIZES].values()
    assert recorded == {"no": 90, "yes": 90}


def test_what_was_typed_is_refused(small, tmp_path):
    with pytest.raises(ConfigError, match="validation_per_class must be at most 11"):
        plan_of(selection_methods.STUDY, tmp_path, "pool=natural", "validation_per_class=12")


def test_a_level_that_the_data_cannot_serve_is_left_out_in_sight(small, tmp_path):
    plan = plan_of(kshot.STUDY, tmp_path)
    assert {arm.config.k_shot for arm in plan.arms} == {10, 25, 50, 0}
    assert any(note.startswith("left out: k_shot=100") for note in plan.notes)
    with pytest.raises(ConfigError, match="k_shot must be at most 70"):
        plan_of(kshot.STUDY, tmp_path, "k_shot=10,100")


def test_folds_are_a_factor_of_the_data_and_of_no_configuration(small, tmp_path):
    plan = make_plan(
        kshot.STUDY,
        Request(folds=3, seeds="2", settings=("k_shot=10", "split_seed=1")),
        results=str(tmp_path),
        retry_failed=False,
    )
    assert {arm.data for arm in plan.arms} == {
        f"{kshot.STUDY.data}:?split_seed=1&fold={number}of3" for number in (1, 2, 3)
    }
    methods = len(plan.arms) // 3
    # Neighbours share their images, so that a worker loads no other between them.
    assert len({arm.data for arm in plan.arms[:methods]}) == 1
    told = declared_of(plan)
    assert (told.partitions, told.looks, told.comparisons) == (3, (3,), methods - 1)
    assert told.overlap == pytest.approx(18 / 162)  # of 9, 70 and 11 images a class
    assert told.baseline == {"method": "baseline_matched", "k_shot": "10"}
    one = plan_of(kshot.STUDY, tmp_path, "k_shot=10")
    assert {key for arm in plan.arms for key in arm.values} == set(one.arms[0].values)


def test_a_race_has_one_split(small, tmp_path):
    request = Request(until="decided", settings=("split_seed=0,1",))
    with pytest.raises(ConfigError, match="--until decided adds seeds, which say nothing of"):
        make_plan(kshot.STUDY, request, results=str(tmp_path), retry_failed=False)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (Request(folds=2), "folds must be at least 3"),
        (Request(settings=("fold=1",)), 'fold must be one of at least 3, as "2of5"'),
        (Request(settings=("split_seed=a",)), "split_seed must be a whole number"),
    ],
)
def test_what_is_no_partition_is_refused_before_anything_starts(small, tmp_path, request_, said):
    with pytest.raises(ConfigError, match=said):
        make_plan(kshot.STUDY, request_, results=str(tmp_path), retry_failed=False)
