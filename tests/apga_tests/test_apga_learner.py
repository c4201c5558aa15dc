"""The classifier's optimiser and the trace of a step, by hand."""

import torch
from small_arms import batch, classifier

from apga_core.learner import Learner
from apga_core.trace import Trace


def test_losses_are_in_eval_mode_and_updates_in_training_mode():
    learner = Learner(classifier(), learning_rate=1e-3, weight_decay=0.0, precision="float32")
    images, labels = batch()
    alone = torch.cat([learner.losses(images[i : i + 1], labels[i : i + 1]) for i in range(8)])
    torch.testing.assert_close(learner.losses(images, labels), alone, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(learner.update(images, labels), alone)
    assert learner.steps == 1


def test_a_batch_of_one_makes_no_step():
    learner = Learner(classifier(), learning_rate=1e-3, weight_decay=0.0, precision="float32")
    images, labels = batch(1)
    learner.update(images, labels)
    assert learner.steps == 0


def test_the_trace_is_the_mean_over_samples_and_over_the_images_of_a_class():
    trace = Trace(classes=3)
    trace.add("reward", torch.tensor([[1.0, 2.0, 3.0], [3.0, 4.0, 7.0]]), torch.tensor([0, 2, 0]))
    trace.add("reward", torch.tensor([[10.0], [20.0]]), torch.tensor([2]))
    trace.add("empty", torch.tensor([True, False, True]), torch.tensor([0, 2, 0]))
    # Over samples 2, 3, 5 and 15; of them class 0 has 2 and 5, class 2 has 3 and 15, class 1 none.
    expected = {
        "reward/class0": 3.5,
        "reward/class2": 9.0,
        "empty/class0": 1.0,
        "empty/class2": 0.0,
    }
    assert trace.mean() == expected
    assert trace.mean() == {}  # it begins anew
