"""The handcrafted selectors of Tables 1 and 2 and our controls: numbers in, a keep mask out.

Shapes: N candidates with claimed labels (N,) int64. Every function returns (N,) bool over the pool
in its own order, and chooses within each class apart, so that no selection changes the balance of
the classes that its counts name. None of them sees a validation or test image, except the two
that are given a `reward`.
"""

from collections.abc import Callable

import numpy as np


def counts_of_share(labels: np.ndarray, classes: int, share: float) -> np.ndarray:
    """(classes,) int: round(share · candidates) of each class; the paper's ratio is 0.5."""
    return np.array([round(share * int((labels == c).sum())) for c in range(classes)])


def counts_of_real(real_labels: np.ndarray, classes: int, share: float) -> np.ndarray:
    """(classes,) int: round(share · real images) of each class, the ratio's other sense."""
    return np.array([round(share * int((real_labels == c).sum())) for c in range(classes)])


def counts_of_mask(keep: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """(classes,) int: how many of each class a selection kept, for the k-matched controls."""
    return np.bincount(labels[keep], minlength=classes)


def lowest(score: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The `counts[c]` candidates of each class c with the lowest score (N,), ties by position.

    Raises:
        ValueError: more are asked for than a class has.
    """
    keep = np.zeros(len(labels), dtype=bool)
    for label, count in enumerate(counts):
        rows = np.flatnonzero(labels == label)
        if count > len(rows):
            raise ValueError(
                f"a selection must ask for at most the {len(rows)} candidates of class {label}, "
                f"got {count}"
            )
        keep[rows[np.argsort(score[rows], kind="stable")[:count]]] = True
    return keep


def random_subset(labels: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`counts[c]` candidates of each class c, all subsets equally likely ("GAN augmentation")."""
    return lowest(rng.random(len(labels)), labels, counts)


def agreement(probability: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The candidates whose claimed label the k-shot classifier supports most.

    Args:
        probability: (N, classes) of the classifier that was trained on the real images.
    """
    return lowest(-probability[np.arange(len(labels)), labels], labels, counts)


def confident_then_closest(
    probability: np.ndarray,  # (N, classes) of the classifier trained on the real images
    distance: np.ndarray,  # (N,) to the centroid of the claimed class
    labels: np.ndarray,
    counts: np.ndarray,
) -> np.ndarray:
    """The two-step filter of HistoGAN: confident candidates only, then the closest of these.

    A candidate is confident where its claimed class is the most probable one; a class with fewer
    confident candidates than `counts` gives all of them and no more.
    """
    confident = probability.argmax(1) == labels
    there = counts_of_mask(confident, labels, len(counts))
    return lowest(np.where(confident, distance, np.inf), labels, np.minimum(counts, there))


def random_search(
    reward: Callable[[np.ndarray], float], candidates: int, draws: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[float]]:
    """The best rewarded of `draws` selections that keep each candidate with probability 1/2.

    The same distribution that a controller starts from, at the same number of rewards, but nothing
    is learned from one draw for the next. Returns the mask (the first of equals) and all rewards.
    """
    best, rewards = np.zeros(candidates, dtype=bool), []
    for _ in range(draws):
        keep = rng.random(candidates) < 0.5
        rewards.append(reward(keep))
        if rewards[-1] == max(rewards) and rewards.count(rewards[-1]) == 1:
            best = keep
    return best, rewards
