"""APGA's masks for a whole batch against one image at a time, as the released script makes them."""

import torch
from timing import Figure, paired

from apga_core.masking import adversarial_keep, aid_keep, erase, fill_images
from apga_core.networks import build_policy
from imaging_core.seeding import torch_generator

BATCH, SIDE = 25, 64


def figures() -> list[Figure]:
    """Policy forward and both masked batches, 25 images of 64 × 64."""
    torch.set_num_threads(1)
    policy = build_policy(
        "small-unet",
        channels=1,
        grid=0,
        initial_bias=0.0,
        weights_path="",
        generator=torch_generator(0, "policy"),
    ).eval()
    images = torch.randn(BATCH, 1, SIDE, SIDE, generator=torch_generator(0, "images"))
    black = torch.zeros(1)

    @torch.no_grad()
    def batched() -> torch.Tensor:
        logits = policy(images)
        fill = fill_images(images, "zero", black=black, blur_sigma=1.0)
        adversarial = erase(images, adversarial_keep(logits), fill)
        return torch.cat([adversarial, erase(images, aid_keep(logits), fill)])

    @torch.no_grad()
    def one_by_one() -> torch.Tensor:
        adversarial, aid = [], []
        for image in images:
            for kept, above in ((adversarial, True), (aid, False)):  # a policy pass for each mask
                p = torch.sigmoid(policy(image.unsqueeze(0)))[0].cpu().numpy()
                picture = image.cpu().numpy().copy()
                erased = p > 0.5 if above else p < 0.5
                picture[erased] = 0
                kept.append(torch.from_numpy(picture))
        return torch.stack(adversarial + aid)

    assert torch.allclose(batched(), one_by_one(), atol=1e-5)
    what = "APGA's policy pass and both masks (25 images, 64 px) against one image at a time"
    return [paired(what, batched, one_by_one, limit="≥ 3")]
