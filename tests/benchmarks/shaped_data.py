"""Data of the shape of MURA and of PatchCamelyon, made here: nobody's pictures, everybody's sizes.

python tests/benchmarks/shaped_data.py mura FOLDER --images 10412 --part XR_WRIST
python tests/benchmarks/shaped_data.py pcam FOLDER --images 327680
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

SIDES = (400, 512)  # of a radiograph, height first
VALID_SHARE = 0.066  # of a body part's images, as in MURA's XR_WRIST
PER_STUDY, STUDIES_PER_PATIENT = 3, 1
PCAM_SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}
PCAM_SIDE = 96
SLIDES = 40  # of each part
BASES = 24  # distinct backgrounds; every image is one of them, moved, with noise of its own


def mura_tree(folder: Path, images: int, *, part: str = "XR_WRIST", seed: int = 0) -> Path:
    """A MURA-v1.1 tree of `images` 8-bit PNGs of 512 × 400, all of one body part.

    Args:
        folder: the tree is made in `folder/MURA-v1.1`.

    Returns:
        The folder MURA-v1.1.
    """
    root = folder / "MURA-v1.1"
    rng = np.random.default_rng(seed)
    bases = [_radiograph(rng) for _ in range(BASES)]
    valid = max(round(images * VALID_SHARE), 2 * PER_STUDY)
    patient = 0
    for split, count in (("train", images - valid), ("valid", valid)):
        names, labels = [], {}
        for index in range(count):
            study, place = divmod(index, PER_STUDY)
            if not place:
                patient += 1
                word = "positive" if study % 2 else "negative"
                where = f"MURA-v1.1/{split}/{part}/patient{patient:05d}/study1_{word}/"
                labels[where] = study % 2
                (folder / where).mkdir(parents=True, exist_ok=True)
            names.append(f"{where}image{place + 1}.png")
            base = np.roll(bases[index % BASES], rng.integers(-40, 40, 2), axis=(0, 1))
            noise = rng.integers(0, 5, SIDES, dtype=np.uint8)
            Image.fromarray(base + noise).save(folder / names[-1], compress_level=1)
        (root / f"{split}_image_paths.csv").write_text("\n".join(names) + "\n")
        rows = (f"{study},{label}" for study, label in labels.items())
        (root / f"{split}_labeled_studies.csv").write_text("\n".join(rows) + "\n")
    return root


def _radiograph(rng: np.random.Generator) -> np.ndarray:
    """(H, W) uint8 of at most 240: broad light shapes on black, as a plain film has."""
    height, width = SIDES
    y, x = np.mgrid[:height, :width]
    light = np.zeros(SIDES)
    for _ in range(6):
        centre, reach = rng.uniform(0.2, 0.8, 2), rng.uniform(30, 140)
        away = (y - centre[0] * height) ** 2 + (x - centre[1] * width) ** 2
        light += rng.uniform(30, 90) * np.exp(-away / reach**2)
    return light.clip(0, 240).astype(np.uint8)


def pcam_files(folder: Path, images: int, *, seed: int = 0) -> Path:
    """PatchCamelyon's nine files with `images` patches in all, 8 : 1 : 1, half of each with tumour.

    Returns:
        `folder`.
    """
    import h5py  # an extra

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for word, share in PCAM_SHARES.items():
        count, stem = round(images * share), f"camelyonpatch_level_2_split_{word}"
        shape = (count, PCAM_SIDE, PCAM_SIDE, 3)
        with h5py.File(folder / f"{stem}_x.h5", "w") as file:
            x = file.create_dataset(
                "x", shape, dtype="u1", chunks=(32, *shape[1:]), compression="gzip",
                compression_opts=1,
            )  # fmt: skip
            for start in range(0, count, 512):
                rows = min(512, count - start)
                coarse = rng.integers(60, 230, (rows, 12, 12, 3), dtype=np.uint8)
                fine = coarse.repeat(8, axis=1).repeat(8, axis=2)
                x[start : start + rows] = fine + rng.integers(0, 9, fine.shape, dtype=np.uint8)
        with h5py.File(folder / f"{stem}_y.h5", "w") as file:
            file["y"] = (np.arange(count) % 2).astype(np.uint8).reshape(-1, 1, 1, 1)
        lines = [f"0,0,{i % 2},{word}_slide_{i % SLIDES:03d}" for i in range(count)]
        (folder / f"{stem}_meta.csv").write_text(
            "\n".join(["coord_y,coord_x,tumor_patch,wsi", *lines]) + "\n"
        )
    return folder


def main() -> None:
    """Make what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("mura", "pcam"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--part", default="XR_WRIST")
    options = parser.parse_args()
    if options.kind == "mura":
        print(mura_tree(options.folder, options.images, part=options.part))
    else:
        print(pcam_files(options.folder, options.images))


if __name__ == "__main__":
    main()
