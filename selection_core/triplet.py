"""The metric-learning rival: an embedding trained by the triplet loss on real training images."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from imaging_core.augment import AUGMENTATIONS
from imaging_core.checkpoint import (
    NO_CHECKPOINT,
    Checkpoint,
    host_copies,
    load_generators,
    load_optimiser,
    prefixed,
    state_of_generators,
    state_of_optimiser,
    tensors_of,
    under,
)
from imaging_core.classifiers import Classifier
from imaging_core.fitting import FitConfig, learning_rate_at
from imaging_core.standardised import Images
from imaging_core.stream import Stream, by_key
from imaging_core.task import Arrays, Progress, no_progress


def fit_embedding(
    model: Classifier,
    images: Images,  # (N, C, H, W), standardised training images
    labels: Tensor,  # (N,) int64
    *,
    config: FitConfig,
    stream: Stream,
    margin: float,
    generator: torch.Generator,
    progress: Progress = no_progress,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> int:
    """Train `model.features` in place; returns the optimiser steps made.

    A checkpoint may be taken before every step.

    mean of max(0, d(a, p) − d(a, n) + margin) over the triplets (anchor, same class, other class)
    of a batch that violate the margin, d the Euclidean distance of L2-normalised features. The
    schedule, batches and augmentation are the classifier's, so that it costs what one training
    costs; there is no early stopping, hence no look at validation.
    """
    # Imported here: it takes a second, and one arm needs it.
    from pytorch_metric_learning.losses import TripletMarginLoss

    triplet_loss = TripletMarginLoss(margin=margin)
    augment = AUGMENTATIONS[config.augment]
    keys, draws = by_key(stream.groups, generator)
    optimiser = torch.optim.AdamW(
        model.trunk.parameters(), config.learning_rate, weight_decay=config.weight_decay
    )
    step = 0

    def state() -> Arrays:
        found = {"step": np.array([step])}
        found |= prefixed("model", host_copies(model.state_dict()))
        found |= prefixed("optimiser", state_of_optimiser(optimiser))
        return found | prefixed("draws", state_of_generators(draws.own))

    with checkpoint.section("embedding", state) as left:
        if left is not None:
            step = int(left["step"][0])
            model.load_state_dict(tensors_of(under(left, "model")))
            load_optimiser(optimiser, under(left, "optimiser"))
            load_generators(draws.own, under(left, "draws"))
        seen = 0  # the batches come of keys of their own, so those that were made are passed over
        for part, batches in enumerate(stream.batches(config.batch_size, keys), start=1):
            model.train()
            for batch in batches:
                seen += 1
                if seen <= step:
                    continue
                checkpoint.tick()
                draws.rows = stream.members[batch]
                rows = batch.to(images.device)
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate_at(
                        step, stream.steps, config.schedule, config.learning_rate
                    )
                embedding = functional.normalize(model.features(augment(images[rows], draws)))
                loss = triplet_loss(embedding, labels[rows])
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                step += 1
            if seen >= step:
                progress(part / stream.parts, f"triplet epoch {part} of {stream.parts}")
    return step
