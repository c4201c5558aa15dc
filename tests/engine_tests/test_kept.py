"""--keep weights, sweeps/apply.py and sweeps/as_folder.py: what is taken along is what was made."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import toy_study
from PIL import Image
from studies import ROOT, elsewhere, here
from typer.testing import CliRunner

from imaging_core import datasets
from imaging_core.fields import ConfigError, as_dict, build, rebuilt
from selection_core.task import TASK
from sweeps import ablation_controller, apga_methods, apply, as_folder
from sweeps.engine.applied import apply_to, find_cell, load_cell, own_pool, stages_beside
from sweeps.engine.kept import in_bytes
from sweeps.engine.pictures import file_name, of_part, write_dataset
from sweeps.ledger.files import Store
from sweeps.ledger.read import read_artifacts, read_ledger, read_predictions
from sweeps.ledger.schema import LedgerError


def test_a_core_without_networks_and_an_unknown_kind_are_refused(tmp_path):
    plan = ["--plan", "--results", tmp_path, "--keep"]
    answer = here(toy_study, *plan, "weights")
    assert answer.returncode == 2
    assert "--keep weights: toy_core offers no networks" in " ".join(answer.stderr.split())
    answer = here(toy_study, *plan, "wieghts")
    assert 'must be one of weights, got "wieghts"; did you mean' in " ".join(answer.stderr.split())


def test_the_plan_counts_the_bytes(tmp_path):
    plan = ["--plan", "--results", tmp_path, "--seeds", "2"]
    answer = here(ablation_controller, *plan, "--keep", "weights")
    assert "weights: about 1" in answer.stdout
    assert "MB for the 20 cells to compute" in answer.stdout
    assert "weights:" not in here(ablation_controller, *plan).stdout


def test_sizes_in_words():
    assert [in_bytes(n) for n in (0, 999, 1234, 5_600_000)] == [
        "0 bytes", "999 bytes", "1.2 kB", "5.6 MB",
    ]  # fmt: skip


def test_a_row_gives_its_configuration_though_its_files_are_gone(tmp_path):
    folder = tmp_path / "pool" / "a"
    folder.mkdir(parents=True)
    Image.new("L", (4, 4)).save(folder / "1.png")
    config = build(TASK.config, {"pool": str(folder.parent)})
    (folder / "1.png").unlink()
    assert rebuilt(TASK.config, as_dict(config)) == config
    with pytest.raises(ConfigError, match="it differs in odd"):
        rebuilt(TASK.config, {**as_dict(config), "odd": 1})


def test_a_cell_is_named_by_its_folder_and_its_key(tmp_path):
    for text, message in (
        ("abc", "named by its study's folder and key"),
        (f"{tmp_path}/abc", '"abc" is that of 0 of 0'),
    ):
        with pytest.raises(LedgerError, match=message):
            find_cell(text)


def every_fortieth(data, part):
    split = getattr(data, part)
    return split.take(np.arange(0, len(split), 40))


def test_a_folder_of_pictures_is_read_again_pixel_for_pixel(tmp_path):
    data, parts = datasets.load("ihc-colon"), ("train", "validation", "test")
    some = {part: every_fortieth(data, part) for part in parts}
    pictures = [
        p for name, part in some.items() for p in of_part(name, part, data.classes, part.images)
    ]
    write_dataset(tmp_path / "d", pictures)
    classes = ",".join(data.classes)
    again = datasets.load("folder", f"{tmp_path}/d?size=32x32&colour=grey&classes={classes}")
    assert again.classes == data.classes
    for part, first in some.items():
        second = getattr(again, part)
        np.testing.assert_array_equal(second.images, first.images)
        assert second.labels.tolist() == first.labels.tolist()
        assert second.groups.tolist() == first.groups.tolist()
    with pytest.raises(ConfigError, match="must be written to an empty folder"):
        write_dataset(tmp_path / "d", pictures)
    assert file_name(7, "a/b c=.png") == "000007_b-c-.png"


SMALL = [
    "--inline", "--quiet", "--seeds", "1", "--set", "method=controller",
    "--set", "controller=gru", "--set", "policy_gradient=ppo", "--set", "iterations=3",
    "--set", "pool_per_class=16", "--set", "batches=2", "--set", "classifier=tiny-resnet",
    "--set", "classifier_steps=12", "--set", "classifier_epochs=3",
    "--set", "reward_steps=12", "--set", "reward_epochs=3",
]  # fmt: skip
OWN = ("started", "wall_s", "cpu_s", "versions", "peak_host_bytes", "peak_device_bytes")


def cells_of(root):
    return read_ledger(f"{root}/controller_ablation").cells


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    root = tmp_path_factory.mktemp("kept")
    answer = here(ablation_controller, *SMALL, "--results", root, "--keep", "weights")
    assert answer.returncode == 0, answer.stderr
    return root


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_cell_does_not_depend_on_what_is_kept(kept, tmp_path):
    """Though the controller's stage was there first, without its networks."""
    plain = here(ablation_controller, *SMALL, "--results", tmp_path)
    assert plain.returncode == 0
    cells, others = cells_of(kept), cells_of(tmp_path)
    names = [name for name in cells if name not in OWN]
    pd.testing.assert_frame_equal(cells[names], others[names])
    assert not (tmp_path / "controller_ablation" / "weights").exists()
    # What is computed later with --keep has all of its networks, those of old stages included.
    more = here(
        ablation_controller, *SMALL, "--results", tmp_path, "--keep", "weights",
        "--set", "policy_readout=last",
    )  # fmt: skip
    assert more.returncode == 0
    assert len(list((tmp_path / "controller_ablation" / "weights").glob("*.json"))) == 1


def run(script, *arguments):
    result = CliRunner().invoke(script.app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_applied_to_its_own_test_set_a_cell_says_the_same(kept, tmp_path):
    store = Store(f"{kept}/controller_ablation")
    for row in cells_of(kept).itertuples():
        run(apply, f"{store.root}/{row.key[:12]}", "--out", tmp_path / row.key)
        found = pq.read_table(tmp_path / row.key / "predictions.parquet").to_pandas()
        said = read_predictions(store, row.key).query("split == 'test'").reset_index()
        assert found["id"].tolist() == said["id"].tolist()
        probabilities = found[["p(DAB-negative)", "p(DAB-positive)"]].to_numpy()
        np.testing.assert_array_equal(probabilities, np.stack(said["probabilities"]))
        names = np.array(["DAB-negative", "DAB-positive"])
        assert found["label"].tolist() == names[said["label"]].tolist()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_applied_to_its_own_pool_a_controller_keeps_the_same(kept, tmp_path):
    store = Store(f"{kept}/controller_ablation")
    row = next(r for r in cells_of(kept).itertuples() if "method=controller" in r.arm)
    run(apply, f"{store.root}/{row.key}", "--pool", "own", "--out", tmp_path)
    found = pq.read_table(tmp_path / "pool.parquet").to_pandas()
    artifacts = read_artifacts(store, row.key)
    np.testing.assert_array_equal(found["keep_probability"], artifacts["keep_probability"])
    np.testing.assert_array_equal(found["kept"], artifacts["kept"])
    other = elsewhere(
        f"{store.root}/{row.key}", "--images", tmp_path, script=ROOT / "sweeps" / "apply.py"
    )
    assert other.returncode == 2
    assert "--images must be a folder with images" in other.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_chosen_images_are_the_input_of_the_next_study(kept, tmp_path):
    store = Store(f"{kept}/controller_ablation")
    for row in cells_of(kept).itertuples():
        out = tmp_path / row.key
        said = run(as_folder, f"{store.root}/{row.key}", "--out", out)
        how = said.partition("--data 'folder:")[2].rstrip("'\n")
        found = datasets.load("folder", how)
        own, keep = datasets.load("ihc-colon"), read_artifacts(store, row.key)["kept"]
        assert len(found.train) == 2 * 16 + keep.sum()
        assert (len(found.validation), len(found.test)) == (len(own.validation), len(own.test))
        pool = own_pool({**row._asdict()}, stages_beside(store))
        chosen = sorted(map(bytes, pool["images"][keep]))
        there = sorted(map(bytes, found.train.images))
        assert all(image in there for image in chosen)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_masked_images_are_the_input_of_the_next_study(tmp_path):
    """Every cell of the grid is untouched or black, and patients stay on their side."""
    small = [f"{name}={value}" for name, value in (
        ("method", "apga,baseline"), ("k_shot", 8), ("base_epochs", 1), ("epochs", 1),
        ("base_min_steps", 2), ("min_steps", 2), ("grid", 8), ("erase_value", "zero"),
    )]  # fmt: skip
    settings = [word for setting in small for word in ("--set", setting)]
    answer = here(
        apga_methods, "--inline", "--quiet", "--seeds", "1", "--data", "phantom-xray", *settings,
        "--keep", "weights", "--results", tmp_path,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    root = f"{tmp_path}/apga_methods"
    keys = {row.arm: row.key for row in read_ledger(root).cells.itertuples()}
    said = run(as_folder, f"{root}/{keys['method=apga']}", "--out", tmp_path / "masked")
    how = said.partition("--data 'folder:")[2].rstrip("'\n")
    found, own = datasets.load("folder", how), datasets.load("phantom-xray")
    cell = load_cell(f"{root}/{keys['method=apga']}")
    important: dict[bool, list[float]] = {True: [], False: []}  # of blocks that were kept, and not
    for name in ("train", "validation", "test"):
        there, before = getattr(found, name), getattr(own, name)
        assert there.labels.tolist() == before.labels.tolist()
        assert len(set(there.groups)) == len(set(before.groups))
        blocks, was = blocks_of(there.images), blocks_of(before.images)
        kept, black = (blocks == was).all(axis=(2, 4)), (blocks == 0).all(axis=(2, 4))
        assert (kept | black).all()
        p = apply_to(cell, before.images, device="cpu").importance[:, None]
        p = blocks_of(p)[:, :, p.shape[-2] // 16, :, p.shape[-1] // 16]  # amid each block
        masked = (black & ~kept).any(axis=(1, 2))[:, None, None]  # of an empty mask nothing is
        important[True] += p[masked & kept & ~black].tolist()
        important[False] += p[masked & black & ~kept].tolist()
    assert min(map(len, important.values())) > 0
    assert np.mean(important[True]) > 0.5 > np.mean(important[False])
    refused = CliRunner().invoke(
        as_folder.app, [f"{root}/{keys['method=baseline']}", "--out", str(tmp_path / "none")]
    )
    assert refused.exit_code == 2
    assert "by choosing from a pool or by a policy's masks, this one does neither" in (
        " ".join(refused.stderr.split())
    )
    assert not (tmp_path / "none").exists()


def blocks_of(images: np.ndarray) -> np.ndarray:
    """(N, 1, H, W) → (N, 8, H / 8, 8, W / 8)."""
    count, _, height, width = images.shape
    return images.reshape(count, 8, height // 8, 8, width // 8)
