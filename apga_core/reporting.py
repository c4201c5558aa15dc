"""What a cell says of its policy beside accuracy: where p lies, what erasing earns, two views."""

import numpy as np
import torch
from torch import Tensor

from apga_core.arms import Pixels, PolicyArm
from apga_core.config import APGAConfig
from apga_core.learner import Learner
from apga_core.localisation import over_pixels, patches_like, reward_of_erasing
from apga_core.networks import Policy
from apga_core.saliency import grad_cam
from imaging_core.classifiers import Classifier
from imaging_core.datasets.base import Split
from imaging_core.fitting import evaluation_batch
from imaging_core.seeding import torch_generator
from imaging_core.standardised import Images

GALLERY = 8  # images kept for the mask gallery


def pretraining_rewards(
    config: APGAConfig,
    learner: Learner,
    pixels: Pixels,
    images: Images,
    labels: Tensor,
    masks: np.ndarray,
    seed: int,
) -> dict[str, float]:
    """Rewards of the converged classifier for erasing the lesion, and a patch like it elsewhere.

    A fill that itself looks like a lesion gives the random patch a reward on negative images: then
    the reward does not measure what the pixel was worth.
    """
    truth = torch.from_numpy(masks).to(images.device)
    with_lesion = truth.any(dim=(1, 2))
    if not bool(with_lesion.any()):
        return {}
    generator = torch_generator(seed, "apga/patches")
    patches = patches_like(truth[with_lesion], len(images), generator)

    def rewards_of(erased: Tensor) -> Tensor:
        at_once = evaluation_batch(images)
        parts = zip(*(x.split(at_once) for x in (images, labels, erased)), strict=True)
        return torch.cat(
            [
                reward_of_erasing(learner.losses, x, y, e, pixels.fill(config, x))
                for x, y, e in parts
            ]
        )

    at_lesion, at_patch = rewards_of(truth.unsqueeze(1).float()), rewards_of(patches)
    rewards = {
        "reward_of_lesion": at_lesion[with_lesion],
        "reward_of_patch_positive": at_patch[with_lesion],
        "reward_of_patch_negative": at_patch[labels == 0],
    }
    return {name: float(value.mean()) for name, value in rewards.items() if len(value)}


def two_view_accuracy(
    arm: PolicyArm, validation: tuple[Images, Tensor], test: tuple[Images, Tensor]
) -> float:
    """Test accuracy of the two-view mean, if it beats the plain view on validation, else plain.

    Sec. 4 suggests it ("an inference augmentation technique"); the released script reports it as
    the method's accuracy, against one view for the baselines. The aided view is the classifier's
    second one in training, and is shown to it as that.
    """

    def accuracies(images: Images, labels: Tensor) -> tuple[float, float]:
        plain = arm.learner.predict(images)
        chunks = images.split(evaluation_batch(images))
        aided = torch.cat([arm.learner.predict(arm.aid_views(x), second_view=True) for x in chunks])
        right = [p.argmax(dim=1) == labels.cpu() for p in (plain, (plain + aided) / 2)]
        return tuple(int(of_view.sum()) / len(labels) for of_view in right)

    plain, both = accuracies(*validation)
    return accuracies(*test)[1 if both > plain else 0]


def gallery(policy: Policy, base: Classifier, part: Split, images: Images) -> dict[str, np.ndarray]:
    """The paper's Fig. 2 for the first images of the last class, and their lesion if known."""
    rows = np.flatnonzero(part.labels == part.labels.max())[:GALLERY]
    shown = images[torch.from_numpy(rows).to(images.device)]
    size = part.images.shape[-2:]
    with torch.no_grad():
        importance = torch.sigmoid(policy(shown))
    cam = grad_cam(base, shown)
    cam = cam / cam.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
    arrays = {
        "gallery_images": part.images[rows],
        "gallery_importance": over_pixels(importance, size).astype(np.float16),
        "gallery_gradcam": over_pixels(cam, size).astype(np.float16),
        "gallery_ids": part.ids[rows],
    }
    if part.masks is not None:
        arrays["gallery_lesion"] = part.masks[rows]
    return arrays
