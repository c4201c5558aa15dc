"""What a step logs, per class, without waiting for the device."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from imaging_core.checkpoint import array_of, tensors_of, under
from imaging_core.task import Arrays


@dataclass(kw_only=True)
class Trace:
    """What is logged per class over one epoch; `mean()` reduces it.

    A step only notes its tensors, so that it computes and waits for nothing.
    """

    classes: int
    noted: dict[str, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)

    def add(self, name: str, values: Tensor, labels: Tensor) -> None:
        """`values` (…, B) of images with `labels` (B,); the same … at every step."""
        self.noted.setdefault(name, []).append((values.reshape(-1, len(labels)), labels))

    def state(self) -> Arrays:
        """What is noted, as arrays."""
        return {
            f"{kind}/{name}": array_of(torch.cat([pair[place] for pair in noted], dim=-1))
            for name, noted in self.noted.items()
            for place, kind in enumerate(("values", "labels"))
        }

    def load(self, state: Arrays, device: torch.device) -> None:
        """Put back what `state` said."""
        values, labels = (tensors_of(under(state, kind)) for kind in ("values", "labels"))
        self.noted = {
            name: [(found.to(device), labels[name].to(device))] for name, found in values.items()
        }

    def mean(self) -> dict[str, float]:
        """Name → mean since the last call; a class that was not seen has no entry."""
        means = {}
        for name, noted in self.noted.items():
            values = torch.cat([values for values, _ in noted], dim=1).double().mean(dim=0)
            labels = torch.cat([labels for _, labels in noted]).unsqueeze(1)
            of_class = labels == torch.arange(self.classes, device=labels.device)
            # A product, not a scatter: on a GPU scattered sums come in no fixed order.
            sums = torch.stack([values, torch.ones_like(values)]) @ of_class.double()
            for label, (total, count) in enumerate(sums.T.tolist()):
                if count:
                    means[f"{name}/class{label}"] = total / count
        self.noted.clear()
        return means
