"""Pictures from the cells' small arrays: what was selected, where the masks lie, how far away."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from analysis.plots import PALETTE

Arrays = Mapping[str, np.ndarray]
KINDS = ("real", "generated", "selected", "discarded")
MOST = 8


def as_picture(image: np.ndarray) -> np.ndarray:
    """(C, H, W) or (H, W) of any range as (H, W) or (H, W, 3), ready for imshow."""
    image = np.asarray(image)
    if image.ndim == 3:
        image = image[0] if image.shape[0] == 1 else np.moveaxis(image[:3], 0, -1)
    return image if image.dtype == np.uint8 else image.astype(np.float32)


def _grey(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) in [0, 1]; a picture of its own range is stretched to it."""
    values = picture.astype(np.float32)
    if picture.dtype == np.uint8:
        values = values / 255
    else:
        low, high = float(values.min()), float(values.max())
        values = (values - low) / (high - low) if high > low else np.zeros_like(values)
    return values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)


def _panels(rows: list[tuple[str, list[np.ndarray]]]) -> Figure:
    """Labelled rows of small pictures, tiled into one image (an axes each would take seconds)."""
    tiles = [[_grey(as_picture(picture)) for picture in pictures] for _, pictures in rows]
    height, width = (max(t.shape[side] for line in tiles for t in line) for side in (0, 1))
    gap, most = max(1, height // 16), max(map(len, tiles))
    sheet = np.ones((len(tiles) * (height + gap), most * (width + gap), 3), dtype=np.float32)
    for r, line in enumerate(tiles):
        for c, tile in enumerate(line):
            top, left = r * (height + gap), c * (width + gap)
            sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    size = (1.9 + 0.75 * most, 0.75 * len(rows) * height / width + 0.4)
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    axes.imshow(sheet, interpolation="nearest")
    axes.set_yticks(
        [r * (height + gap) + height / 2 for r in range(len(rows))], [label for label, _ in rows]
    )
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def selection_gallery(arrays: Arrays) -> Figure | None:
    """Real, generated, selected and discarded images per class (Ye et al. 2020, Fig. 2 and 3).

    Args:
        arrays: `real_<class>`, `generated_<class>`, `selected_<class>`, `discarded_<class>`, each
            (n, C, H, W); `pool_cas_per_class` (classes,), where it was measured, is written beside
            the generated images.

    Returns:
        a row per class and kind; None where there are no such arrays.
    """
    classes = sorted(
        {int(name.rpartition("_")[2]) for name in arrays if name.startswith("real_")
         and name.rpartition("_")[2].isdigit()}
    )  # fmt: skip
    cas = arrays.get("pool_cas_per_class")
    rows = []
    for label in classes:
        for kind in KINDS:
            if f"{kind}_{label}" in arrays:
                name = f"class {label}: {kind}"
                if kind == "generated" and cas is not None:
                    name += f"\nCAS {cas[label]:.2f}"
                rows.append((name, list(arrays[f"{kind}_{label}"][:MOST])))
    return _panels(rows) if rows else None


def mask_gallery(arrays: Arrays) -> Figure | None:
    """Image, APGA's importance, Grad-CAM and, where it is known, the lesion (APGA, Fig. 2).

    Args:
        arrays: `gallery_images` (n, C, H, W), `gallery_importance`, `gallery_gradcam` and
            `gallery_lesion`, each (n, H, W).
    """
    if "gallery_images" not in arrays:
        return None
    labels = {
        "gallery_images": "image",
        "gallery_importance": "APGA p",
        "gallery_gradcam": "Grad-CAM",
        "gallery_lesion": "lesion",
    }
    rows = [(label, list(arrays[name][:MOST])) for name, label in labels.items() if name in arrays]
    return _panels(rows)


def distance_histogram(arrays: Arrays) -> Figure | None:
    """Centroid distances of the pool, of the closest half and of what was kept (Ye, Fig. 4).

    Args:
        arrays: `centroid_distance`, `keep_probability`, `pool_labels`, each (N,); `kept` (N,) bool,
            which older cells lack: p > 0.5.
    """
    if not {"centroid_distance", "keep_probability", "pool_labels"} <= set(arrays):
        return None
    distance = arrays["centroid_distance"]
    kept = arrays.get("kept", arrays["keep_probability"] > 0.5)
    labels = arrays["pool_labels"]
    classes = np.unique(labels)
    figure, axes = plt.subplots(
        1, len(classes), figsize=(3.2 * len(classes), 2.8), squeeze=False, sharey=True,
        layout="constrained",
    )  # fmt: skip
    for axis, label in zip(axes[0], classes, strict=True):
        mine = labels == label
        closest = mine & (distance <= np.median(distance[mine]))
        bins = np.linspace(distance[mine].min(), distance[mine].max(), 25)
        parts = {"pool": mine, "closest half (centroid distance)": closest, "kept": mine & kept}
        for number, (name, chosen) in enumerate(parts.items()):
            axis.hist(
                distance[chosen], bins=bins, histtype="step", color=PALETTE[number],
                linestyle=("-", "--", "-")[number], linewidth=(0.9, 1.2, 1.8)[number],
                label=f"{name} (n = {int(chosen.sum())})",
            )  # fmt: skip
        axis.set(title=f"class {label}", xlabel="cosine distance to class centroid")
        axis.legend(fontsize=7)
    axes[0, 0].set_ylabel("candidates")
    return figure


GALLERIES = {
    "selection": selection_gallery,
    "masks": mask_gallery,
    "centroid_distance": distance_histogram,
}
"""name → figure of one cell's arrays, or None where the cell has not got them."""
