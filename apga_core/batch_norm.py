"""The classifier's batch norm, and what the second view of a batch does to it.

A second view (a masked copy) has other statistics than the original images that the classifier is
scored on. In training mode a batch is normalised by its own, so a step on it is sound; but its mean
and variance also move the running ones, which every score and every reward reads. The levels of
`second_view_statistics`, in the order of `STATISTICS`:

- `shared`: both views move them (the paper says nothing, the released script does this);
- `frozen`: the second view is normalised by its own statistics and leaves the running ones alone;
- `separate`: the second view has batch-norm layers of its own, weights included (Xie et al.,
  "Adversarial Examples Improve Image Recognition", CVPR 2020);
- `re-estimated`: both move them, and before every score on validation they are taken anew, from
  original training images. The rewards of the steps between still read mixed ones.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from imaging_core.fitting import batches_of
from imaging_core.standardised import Images


class SharedStatistics:
    """Both views move the running statistics.

    Attributes:
        layers: what the second view has for itself, in the order of the classifier's own.
    """

    def __init__(self, classifier: nn.Module) -> None:
        self.layers = nn.ModuleList()
        self.places = [
            (parent, name)
            for parent in classifier.modules()
            for name, child in parent.named_children()
            if isinstance(child, nn.BatchNorm2d)
        ]

    @property
    def norms(self) -> list[nn.BatchNorm2d]:
        """The classifier's batch-norm layers."""
        return [getattr(parent, name) for parent, name in self.places]

    @contextmanager
    def second_view(self) -> Iterator[None]:
        """Inside, the classifier is as the second view sees it."""
        yield

    def before_scoring(
        self,
        forward: Callable[[Tensor], Tensor],
        images: Images,
        batch_size: int,
        generator: torch.Generator,
    ) -> None:
        """Make the running statistics those that a score should read.

        Args:
            forward: the classifier; what it gives is ignored.
            images: (N, C, H, W), the original training images.
            batch_size, generator: how they are put into batches.
        """


class FrozenStatistics(SharedStatistics):
    """The second view leaves the running statistics alone."""

    @contextmanager
    def second_view(self) -> Iterator[None]:
        """Inside, a batch is normalised by its own statistics, and these are not kept."""
        norms = self.norms
        for norm in norms:
            norm.track_running_stats = False
        try:
            yield
        finally:
            for norm in norms:
                norm.track_running_stats = True


class SeparateStatistics(SharedStatistics):
    """The second view has batch-norm layers of its own, at first equal to the classifier's."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__(classifier)
        self.layers.extend(copy.deepcopy(norm) for norm in self.norms)

    @contextmanager
    def second_view(self) -> Iterator[None]:
        """Inside, these take the place of the classifier's."""
        norms = self.norms
        self._put(self.layers)
        try:
            yield
        finally:
            self._put(norms)

    def _put(self, norms: list[nn.BatchNorm2d] | nn.ModuleList) -> None:
        for (parent, name), norm in zip(self.places, norms, strict=True):
            setattr(parent, name, norm)


class ReestimatedStatistics(SharedStatistics):
    """Before a score, the statistics of the weights as they are, over original training images."""

    @torch.no_grad()
    def before_scoring(
        self,
        forward: Callable[[Tensor], Tensor],
        images: Images,
        batch_size: int,
        generator: torch.Generator,
    ) -> None:
        """Each layer's mean and variance, averaged over the batches of one pass."""
        norms = self.norms
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean of all batches so far
            norm.train()
        order = torch.randperm(len(images), generator=generator).to(images.device)
        for batch in batches_of(len(images), batch_size):
            forward(images[order[batch]])
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


STATISTICS: dict[str, type[SharedStatistics]] = {
    "shared": SharedStatistics,
    "frozen": FrozenStatistics,
    "separate": SeparateStatistics,
    "re-estimated": ReestimatedStatistics,
}
