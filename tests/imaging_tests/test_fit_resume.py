"""A fit that is killed anywhere and gone on with: the bits of one that was left alone."""

import numpy as np
import pytest
import torch
from killed import undisturbed_and_killed

from imaging_core.classifiers import build_classifier
from imaging_core.fitting import FitConfig, fit
from imaging_core.sections import Sections
from imaging_core.seeding import torch_generator
from imaging_core.standardised import standardised
from imaging_core.stream import Stream

BASE = {
    "epochs": 4,
    "batch_size": 8,
    "learning_rate": 1e-2,
    "schedule": "onecycle",
    "weight_decay": 0.01,
    "min_steps": 0,
}


def images(count):
    x = np.random.default_rng(count).integers(0, 256, (count, 1, 16, 16), dtype=np.uint8)
    return standardised(x, np.array([0.5]), np.array([0.2]), "cpu")


def trained(checkpoint, stream=None, **changes):
    """(result, weights and statistics, notes of progress)."""
    model = build_classifier(
        "tiny-resnet", channels=1, classes=2, size=16, generator=torch_generator(0, "w")
    )
    notes = []
    result = fit(
        model,
        images(20),
        torch.arange(20) % 2,
        config=FitConfig(**BASE, **changes),
        generator=torch_generator(0, "order"),
        stream=stream,
        validation=(images(12), torch.arange(12) % 2),
        keep_best=True,
        progress=lambda done, note, curves: notes.append(note),
        checkpoint=checkpoint,
    )
    return result, torch.cat([v.flatten().double() for v in model.state_dict().values()])


@pytest.mark.long
@pytest.mark.parametrize("kills", [(1,), (5, 1, 4), (12,)])
@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw"])
def test_passes(kills, optimiser):
    how = {"optimiser": optimiser, "augment": "traditional", "patience": 3}
    (one, weights), (other, again), ticks = undisturbed_and_killed(
        lambda checkpoint: trained(checkpoint, **how), kills
    )
    assert ticks == one.steps == 12
    assert one == other
    assert torch.equal(weights, again)


@pytest.mark.parametrize("kills", [(1,), (7,), (2, 2, 2, 2)])
def test_a_choice_from_a_list(kills):
    def stream():
        members = torch.tensor([*range(12), *range(13, 21)])
        return Stream(groups=(12, 10), members=members, steps=9, parts=4)

    how = {"optimiser": "adamw", "augment": "flips", "patience": 0}
    (one, weights), (other, again), _ = undisturbed_and_killed(
        lambda checkpoint: trained(checkpoint, stream(), **how), kills
    )
    assert one == other
    assert torch.equal(weights, again)


def test_what_is_left_goes_to_the_section_that_left_it():
    def state():
        return {"x": np.arange(3)}

    saving = Sections()
    with saving.section("cell", dict), saving.section("fit", state):
        kept = saving.arrays()
    resumed = Sections(kept)
    with resumed.section("fit", state) as outside:
        assert outside is None
    with resumed.section("cell", dict) as cell:
        assert cell == {}
        with resumed.section("fit", state) as first:
            assert first["x"].tolist() == [0, 1, 2]
        with resumed.section("fit", state) as second:
            assert second is None
    unread = Sections(kept)
    with unread.section("cell", dict):
        pass
    with unread.section("cell", dict) as later, unread.section("fit", state) as nobody:
        assert (later, nobody) == (None, None)
