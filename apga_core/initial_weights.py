"""What the networks start from, checked and said before anything runs."""

from functools import lru_cache

from apga_core.config import POLICY_METHODS, APGAConfig
from imaging_core.datasets.base import ImageDataset


def weights_notes(config: APGAConfig, data: ImageDataset) -> tuple[str, ...]:
    """A line for each network that does not start from random weights: what it takes from where.

    Raises:
        ConfigError: weights that are not there, or do not fit the network and the images.
    """
    lines = []
    if config.weights_path or config.weights != "none":
        of_classifier = (config.classifier, config.weights, config.weights_path)
        lines.append(_classifier_note(*of_classifier, data.channels, len(data.classes), data.size))
    if config.method in POLICY_METHODS and (
        config.policy_weights_path or config.policy_weights != "none"
    ):
        of_policy = (config.policy_network, config.policy_weights, config.policy_weights_path)
        lines.append(_policy_note(*of_policy, data.channels))
    return tuple(lines)


@lru_cache(maxsize=16)
def _classifier_note(
    name: str, weights: str, path: str, channels: int, classes: int, size: tuple[int, int]
) -> str:
    # Here and below: only whoever names weights waits for torch.
    from imaging_core.classifiers import classifier_shapes
    from imaging_core.pretrained import fitting_weights, weights_file

    shapes = classifier_shapes(name, channels=channels, classes=classes, size=size)
    _, loaded = fitting_weights(shapes, name, weights_file(name, weights, path))
    return f"classifier: {loaded}"


@lru_cache(maxsize=16)
def _policy_note(name: str, weights: str, path: str, channels: int) -> str:
    from apga_core.networks import policy_shapes
    from imaging_core.pretrained import fitting_weights, weights_file

    file = weights_file(name, weights, path)
    field = "policy_weights_path"
    return f"policy: {fitting_weights(policy_shapes(name, channels), name, file, field=field)[1]}"
