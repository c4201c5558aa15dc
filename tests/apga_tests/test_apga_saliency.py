"""Grad-CAM, occlusion and how well a map finds a lesion, by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_arms import batch, classifier

from apga_core import localisation, saliency


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
