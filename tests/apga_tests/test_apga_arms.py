"""Arms that train a policy: a step of each, held to Algorithm 1 written out or to its purpose."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from small_arms import PIXELS, batch, classifier, policy_arm

from apga_core import objectives
from apga_core.arms import POLICY_ARMS, EndToEndArm, build_arm
from apga_core.config import POLICY_METHODS
from imaging_core.seeding import torch_generator


def test_an_empty_mask_has_no_reward_with_matched_modes():
    arm = policy_arm(bias=-50.0)
    images, labels = batch()
    before = arm.learner.update(images, labels)
    arm.learn(images, labels, before)
    assert abs(arm.trace.mean()["reward/class0"]) < 1e-6

    released = policy_arm(bias=-50.0, bn_mode="released")
    before = released.learner.update(images, labels)
    released.learn(images, labels, before)
    assert abs(released.trace.mean()["reward/class0"]) > 1e-3


def test_positives_only_reads_no_negative_reward():
    arm = policy_arm(reward_images="positives")
    arm.learn(*batch())
    assert set(arm.trace.mean()) == {"reward/class1"}
    assert arm.policy_steps == 1
    images, labels = batch()
    arm.learn(images, torch.zeros_like(labels))
    assert arm.policy_steps == 1


def test_the_ramp_lets_lambda_rise_from_nothing():
    images, labels = batch()
    arms = {ramp: policy_arm(lambda_ramp_steps=ramp, pg_scale=1e-9) for ramp in (0, 4)}
    start = arms[4].importance(images)
    for arm in arms.values():
        arm.learn(images, labels)
    torch.testing.assert_close(arms[4].importance(images), start, atol=1e-3, rtol=0)
    assert float((start - arms[0].importance(images)).mean()) > 0.01
    for _ in range(4):
        arms[4].learn(images, labels)
    assert float((start - arms[4].importance(images)).mean()) > 0.01


def test_an_empty_aid_mask_trains_on_the_original_and_is_counted():
    arm = policy_arm(bias=-50.0, reward_images="positives")
    images, labels = batch()
    aided = arm._aid(images, labels, arm.pixels.fill(arm.config, images))
    torch.testing.assert_close(aided, images)
    assert (arm.empty, arm.aided) == (8, 8)
    assert arm.trace.mean()["empty_masks/class1"] == 1.0


def test_random_mask_erases_as_much_as_apga_elsewhere():
    images, labels = batch()
    apga, moved = policy_arm(), policy_arm(method="random_mask")
    fill = PIXELS.fill(apga.config, images)
    first, second = (arm._aid(images, labels, fill) for arm in (apga, moved))
    black = float(PIXELS.black)
    torch.testing.assert_close(
        (first == black).sum(dim=(1, 2, 3)), (second == black).sum(dim=(1, 2, 3))
    )
    assert not torch.equal(first, second)


def by_sgd(arm):
    """Adam divides by the gradient's size: where it is nearly 0, rounding would decide a step."""
    arm.learner.optimiser = torch.optim.SGD(arm.learner.classifier.parameters(), lr=0.05)
    arm.optimiser = torch.optim.SGD(arm.policy.parameters(), lr=0.01)
    return arm


def written_out(config, net, policy, images, labels, erased):
    """One step of Algorithm 1 (SGD), image by image, for the actions `erased` (K, B, 1, h, w)."""

    def loss_of(image, label):
        with torch.no_grad():
            return float(F.cross_entropy(net(image.unsqueeze(0)), label.view(1)))

    def hide(image, gone):
        blurred = torchvision_blur(image, 4.0)
        return torch.where(F.interpolate(gone, size=(32, 32))[0, 0] > 0, blurred, image)

    def descend(module, loss, rate):
        for parameter, gradient in zip(
            module.parameters(), torch.autograd.grad(loss, list(module.parameters())), strict=True
        ):
            parameter.data -= rate * gradient

    net.train()
    descend(net, F.cross_entropy(net(images), labels), 0.05)
    net.eval()
    loss = 0.0
    for row in (labels > 0).nonzero()[:, 0]:
        p = torch.sigmoid(policy(images[row].unsqueeze(0)))[0]
        mine = erased[:, int((labels[:row] > 0).sum())]
        rewards = [
            loss_of(hide(images[row], action.unsqueeze(0)), labels[row])
            - loss_of(images[row], labels[row])
            for action in mine
        ]
        for sample, action in enumerate(mine):
            others = [r for other, r in enumerate(rewards) if other != sample]
            advantage = rewards[sample] - sum(others) / len(others)
            loss = loss + F.binary_cross_entropy(p, action) * advantage / len(mine)
        loss = loss + config.lambda_zeros * F.binary_cross_entropy(p, torch.zeros_like(p))
    descend(policy, loss / int((labels > 0).sum()), 0.01)
    with torch.no_grad():
        gone = (torch.sigmoid(policy(images)) < 0.5).float()
    aided = torch.stack([
        image if bool(cells.all()) else hide(image, cells.unsqueeze(0))
        for image, cells in zip(images, gone, strict=True)
    ])  # fmt: skip
    net.train()
    descend(net, F.cross_entropy(net(aided), labels), 0.05)
    return gone


def torchvision_blur(image, sigma):
    from torchvision.transforms.functional import gaussian_blur

    return gaussian_blur(image.unsqueeze(0), 2 * math.ceil(2.5 * sigma) + 1, sigma)[0]


def test_the_batched_step_is_algorithm_1_image_by_image():
    arm = policy_arm(
        sampling="bernoulli-grid", samples=3, reward_baseline="leave-one-out",
        reward_images="positives", erase_value="blur",
    )  # fmt: skip
    by_sgd(arm)
    images, labels = batch()
    head = arm.policy.network.head
    with torch.no_grad():  # logits on both sides of 0
        head.weight *= 10
        head.bias -= arm.policy(images).mean()
    net, masks = copy.deepcopy(arm.learner.classifier), copy.deepcopy(arm.policy)
    with torch.no_grad():
        logits = masks(images[labels > 0])
    erased = objectives.bernoulli_action(logits, 3, torch_generator(0, "arm"))
    gone = written_out(arm.config, net, masks, images, labels, erased)
    assert 0.1 < float(gone.mean()) < 0.9  # both views hide something, neither hides all

    arm.second_step(images, labels, arm.learner.update(images, labels))
    for ours, theirs in ((arm.learner.classifier, net), (arm.policy, masks)):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("sampling", "baseline"), [("greedy", "ema-before"), ("bernoulli-grid", "ema-after")]
)
def test_a_step_asks_the_device_for_no_number(sampling, baseline):
    """On the meta device tensors have shapes and no values: whatever asks for one raises."""
    arm = policy_arm(
        sampling=sampling, reward_baseline=baseline, reward_images="positives",
        erase_value="blur", advantage_scale="running-rms",
    )  # fmt: skip
    arm.learner.classifier.to("meta")
    arm.policy.to("meta")
    arm.pixels = PIXELS.to("meta")
    arm._empty = arm._empty.to("meta")
    by_sgd(arm)
    images, labels = (x.to("meta") for x in batch())
    rewarded = torch.arange(4, device="meta")
    for _ in range(2):
        arm.second_step(images, labels, arm.learner.update(images, labels), rewarded)
    assert arm.policy_steps == 2
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        int(arm._empty)


@pytest.mark.parametrize("ones", [0.0, 5.0])
def test_end_to_end_regularisers_pull_the_masks(ones):
    arm = policy_arm(EndToEndArm, method="end2end", end2end_zeros=5.0 - ones, end2end_ones=ones)
    images, labels = batch()
    before = arm.importance(images).mean()
    for _ in range(10):
        arm.second_step(images, labels, torch.zeros(8))
    after = arm.importance(images).mean()
    assert (after > before) == (ones > 0)


def test_end_to_end_gradients_do_not_pile_up():
    """The released script never zeroes them; here one step's gradient is the step's alone."""
    arm = policy_arm(EndToEndArm, method="end2end", end2end_zeros=0.0, end2end_ones=0.0)
    arm.learner.optimiser = torch.optim.SGD(arm.learner.classifier.parameters(), lr=0.0)
    arm.optimiser = torch.optim.SGD(arm.policy.parameters(), lr=0.0)
    images, labels = batch()
    gradients = []
    for _ in range(2):
        arm.second_step(images, labels, torch.zeros(8))
        gradients.append([p.grad.clone() for p in arm.policy.parameters()])
    assert max(float(g.abs().max()) for g in gradients[0]) > 0
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second)


def test_no_method_stands_for_another():
    """Every level is built, and one that nobody builds is no APGA in disguise."""
    assert set(POLICY_ARMS) == set(POLICY_METHODS)
    unknown = SimpleNamespace(method="unheard-of")
    with pytest.raises(KeyError, match="unheard-of"):
        build_arm(
            unknown, None, base=classifier(), policy=None, pixels=PIXELS, classes=2,
            generator=torch_generator(0, "arm"),
        )  # fmt: skip
