"""FID and KID against closed forms, CAS, and a pool that the user brings as a folder."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm
from selection_cells import TINY, make_data, run_cell
from torchmetrics.image.kid import poly_mmd

from analysis.chosen import lines, manifest
from imaging_core.datasets.images import read_images
from imaging_core.fields import ConfigError, build
from selection_core.config import SelectionConfig
from selection_core.quality import frechet_distance, kernel_distance, recall_per_class
from selection_core.task import TASK
from sweeps.engine.study import Request, Study, apply, expand


def test_frechet_distance_is_scipys():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(60, 5)).astype(np.float32)
    fake = (rng.normal(size=(40, 5)) @ rng.normal(size=(5, 5)) + 0.5).astype(np.float32)
    a, b = (np.cov(x.astype(np.float64), rowvar=False) for x in (real, fake))
    gap = real.mean(0, dtype=np.float64) - fake.mean(0, dtype=np.float64)
    expected = gap @ gap + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="at least 2 images a set, got 1 and 40"):
        frechet_distance(real[:1], fake)


def test_kernel_distance_is_the_double_sum_and_torchmetrics():
    rng = np.random.default_rng(1)
    real, fake = rng.normal(size=(7, 3)), rng.normal(size=(5, 3)) + 1

    def kernel(a, b):
        return (a @ b / 3 + 1) ** 3

    def mean(xs, ys, *, same):
        terms = [
            kernel(x, y)
            for i, x in enumerate(xs)
            for j, y in enumerate(ys)
            if not (same and i == j)
        ]
        return np.mean(terms)

    expected = (
        mean(real, real, same=True) + mean(fake, fake, same=True) - 2 * mean(real, fake, same=False)
    )
    assert kernel_distance(real, fake) == pytest.approx(expected)
    rows = [torch.from_numpy(x) for x in (real[:5], fake)]  # torchmetrics: sets of one size only
    assert kernel_distance(real[:5], fake) == pytest.approx(float(poly_mmd(*rows)))


def test_recall_per_class():
    probability = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.6, 0.4]])
    assert recall_per_class(np.array([0, 0, 1, 0]), probability).tolist() == [2 / 3, 1.0]


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name, level in (("dark", 40), ("bright", 180)):
        (tmp_path / name).mkdir()
        for index in range(10):
            pixels = rng.integers(level, level + 60, (20, 20)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    return tmp_path


def test_a_folder_of_images_is_a_pool(folder):
    data = make_data().check()
    stages, outcome = run_cell(data, method="use_all", pool=str(folder), pool_quality="on")
    assert "generator" not in stages
    pool = stages["pool"]
    assert pool["images"].shape == (16, 1, 16, 16)
    means = pool["images"].mean((1, 2, 3))
    assert means[pool["labels"] == 0].max() < 110 < means[pool["labels"] == 1].min()
    assert outcome.metrics["selected"] == 16
    assert outcome.metrics["pool_fid"] > 0
    assert outcome.artifacts["pool_cas_per_class"].shape == (2,)
    assert outcome.metrics["pool_cas"] == outcome.artifacts["pool_cas_per_class"].mean()


def test_results_belong_to_the_images_and_not_to_the_place(folder, monkeypatch):
    fields = {**TINY, "pool": str(folder)}
    first = build(SelectionConfig, fields)
    path, _, stamp = first.pool.partition("#")
    assert path == str(folder)
    assert len(stamp) == 16
    assert build(SelectionConfig, {**fields, "pool": first.pool}) == first
    monkeypatch.chdir(folder.parent)
    assert build(SelectionConfig, {**fields, "pool": folder.name}) == first
    other = f"{folder}#0123456789abcdef"
    with pytest.raises(ConfigError, match=r"pool: must hold the images it held .*0123456789"):
        build(SelectionConfig, {**fields, "pool": other})


def test_a_pool_is_a_level_of_a_study(folder):
    """`--set pool=natural,PATH`: two pools compared, one of them the user's."""
    study = Study(
        name="pools",
        question="?",
        core="selection_core",
        factors={"method": ("use_all",)},
        baseline={"method": "use_all"},
        data="ihc-colon",
        tables=(),
    )
    applied, shared = apply(study, Request(settings=(f"pool=natural,{folder}",)))
    natural, own = expand(applied, shared, "ihc-colon")
    assert natural.config.pool == "natural"
    assert own.config.pool == own.levels["pool"]
    assert own.config.pool.startswith(f"{folder}#")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("mixd", r'must be one of natural, mixed, real, .*or the path .* did you mean "mixed"'),
        ("./none", r'must be a folder, "/.*/none" is none'),
        ("folder", "must be one of natural, .* or the path of a folder that holds a folder of"),
    ],
)
def test_a_pool_that_is_neither_a_kind_nor_a_folder_is_refused(value, message):
    with pytest.raises(ConfigError, match=f"pool: {message}"):
        build(SelectionConfig, {**TINY, "pool": value})


def test_a_folder_that_does_not_fit_is_refused(folder):
    data = make_data().check()
    fields = {**TINY, "pool": str(folder)}
    with pytest.raises(ConfigError, match=r"pool_per_class must be at most 10 .*dark.* got 12"):
        TASK.check(build(SelectionConfig, {**fields, "pool_per_class": 12}), data)
    with pytest.raises(ConfigError, match=r"pool_label_noise must be 0 with pool=.*its own"):
        build(SelectionConfig, {**fields, "pool_label_noise": 0.5})
    (folder / "bright").rename(folder / "brigth")
    with pytest.raises(ConfigError, match=r'classes of the data, got "brigth".*"bright"'):
        TASK.check(build(SelectionConfig, fields), data)


@pytest.fixture
def unequal(folder):
    """The folder with 3 of its dark images less: 7 dark, 10 bright, no multiple of 2 batches."""
    for index in (1, 4, 8):
        (folder / "dark" / f"{index}.png").unlink()
    return folder


def test_every_image_of_a_folder_of_unequal_classes_is_offered_and_named(unequal):
    data = make_data().check()
    fields = {"pool": str(unequal), "pool_per_class": 0}
    _, outcome = run_cell(data, method="controller", **fields)
    shown = outcome.artifacts
    assert np.bincount(shown["pool_labels"]).tolist() == [7, 10]
    assert outcome.metrics["pool_size"] == 17
    assert shown["keep_probability"].shape == shown["kept"].shape == (17,)
    names = lines(shown["pool_files"])
    there = sorted(p.relative_to(unequal).as_posix() for p in unequal.glob("*/*.png"))
    assert sorted(names) == there
    listed = manifest(shown)
    assert listed
    assert [row[0] for row in listed] == np.flatnonzero(shown["kept"]).tolist()
    assert all(row[2] == row[1].split("/")[0] and row[4] == 1 for row in listed)
    for index, name, _, probability, _ in listed:
        assert float(probability) == pytest.approx(shown["keep_probability"][index], abs=1e-5)
        pixels = read_images(unequal, [name], size=(16, 16), resize="bilinear", colour="grey")
        label = shown["pool_labels"][index]
        assert (pixels.mean() > 110) == (label == 1)  # the file is the image of that row
    assert len(manifest(shown, everything=True)) == 17


def test_a_share_of_the_real_images_may_be_more_than_all_of_them(unequal):
    data = make_data().check()
    fields = {"pool": str(unequal), "pool_per_class": 0, "keep_share_of": "real", "k_shot": 4}
    kept = {
        share: run_cell(data, method="gan_augmentation", keep_share=share, **fields)[1]
        for share in (0.5, 1.5)
    }
    for share, outcome in kept.items():
        chosen = outcome.artifacts["pool_labels"][outcome.artifacts["kept"]]
        assert np.bincount(chosen, minlength=2).tolist() == [round(4 * share)] * 2
    fields |= {"method": "agreement", "keep_share": 2}
    with pytest.raises(ConfigError, match=r"keep_share must be at most 1.75 with .*7 candid.*dark"):
        TASK.check(build(SelectionConfig, {**TINY, **fields}), data)


def test_a_folder_without_a_class_is_refused(unequal):
    for path in (unequal / "bright").iterdir():
        path.unlink()
    fields = {**TINY, "pool": str(unequal), "pool_per_class": 0}
    with pytest.raises(ConfigError, match=r"must hold images of every class, got none of bright"):
        TASK.check(build(SelectionConfig, fields), make_data().check())
