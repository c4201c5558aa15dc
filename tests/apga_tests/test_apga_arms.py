"""Arms, learner and maps: each held to a hand computation or to the property it exists for."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from apga_core import augmentations, localisation, objectives, saliency
from apga_core.arms import POLICY_ARMS, AugmentArm, EndToEndArm, Pixels, PolicyArm, build_arm
from apga_core.config import POLICY_METHODS, APGAConfig
from apga_core.learner import Learner
from apga_core.networks import build_policy, decode
from apga_core.trace import Trace
from imaging_core.classifiers import build_classifier
from imaging_core.fields import ConfigError
from imaging_core.seeding import torch_generator

PIXELS = Pixels(mean=torch.tensor([0.4]), std=torch.tensor([0.2]))


def classifier(seed=0):
    return build_classifier(
        "tiny-resnet", channels=1, classes=2, size=32, generator=torch_generator(seed, "net")
    )


def policy(grid=8, bias=0.0, name="coarse-unet"):
    return build_policy(
        name, channels=1, grid=grid, initial_bias=bias,
        generator=torch_generator(0, "policy"),
    )  # fmt: skip


def batch(count=8):
    images = torch.randn(count, 1, 32, 32, generator=torch_generator(0, "images"))
    return images, torch.arange(count) % 2


def policy_arm(kind=PolicyArm, bias=0.0, **changes):
    config = APGAConfig(
        policy_network="coarse-unet", grid=8, policy_learning_rate=1e-2,
        **{"method": "apga", **changes},
    )  # fmt: skip
    learner = Learner(classifier(), learning_rate=1e-3, weight_decay=0.0, precision="float32")
    return kind(
        config, policy(bias=bias), learner, pixels=PIXELS, classes=2,
        generator=torch_generator(0, "arm"),
    )  # fmt: skip


# --- rewards --------------------------------------------------------------------------------


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


# --- the step ---------------------------------------------------------------------------------


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


# --- the learner ----------------------------------------------------------------------------


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


# --- the rivals' masks ------------------------------------------------------------------------


def test_released_cutout_has_the_measured_areas():
    """The notes' simulation of the released helper: mean 14.8 %, median 10.9 % of the image."""
    keep = augmentations.cutout_released_keep(4000, (64, 64), torch_generator(0, "cutout"))
    area = 1 - keep.mean(dim=(1, 2, 3)).numpy()
    assert np.mean(area) == pytest.approx(0.148, abs=0.012)
    assert np.median(area) == pytest.approx(0.109, abs=0.012)


def test_cutout_hides_every_pixel_about_as_often():
    keep = augmentations.cutout_keep(4000, (32, 32), torch_generator(0, "cutout"))
    hidden = 1 - keep.mean(dim=0)[0]
    # A corner is reached by a quarter of the squares that can reach the middle.
    assert float(hidden.min()) > 0.2 * float(hidden.max())
    one = 1 - keep[0, 0]
    rows, columns = one.any(dim=1).sum(), one.any(dim=0).sum()
    assert int(one.sum()) == int(rows * columns)


def test_hide_and_seek_hides_half_in_cells():
    keep = augmentations.hide_and_seek_keep(500, (32, 32), torch_generator(0, "hide"))
    assert float(keep.mean()) == pytest.approx(0.5, abs=0.03)
    cells = keep.unfold(2, 8, 8).unfold(3, 8, 8).flatten(4).mean(dim=-1)
    assert set(cells.unique().tolist()) == {0.0, 1.0}


def test_trivial_augment_uses_our_stream_and_leaves_the_global_one():
    images, _ = batch()
    mean, std = PIXELS.mean, PIXELS.std
    state = torch.get_rng_state()
    first = augmentations.trivial_augment(images, mean, std, torch_generator(0, "ta"))
    assert torch.equal(torch.get_rng_state(), state)
    generator = torch_generator(0, "ta")
    assert torch.equal(first, augmentations.trivial_augment(images, mean, std, generator))
    again = augmentations.trivial_augment(images, mean, std, generator)
    assert not torch.equal(first, again)


@pytest.mark.parametrize(
    "method", ["cutout", "cutout_released", "gradcam", "hide_and_seek", "trivial_augment"]
)
def test_untrained_rivals_change_the_batch_and_keep_its_shape(method):
    images, _ = batch()
    arm = build_arm(
        APGAConfig(method=method), None, base=classifier(), policy=None, pixels=PIXELS, classes=2,
        generator=torch_generator(0, "arm"),
    )  # fmt: skip
    assert isinstance(arm, AugmentArm)
    augmented = arm.augment(images)
    assert augmented.shape == images.shape
    assert not torch.equal(augmented, images)


# --- maps -----------------------------------------------------------------------------------


def test_grad_cam_of_a_linear_head_is_its_weighted_map():
    """With global pooling α_k = w_ck / (h·w): CAM (Zhou et al. 2016), computed by hand."""
    net = classifier().eval()
    images, _ = batch()
    with torch.no_grad():
        maps = net.feature_map(images)
        top = net(images).argmax(dim=1)
        weights = net.head.weight[top] / (maps.shape[2] * maps.shape[3])
        expected = F.relu(torch.einsum("bk,bkhw->bhw", weights, maps))
    torch.testing.assert_close(saliency.grad_cam(net.train(), images)[:, 0], expected)


def test_grad_cam_agrees_with_the_grad_cam_package():
    oracle = pytest.importorskip("pytorch_grad_cam")
    net = classifier().eval()
    images, _ = batch()
    with oracle.GradCAM(model=net, target_layers=[net.trunk[-1]]) as cam:
        theirs = cam(input_tensor=images, targets=None)  # of the top class, 0 … 1 per image
    maps = saliency.grad_cam(net, images)
    ours = F.interpolate(maps, size=(32, 32), mode="bilinear", align_corners=False)[:, 0]
    ours = ours - ours.amin(dim=(1, 2), keepdim=True)
    ours = ours / ours.amax(dim=(1, 2), keepdim=True)
    assert float(ours.std(dim=(1, 2)).min()) > 0.05  # no flat map, which agrees with anything
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-4)


def test_a_flat_map_keeps_the_whole_image():
    flat = torch.full((1, 1, 4, 4), 3.0)
    peaked = torch.zeros(1, 1, 4, 4)
    peaked[0, 0, 1, 2] = 1.0
    keep = saliency.discretise(torch.cat([flat, peaked]), (4, 4))
    assert keep[0].sum() == 16
    assert keep[1].nonzero().tolist() == [[0, 1, 2]]


def test_occlusion_is_the_reward_of_one_cell():
    net = classifier().eval()
    images, labels = batch(3)
    black = torch.full((1, 1, 1, 1), -2.0)
    maps = saliency.occlusion(net, images, labels, black, 4)
    hidden = images.clone()
    hidden[:, :, 8:16, 24:32] = -2.0
    with torch.no_grad():
        loss = F.cross_entropy(net(hidden), labels, reduction="none")
        original = F.cross_entropy(net(images), labels, reduction="none")
    torch.testing.assert_close(maps[:, 0, 1, 3], loss - original)


def test_lesion_auroc_and_iou_by_hand():
    truth = np.zeros((2, 2, 2), dtype=bool)
    truth[0, 0, 0] = True
    scores = np.array([[[3.0, 1.0], [2.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])
    assert localisation.lesion_auroc(scores, truth) == pytest.approx(2 / 3)
    within = np.array([[[True, True], [True, False]]] * 2)
    assert localisation.lesion_auroc(scores, truth, within) == 1.0
    assert localisation.lesion_iou(scores, truth) == 0.0
    assert localisation.lesion_iou(scores, truth, within) == 1.0
    assert localisation.lesion_auroc(np.zeros((2, 2, 2)), truth) == 0.5
    assert localisation.lesion_iou(np.zeros((2, 2, 2)), truth) == pytest.approx(0.25 / 1.75)
    with pytest.raises(ValueError, match="no image has a lesion"):
        localisation.lesion_auroc(scores, np.zeros_like(truth))


def test_no_method_stands_for_another():
    """Every level is built, and one that nobody builds is no APGA in disguise."""
    assert set(POLICY_ARMS) == set(POLICY_METHODS)
    unknown = SimpleNamespace(method="unheard-of")
    with pytest.raises(KeyError, match="unheard-of"):
        build_arm(
            unknown, None, base=classifier(), policy=None, pixels=PIXELS, classes=2,
            generator=torch_generator(0, "arm"),
        )  # fmt: skip


# --- networks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "grid"), [("small-unet", 0), ("coarse-unet", 8)])
def test_an_images_mask_does_not_depend_on_its_batch(name, grid):
    images, _ = batch()
    net = policy(grid, name=name).train()
    side = grid or 32
    assert net(images).shape == (8, 1, side, side)
    torch.testing.assert_close(net(images)[:1], net(images[:1]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_decode_is_upsampling_concatenation_and_the_block_with_their_gradients(layout):
    generator = torch_generator(0, "decode")
    shapes = (2, 5, 6, 4), (2, 3, 12, 8), (4, 8, 3, 3)
    small, skip, weight = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes
    )
    convolution = torch.nn.Conv2d(8, 4, 3, padding=1, bias=False, dtype=torch.float64)
    convolution.weight.data.copy_(weight)
    block = torch.nn.Sequential(convolution, torch.nn.ReLU()).to(memory_format=layout)
    inputs = [x.contiguous(memory_format=layout).requires_grad_() for x in (small, skip)]
    large = F.interpolate(inputs[0], scale_factor=2, mode="nearest")
    plain = block(torch.cat([large, inputs[1]], dim=1))
    ours = decode(block, *inputs)
    torch.testing.assert_close(ours, plain)
    leaves = [*inputs, convolution.weight]
    for own, torchs in zip(
        torch.autograd.grad(ours.square().sum(), leaves),
        torch.autograd.grad(plain.square().sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(own, torchs)


def test_initial_bias_sets_where_p_starts():
    images, _ = batch()
    with torch.no_grad():
        p = torch.sigmoid(policy(bias=-2.0)(images))
    assert float(p.mean()) == pytest.approx(1 / (1 + math.e**2), abs=0.05)


def test_an_unknown_policy_is_refused():
    with pytest.raises(ConfigError, match=r'unknown policy_network "small-unt".*"small-unet"'):
        policy(name="small-unt")


@pytest.mark.slow
def test_the_papers_policy_gives_a_logit_per_pixel():
    net = policy(grid=0, name="unet-vgg11")
    assert net(torch.zeros(1, 1, 64, 64)).shape == (1, 1, 64, 64)
