"""What a dataset is: three disjoint parts of 8-bit images with labels and patients."""

import hashlib
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np

SAID_ALREADY = ("studies", "hashes", "anatomy")
"""No part of the fingerprint: ids say studies, pixels their hashes; anatomy is drawn with them."""
COUNT_AT_ONCE = 256  # images; bincount widens its input to 8 bytes a pixel


class DataError(ValueError):
    """The data breaks a rule; the message names the rule and every offender found."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """One part of a dataset; every array has the same length N."""

    images: np.ndarray  # (N, C, H, W) uint8
    labels: np.ndarray  # (N,) int64, 0 .. classes − 1
    groups: np.ndarray  # (N,) str: patient, slide or block; never in two parts
    ids: np.ndarray  # (N,) str, unique
    masks: np.ndarray | None = None  # (N, H, W) bool: the true lesion, where it is known
    studies: np.ndarray | None = None  # (N,) str: images that are diagnosed together, if any are
    hashes: np.ndarray | None = None  # (N, 32) uint8, SHA-256 of each image, where it is known
    anatomy: np.ndarray | None = None  # (N, H, W) bool: where a lesion can lie, where it is known

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: np.ndarray) -> "Split":
        """The rows at `index` (integers or booleans), in that order.

        Rows that follow one another are a view: nothing is copied.
        """
        index = _as_slice(np.asarray(index))
        return replace(
            self,
            **{
                f.name: value[index]
                for f in fields(self)
                if (value := getattr(self, f.name)) is not None
            },
        )

    @cached_property
    def class_sizes(self) -> dict[int, int]:
        """Label → how many images have it; labels that occur, in order."""
        labels, sizes = np.unique(self.labels, return_counts=True)
        return dict(zip(labels.tolist(), sizes.tolist(), strict=True))

    @cached_property
    def mean_std(self) -> tuple[np.ndarray, np.ndarray]:
        """Per-channel mean and standard deviation, (C,) each, of images scaled to [0, 1]."""
        # From grey-level counts: exact, and it needs no float copy of all the pixels.
        values = np.arange(256) / 255.0
        counts = np.zeros((self.images.shape[1], 256), dtype=np.int64)
        for start in range(0, len(self), COUNT_AT_ONCE):
            for channel, count in enumerate(counts):
                pixels = self.images[start : start + COUNT_AT_ONCE, channel]
                count += np.bincount(pixels.ravel(), minlength=256)
        share = counts / counts.sum(axis=1, keepdims=True)
        mean = share @ values
        variance = (share * (values - mean[:, None]) ** 2).sum(axis=1)
        return mean, np.maximum(np.sqrt(variance), 1e-6)


def _as_slice(index: np.ndarray) -> np.ndarray | slice:
    """The same rows as a slice where they follow one another, else `index`."""
    rows = np.flatnonzero(index) if index.dtype == bool else index
    if len(rows) and rows[0] >= 0 and (np.diff(rows) == 1).all():
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return index


def image_hashes(part: Split) -> np.ndarray:
    """(N, 32) uint8: SHA-256 of the pixels of each image."""
    return hashes_of(part.images) if part.hashes is None else part.hashes


def hashes_of(images: np.ndarray) -> np.ndarray:
    """(N, 32) uint8: SHA-256 of the pixels of each of `images` (N, C, H, W)."""
    digests = [hashlib.sha256(np.ascontiguousarray(x).data).digest() for x in images]
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(len(digests), 32)


def _by(part: Split) -> str:
    return " × ".join(map(str, part.images.shape[1:]))


@dataclass(frozen=True, kw_only=True)
class ImageDataset:
    """A named dataset with train, validation and test disjoint by group and by image."""

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    protocol: str = "held-out"  # "held-out" | "paper"
    notes: tuple[str, ...] = ()  # what the user should know of it; no part of the fingerprint

    @property
    def channels(self) -> int:
        return self.train.images.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.train.images.shape[2], self.train.images.shape[3]

    @cached_property
    def class_sizes(self) -> dict[str, int]:
        """Class → its images in all parts; one that two parts share (`paper` protocol) once."""
        parts = (self.train, self.validation, self.test)
        labels = np.concatenate([part.labels for part in parts])
        if self.protocol == "paper":
            _, first = np.unique(np.concatenate([part.ids for part in parts]), return_index=True)
            labels = labels[first]
        sizes = np.bincount(labels, minlength=len(self.classes)).tolist()
        return dict(zip(self.classes, sizes, strict=True))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over names, pixels, labels, groups, ids and masks of the three parts."""
        digest = hashlib.sha256(repr((self.name, self.classes, self.protocol)).encode())
        for part in (self.train, self.validation, self.test):
            for f in fields(part):
                value = getattr(part, f.name)
                if value is None or f.name in SAID_ALREADY:
                    continue
                digest.update(f"{f.name}{value.shape}".encode())
                if value.dtype.kind in "UO":
                    digest.update("\0".join(map(str, value)).encode())
                else:
                    digest.update(np.ascontiguousarray(value).data)
        return digest.hexdigest()

    def _may_share(self, owner: str, name: str) -> bool:
        """Whether two parts may hold the same patient: the paper reports where it selects."""
        return owner == name or (self.protocol == "paper" and "train" not in (owner, name))

    def check(self) -> "ImageDataset":
        """This dataset, unless it breaks a rule.

        Raises:
            DataError: a patient or an identical image in two parts, a label outside the classes,
                a class absent from a part, arrays of different lengths, images of different sizes,
                duplicate ids, the same pixels with two labels. Under the
            `paper` protocol validation and test may be the same patients and images.
        """
        problems: list[str] = []
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        owner_of_group: dict[str, str] = {}
        owner_of_image: dict[bytes, str] = {}
        first_of_image: dict[bytes, tuple[int, str]] = {}
        for name, part in parts.items():
            n = len(part.labels)
            for f in fields(part):
                value = getattr(part, f.name)
                if value is not None and len(value) != n:
                    problems.append(f"{name}: {len(value)} {f.name} for {n} labels")
            if part.images.shape[1:] != self.train.images.shape[1:]:
                problems.append(
                    f"{name}: images of {_by(part)} (channels × height × width), train has "
                    f"{_by(self.train)}"
                )
            bad = np.unique(part.labels[(part.labels < 0) | (part.labels >= len(self.classes))])
            if len(bad):
                problems.append(f"{name}: labels {bad.tolist()} outside 0..{len(self.classes) - 1}")
            absent = sorted(set(range(len(self.classes))) - set(part.labels.tolist()))
            if absent:
                problems.append(f"{name}: no image of class {[self.classes[c] for c in absent]}")
            if len(np.unique(part.ids)) != n:
                problems.append(f"{name}: duplicate ids")
            for group in np.unique(part.groups).tolist():
                owner = owner_of_group.setdefault(group, name)
                if not self._may_share(owner, name):
                    problems.append(f'group "{group}" is in {owner} and {name}')
            keys = (row.tobytes() for row in image_hashes(part))
            rows = zip(keys, part.ids, part.labels.tolist(), strict=False)
            for key, identity, label in rows:
                owner = owner_of_image.setdefault(key, name)
                if not self._may_share(owner, name):
                    problems.append(f"image {identity} of {name} is also in {owner}")
                other, where = first_of_image.setdefault(key, (label, identity))
                if other != label:
                    problems.append(
                        f"image {identity} of {name} must have one label, the same pixels have "
                        f"another as {where}"
                    )
        if problems:
            shown = "\n  ".join(problems[:50])
            more = f"\n  and {len(problems) - 50} more" if len(problems) > 50 else ""
            raise DataError(f"{self.name} breaks {len(problems)} rules:\n  {shown}{more}")
        return self
