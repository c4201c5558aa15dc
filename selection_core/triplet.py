"""The metric-learning rival: an embedding trained by the triplet loss on real training images."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from imaging_core.augment import AUGMENTATIONS
from imaging_core.classifiers import Classifier
from imaging_core.fitting import FitConfig, learning_rate_at
from imaging_core.task import Progress, no_progress


def fit_embedding(
    model: Classifier,
    images: Tensor,  # (N, C, H, W), standardised training images
    labels: Tensor,  # (N,) int64
    *,
    config: FitConfig,
    margin: float,
    generator: torch.Generator,
    progress: Progress = no_progress,
) -> int:
    """Train `model.features` in place; returns the optimiser steps made.

    mean of max(0, d(a, p) − d(a, n) + margin) over the triplets (anchor, same class, other class)
    of a batch that violate the margin, d the Euclidean distance of L2-normalised features. The
    schedule, batches and augmentation are the classifier's, so that it costs what one training
    costs; there is no early stopping, hence no look at validation.
    """
    # Imported here: it takes a second, and one arm needs it.
    from pytorch_metric_learning.losses import TripletMarginLoss

    triplet_loss = TripletMarginLoss(margin=margin)
    augment = AUGMENTATIONS[config.augment]
    # Batch norm cannot normalise a last batch of one image: it is left out.
    per_epoch = max(1, (len(images) + config.batch_size - 2) // config.batch_size)
    epochs = max(config.epochs, math.ceil(config.min_steps / per_epoch))
    total, step = epochs * per_epoch, 0
    optimiser = torch.optim.AdamW(
        model.trunk.parameters(), config.learning_rate, weight_decay=config.weight_decay
    )
    for epoch in range(epochs):
        model.train()
        order = torch.randperm(len(images), generator=generator).to(images.device)
        for rows in order.split(config.batch_size)[:per_epoch]:
            for group in optimiser.param_groups:
                group["lr"] = learning_rate_at(step, total, config.schedule, config.learning_rate)
            embedding = functional.normalize(model.features(augment(images[rows], generator)))
            loss = triplet_loss(embedding, labels[rows])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            step += 1
        progress((epoch + 1) / epochs, f"triplet epoch {epoch + 1} of {epochs}")
    return step
