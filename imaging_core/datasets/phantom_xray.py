"""`phantom-xray`: generated radiographs with a planted lesion whose brightness gives nothing away.

Each image is a bone in soft tissue. A patient of a positive class has a lesion inside the bone,
darker or brighter than the bone by chance; a decoy drawn from the same looks lies off the bone in
every class. To tell the classes apart a classifier must see a mark *and* that it is on bone. The
true lesion is known, so a mask can be scored. No torch here.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter

from imaging_core.datasets.base import ImageDataset, Split
from imaging_core.fields import ConfigError, did_you_mean

SIZE = 32  # pixels
SEED = 20190713  # of the one phantom that everybody gets
PARTS = {"train": 0.5, "validation": 0.2, "test": 0.3}  # shares of the patients
VIEWS = (2, 4)  # least and most views of a patient

# Lengths in pixels of a bounded view.
BONE_HALF_WIDTH = (8.5, 10.0)
BONE_SHIFT = 3.0
BONE_SPACING = 32.0  # between the two bones of a whole view
TILT = 0.6  # radians
MARK_RADIUS = (2.2, 3.2)
EDGE = 0.5  # softness of every outline

# Intensities, of 1.
TISSUE, TISSUE_NOISE = 0.32, 0.05
BONE, CORTEX, TRABECULAE = 0.22, 0.08, 0.035
CONTRAST = (0.16, 0.22)
NOISE = 0.02

LESION_ACROSS, LESION_ALONG = 5.0, 8.0  # pixels of a bounded view, from the middle of the bone
DECOY_SHARE = 0.9  # of the images of every class; a third of them find no room off the bone
DECOY_TRIES = 64
TAG_SHARE, TAG = 0.5, 0.9

# Semi-axes relative to the drawn radius (across, along the bone) and turn in radians.
BLOB = (1.0, 1.0, 0.0)
TRANSVERSE = (2.2, 0.45, 0.0)
OBLIQUE = (2.2, 0.45, 0.9)
DISK = (1.8, 1.8, 0.0)
ROD = (0.5, 2.4, 0.0)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One phantom: `looks` holds the lesion's shape per positive class; class 0 has none."""

    classes: tuple[str, ...]
    looks: tuple[tuple[float, float, float], ...]
    patients: int
    whole: bool = False  # two bones at half the scale, the lesion on one of them


_HIP = ("no lesion", "blob", "transverse line", "oblique line", "disk", "rod")
_HIP_LOOKS = (BLOB, TRANSVERSE, OBLIQUE, DISK, ROD)

VARIANTS = {
    "fracture": Variant(classes=("normal", "lesion"), looks=(BLOB,), patients=660),
    "hip-bounded": Variant(classes=_HIP, looks=_HIP_LOOKS, patients=660),
    "hip-whole": Variant(classes=_HIP, looks=_HIP_LOOKS, patients=660, whole=True),
}

CARD = ""


def load(path: str | None = None, *, protocol: str = "held-out") -> ImageDataset:
    """The phantom; `path` names a variant (`--data phantom-xray:hip-bounded`), None the first.

    Raises:
        ConfigError: an unknown variant, or a protocol other than held-out.
    """
    if protocol != "held-out":
        raise ConfigError(f'phantom-xray knows protocol "held-out" only, got "{protocol}"')
    name = path or "fracture"
    if name not in VARIANTS:
        raise ConfigError(
            f'phantom-xray has no variant "{name}"{did_you_mean(name, VARIANTS)} '
            f"(known: {', '.join(VARIANTS)})"
        )
    return _cached(name)[0]


def bone_masks(path: str | None = None) -> dict[str, np.ndarray]:
    """Part → (N, S, S) bool: where the bone is, in the row order of `load(path)`."""
    return _cached(path or "fracture")[1]


@lru_cache(maxsize=2)
def _cached(name: str) -> tuple[ImageDataset, dict[str, np.ndarray]]:
    return generate(VARIANTS[name], name=f"phantom-xray:{name}", seed=SEED)


def generate(
    variant: Variant, *, name: str, seed: int
) -> tuple[ImageDataset, dict[str, np.ndarray]]:
    """The dataset of a variant and its bone masks: patients are dealt to classes and parts."""
    rng = np.random.default_rng(seed)
    classes = len(variant.classes)
    labels = rng.permutation(np.arange(variant.patients) % classes)
    parts, bones = {}, {}
    for part, rows in _deal(labels, rng).items():
        views = rng.integers(VIEWS[0], VIEWS[1] + 1, size=len(rows))
        patient = np.repeat(np.arange(len(rows)), views)
        images, masks, bones[part] = _render(labels[rows], patient, variant, rng)
        number = np.concatenate([np.arange(v) for v in views])
        parts[part] = Split(
            images=images,
            labels=labels[rows][patient].astype(np.int64),
            groups=np.array([f"p{rows[p]:04d}" for p in patient]),
            ids=np.array([f"p{rows[p]:04d}-v{n}" for p, n in zip(patient, number, strict=True)]),
            masks=masks,
        )
    return ImageDataset(name=name, classes=variant.classes, **parts), bones


def _deal(labels: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Patients of each part, every class in the shares of `PARTS`."""
    dealt: dict[str, list[np.ndarray]] = {part: [] for part in PARTS}
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        cuts = np.rint(np.cumsum(list(PARTS.values()))[:-1] * len(rows)).astype(int)
        for part, chunk in zip(PARTS, np.split(rows, cuts), strict=True):
            dealt[part].append(chunk)
    return {part: rng.permutation(np.concatenate(chunks)) for part, chunks in dealt.items()}


def _uniform(rng: np.random.Generator, low: float, high: float, n: int) -> np.ndarray:
    """(n, 1, 1), ready to meet an image."""
    return rng.uniform(low, high, size=(n, 1, 1))


def _soft(distance: np.ndarray) -> np.ndarray:
    """0 … 1 across an outline: 0.5 where the signed distance to it (pixels) is 0."""
    return 1.0 / (1.0 + np.exp(-np.clip(distance / EDGE, -30, 30)))


def _mark(du: np.ndarray, dv: np.ndarray, radius: np.ndarray, look: np.ndarray) -> np.ndarray:
    """Signed distance (pixels, positive inside) to the outline of an ellipse.

    `du`, `dv` (n, S, S) are offsets from its centre across and along the bone, `radius` (n, 1, 1),
    `look` (n, 3) the relative semi-axes and the turn.
    """
    across, along, turn = (look[:, i].reshape(-1, 1, 1) for i in range(3))
    x = du * np.cos(turn) + dv * np.sin(turn)
    y = dv * np.cos(turn) - du * np.sin(turn)
    r = np.sqrt((x / (radius * across)) ** 2 + (y / (radius * along)) ** 2)
    return (1.0 - r) * radius * np.minimum(across, along)


@dataclass(frozen=True, kw_only=True)
class _Bones:
    """Where the bones of each image are; arrays (n, 1, 1), lengths in pixels of a bounded view."""

    tilt: np.ndarray
    shift: np.ndarray
    half_width: np.ndarray
    flare: np.ndarray
    phase: np.ndarray
    whole: bool

    def coordinates(
        self, x: np.ndarray, y: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of image points: across and along the nearest bone, and whether that is the first."""
        u = x * np.cos(self.tilt) + y * np.sin(self.tilt) - self.shift
        v = y * np.cos(self.tilt) - x * np.sin(self.tilt)
        if not self.whole:
            return u, v, np.ones_like(u, dtype=bool)
        return np.abs(u) - BONE_SPACING / 2, v, u > 0

    def depth(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Signed distance to the bone's outline, positive inside."""
        return self.half_width + self.flare * np.sin(0.15 * v + self.phase) - np.abs(u)


def _render(
    labels: np.ndarray, patient: np.ndarray, variant: Variant, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images (N, 1, S, S) uint8, lesion and bone masks (N, S, S) bool of some patients' views.

    What belongs to a patient (bone, lesion) is drawn once per patient; position, exposure, decoy,
    tag and noise once per view. Every draw but the lesion's presence and shape is independent of
    the class.
    """
    patients, n = len(labels), len(patient)
    scale = 2.0 if variant.whole else 1.0
    axis = scale * (np.arange(SIZE) - (SIZE - 1) / 2)
    x, y = axis[None, None, :], axis[None, :, None]
    bones = _Bones(
        tilt=_uniform(rng, -TILT, TILT, patients)[patient] + _uniform(rng, -0.15, 0.15, n),
        shift=_uniform(rng, -BONE_SHIFT, BONE_SHIFT, n),
        half_width=_uniform(rng, *BONE_HALF_WIDTH, patients)[patient],
        flare=_uniform(rng, 0.0, 0.8, patients)[patient],
        phase=_uniform(rng, 0.0, 2 * np.pi, patients)[patient],
        whole=variant.whole,
    )
    u, v, first = bones.coordinates(x, y)
    depth = bones.depth(u, v)
    bone = BONE + TRABECULAE * _texture(rng, n, 0.8)
    image = TISSUE + TISSUE_NOISE * _texture(rng, n, 4.0) + _soft(depth) * bone
    image += CORTEX * np.exp(-((depth / 1.2) ** 2))

    looks = np.array([BLOB, *variant.looks])
    lesion_u = _uniform(rng, -LESION_ACROSS, LESION_ACROSS, patients)[patient]
    lesion_v = _uniform(rng, -scale * LESION_ALONG, scale * LESION_ALONG, patients)[patient]
    radius, contrast = _size_and_contrast(rng, patients)
    distance = _mark(u - lesion_u, v - lesion_v, radius[patient], looks[labels[patient]])
    on_first = (rng.random(patients) < 0.5)[patient].reshape(-1, 1, 1) | (not variant.whole)
    here = (labels > 0)[patient].reshape(-1, 1, 1) & (first == on_first)
    image += np.where(here, contrast[patient] * _soft(distance), 0.0)

    image += _decoys(bones, x, y, scale, np.array(variant.looks), rng)
    image *= _uniform(rng, 0.92, 1.08, n)
    image += NOISE * rng.standard_normal(image.shape)
    _stamp_tags(image, rng)
    pixels = np.rint(255 * np.clip(image, 0.0, 1.0)).astype(np.uint8)
    return pixels[:, None], here & (distance > 0), depth > 0


def _texture(rng: np.random.Generator, n: int, sigma: float) -> np.ndarray:
    """(n, S, S) smooth noise of unit standard deviation, `sigma` in pixels."""
    noise = gaussian_filter(
        rng.standard_normal((n, SIZE, SIZE), dtype=np.float32), (0, sigma, sigma), mode="wrap"
    )
    return noise / noise.std()


def _size_and_contrast(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Radius in pixels and signed contrast of n marks, (n, 1, 1) each: lesions and decoys alike."""
    sign = rng.choice([-1.0, 1.0], size=(n, 1, 1))
    return _uniform(rng, *MARK_RADIUS, n), sign * _uniform(rng, *CONTRAST, n)


def _decoys(
    bones: _Bones,
    x: np.ndarray,
    y: np.ndarray,
    scale: float,
    looks: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """(n, S, S): a mark wholly off the bone, where there is room for it, or zeros.

    Elongated decoys lie along the bone, or none would fit beside it.
    """
    n = len(bones.tilt)
    radius, contrast = _size_and_contrast(rng, n)
    look = looks[rng.integers(len(looks), size=n)]
    look = np.column_stack([look[:, :2].min(axis=1), look[:, :2].max(axis=1), np.zeros(n)])
    border = scale * (SIZE / 2 - 2)
    at_x = rng.uniform(-border, border, size=(n, 1, DECOY_TRIES))
    at_y = rng.uniform(-border, border, size=(n, 1, DECOY_TRIES))
    u, v, _ = bones.coordinates(at_x, at_y)
    fits = bones.depth(u, v) < -(radius * look[:, 0].reshape(-1, 1, 1) + 0.8)
    chosen = fits.argmax(axis=2)[:, 0]
    rows = np.arange(n)
    at_x, at_y = (a[rows, 0, chosen].reshape(-1, 1, 1) for a in (at_x, at_y))
    cos, sin = np.cos(bones.tilt), np.sin(bones.tilt)
    du, dv = (x - at_x) * cos + (y - at_y) * sin, (y - at_y) * cos - (x - at_x) * sin
    shown = fits.any(axis=2)[:, 0] & (rng.random(n) < DECOY_SHARE)
    return shown.reshape(-1, 1, 1) * contrast * _soft(_mark(du, dv, radius, look))


def _stamp_tags(image: np.ndarray, rng: np.random.Generator) -> None:
    """A bright tag of 2 × 3 pixels in a random corner of some images, whatever their class."""
    n = len(image)
    shown = rng.random(n) < TAG_SHARE
    top = np.where(rng.random(n) < 0.5, 1, SIZE - 3)
    left = np.where(rng.random(n) < 0.5, 1, SIZE - 4)
    for row in np.flatnonzero(shown):
        image[row, top[row] : top[row] + 2, left[row] : left[row] + 3] = TAG
