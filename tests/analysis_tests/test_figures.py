"""Figures: axes that say units and n, the numbers drawn, and the same bytes for the same cells."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from toy_ledgers import make_ledger

from analysis import factor_plots, figures, plots
from analysis.galleries import distance_histogram, mask_gallery, selection_gallery
from sweeps.ledger.read import read_ledger


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def seeds(arm: str, values: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"arm": arm, "seed": range(len(values)), "accuracy": values})


FRAME = pd.concat([seeds("gru", [0.70, 0.72, 0.74]), seeds("transformer", [0.80, 0.82, 0.87])])


def plain(text: str) -> str:
    """A label breaks before its n, never inside it: no-break spaces."""
    return text.replace("\xa0", " ")


def texts(labels) -> list[str]:
    return [plain(label.get_text()) for label in labels]


def test_means_draw_the_mean_its_interval_and_every_seed() -> None:
    ax = plots.means(FRAME, "accuracy", label="Accuracy (fraction)")
    assert texts(ax.get_yticklabels()) == ["gru (n = 3)", "transformer (n = 3)"]
    assert ax.get_xlabel().startswith("Accuracy (fraction)")
    drawn = np.concatenate([c.get_offsets()[:, 0] for c in ax.collections if len(c.get_offsets())])
    assert set(np.round(drawn, 3)) >= set(FRAME["accuracy"])
    bar = ax.containers[0]
    (segment,) = bar.lines[2][0].get_segments()
    assert bar.lines[0].get_xdata()[0] == pytest.approx(0.72)
    assert segment[1, 0] - segment[0, 0] == pytest.approx(2 * 4.3027 * 0.02 / np.sqrt(3), rel=1e-4)


def test_learning_curves_have_a_line_and_a_band_per_arm() -> None:
    frame = pd.DataFrame(
        {
            "arm": ["a", "a", "b", "b"],
            "curves": [{"reward": [0, 1, 2]}, {"reward": [2, 3]}, {"reward": [1]}, {"loss": [1]}],
        }
    )
    ax = plots.learning_curves(frame, "reward", ylabel="reward", xlabel="RL iteration")
    first, second = ax.get_lines()
    assert plain(first.get_label()) == "a (n = 2)"
    assert plain(second.get_label()) == "b (n = 1)"
    assert first.get_ydata().tolist() == [1, 2, 2]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("RL iteration", "reward")
    with pytest.raises(ValueError, match="no cell has the curve 'accuracy'"):
        plots.learning_curves(frame, "accuracy", ylabel="", xlabel="")


def test_forest_marks_zero_and_only_what_is_decided() -> None:
    frame = pd.DataFrame(
        {
            "arm": ["a", "b"], "n": [5, 10], "mean": [0.1, -0.2], "low": [-0.1, -0.3],
            "high": [0.3, -0.1], "answer": ["undecided", "worse"],
        }
    )  # fmt: skip
    ax = plots.forest(frame, label="Accuracy", baseline="gru", margin=0.01)
    marks = [(c.lines[0].get_marker(), c.lines[0].get_fillstyle()) for c in ax.containers]
    assert marks == [("o", "none"), ("v", "full")]
    assert any(set(line.get_xdata()) == {0} for line in ax.get_lines())
    assert "arm minus gru" in ax.get_xlabel()
    assert [patch.get_extents().width > 0 for patch in ax.patches] == [True]  # the margin


def test_heat_map_prints_interval_and_n_in_each_field() -> None:
    frame = pd.DataFrame(
        {"lam": ["0.1"] * 3 + ["1"], "decay": ["a"] * 3 + ["b"], "m": [0.1, 0.2, 0.3, 0.9]}
    )
    ax = factor_plots.heat_map(
        frame, "lam", "decay", "m", label="M", row_order=["0.1", "1"], column_order=["a", "b"]
    )
    texts = [t.get_text() for t in ax.texts]
    assert texts[0] == "0.200\n± 0.248\nn = 3"  # 4.3027·0.1/sqrt(3)
    assert texts[-1] == "0.900\nn = 1"
    assert len(texts) == 2  # fields without cells stay empty


def test_learning_panels_have_every_seed_and_the_mean_of_each_arm() -> None:
    frame = pd.DataFrame(
        {
            "arm": ["a", "a", "b", "c", "d"],
            "seed": [0, 1, 0, 0, 0],
            "curves": [{"r": [0.0, 2.0]}, {"r": [2.0, 4.0]}, {"r": [1]}, {"r": [1]}, {"r": [1]}],
        }
    )
    panels = plots.learning_panels(frame, "r", ylabel="r", xlabel="step")
    assert [plain(ax.get_title()) for ax in panels] == [
        "a (n = 2)", "b (n = 1)", "c (n = 1)", "d (n = 1)",
    ]  # fmt: skip
    first, second, mean = (line.get_ydata().tolist() for line in panels[0].lines)
    assert (first, second, mean) == ([0, 2], [2, 4], [1, 3])
    plt.close("all")


def test_level_curves_keep_the_order_they_are_given() -> None:
    frame = pd.DataFrame({"arm": "apga", "k": ["10", "all", "10"], "m": [0.5, 0.9, 0.7]})
    ax = factor_plots.level_curves(
        frame, "k", "m", order=["10", "25", "all"], label="M", xlabel="k"
    )
    (line,) = ax.get_lines()
    np.testing.assert_allclose(line.get_ydata(), [0.6, np.nan, 0.9])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["10", "25", "all"]


def test_names_are_not_joined_by_lines_and_arms_stand_side_by_side() -> None:
    frame = pd.DataFrame({"arm": ["a", "b"], "f": "x", "m": [0.5, 0.9]})
    ax = factor_plots.level_curves(
        frame, "f", "m", order=["x", "y"], label="M", xlabel="f", ordered=False
    )
    points = [container.lines[0] for container in ax.containers]
    assert [line.get_linestyle() for line in points] == ["None", "None"]
    assert points[0].get_xdata()[0] < points[1].get_xdata()[0]


def test_colours_and_bands_show_no_more_than_there_is() -> None:
    low, high = factor_plots.colour_limits(np.array([[0.82, np.nan], [0.89, 0.85]]))
    assert (low, high) == pytest.approx((0.755, 0.955))
    assert factor_plots.colour_limits(np.array([0.1, 0.9])) == pytest.approx((0.1, 0.9))
    below, above = plots.band("entropy/class1", np.array([0.6]), np.array([0.3]))
    assert (below[0], above[0]) == pytest.approx((0.3, np.log(2)))
    assert plots.band("reward", np.array([0.6]), np.array([0.9]))[1] == pytest.approx([1.5])


def test_seeds_strip_joins_each_seed() -> None:
    ax = plots.seeds_strip(FRAME, "accuracy", label="Accuracy")
    assert len(ax.get_lines()) == 3
    assert list(ax.get_lines()[1].get_xdata()) == [0.72, 0.82]
    assert texts(ax.get_yticklabels()) == ["gru (n = 3)", "transformer (n = 3)"]


def test_arms_differ_in_more_than_colour() -> None:
    looks = [plots.looks(i) for i in range(21)]
    assert len({(c, str(d)) for c, d, _ in looks}) == 21
    luminance = [np.dot(to_rgb(c), (0.2126, 0.7152, 0.0722)) for c in plots.PALETTE]
    assert max(luminance) < 0.75  # none fades on white paper


def test_galleries_show_what_the_arrays_hold() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (3, 1, 8, 8)).astype(np.uint8)
    figure = selection_gallery({"real_0": images, "selected_0": images, "real_1": images})
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.get_yticklabels()] == [
        "class 0: real", "class 0: selected", "class 1: real",
    ]  # fmt: skip
    sheet = axes.images[0].get_array()
    np.testing.assert_allclose(sheet[:8, :8, 0], images[0, 0] / 255, atol=1e-6)
    np.testing.assert_allclose(sheet[9:17, 18:26, 2], images[2, 0] / 255, atol=1e-6)
    assert selection_gallery({"kept_real": images}) is None
    measured = {
        "real_0": images,
        "generated_0": images,
        "pool_cas_per_class": np.array([0.75, 1.0]),
    }
    labels = [t.get_text() for t in selection_gallery(measured).axes[0].get_yticklabels()]
    assert labels == ["class 0: real", "class 0: generated\nCAS 0.75"]
    masks = {"gallery_images": images, "gallery_importance": images[:, 0].astype(np.float16)}
    labels = [t.get_text() for t in mask_gallery(masks).axes[0].get_yticklabels()]
    assert labels == ["image", "APGA p"]
    assert mask_gallery({}) is None
    pool = {
        "centroid_distance": np.arange(8.0),
        "keep_probability": np.array([0.9, 0.1] * 4),
        "pool_labels": np.repeat([0, 1], 4),
    }
    legend = distance_histogram(pool).axes[0].get_legend().get_texts()
    assert [t.get_text() for t in legend] == [
        "pool (n = 4)", "closest half (centroid distance) (n = 2)", "kept (n = 2)",
    ]  # fmt: skip
    assert distance_histogram({}) is None


def test_the_figures_that_a_study_gets(tmp_path: Path) -> None:
    factors = {"method": ("baseline", "apga"), "k_shot": ("10", "all")}
    root = make_ledger(
        tmp_path / "study", factors=factors, tables=(), seeds=(0, 1), metrics=("accuracy",)
    )
    assert {name for name, _ in figures.study_figures(read_ledger(str(root)))} == {
        "curve_reward", "k_shot", "heat_method_k_shot", "means_accuracy", "paired_accuracy",
        "performance_profile", "seeds_accuracy",
    }  # fmt: skip


@pytest.mark.slow
def test_figures_are_the_same_bytes_and_drawn_only_when_cells_change(tmp_path: Path) -> None:
    factors = {"method": ("baseline", "apga")}
    study = {"factors": factors, "tables": (), "seeds": (0, 1), "metrics": ("accuracy",)}
    root = make_ledger(tmp_path / "study", **study, missing=(3,))
    paths = [Path(p) for p in figures.rebuild(str(root))]
    assert {p.suffix for p in paths} == {".png", ".pdf"}
    first = {p: p.read_bytes() for p in paths}
    paths[0].write_bytes(b"kept as it is")
    figures.rebuild(str(root))
    assert paths[0].read_bytes() == b"kept as it is"
    again = figures.rebuild(str(root), redraw=True)
    assert [Path(p).read_bytes() for p in again] == list(first.values())
    make_ledger(root, **study)  # the missing cell arrives
    figures.rebuild(str(root))
    assert paths[0].read_bytes() != first[paths[0]]


def test_galleries_are_of_arms_that_have_pictures_the_baseline_arm_first(tmp_path: Path) -> None:
    methods = ("baseline", "oracle", "gan_augmentation", "centroid_distance", "use_all")
    root = make_ledger(
        tmp_path / "toy",
        factors={"method": (*methods, "controller")},
        baseline={"method": "controller"},
        seeds=(0, 1),
        tables=(),
    )
    ledger = read_ledger(str(root))
    (root / "artifacts").mkdir()
    for arm, key in zip(ledger.cells["arm"], ledger.cells["key"], strict=True):
        if "baseline" not in arm and "oracle" not in arm:
            np.savez(root / f"artifacts/{key}.npz", real_0=np.zeros((2, 1, 8, 8), np.uint8))
    drawn = [
        (name, figure.get_suptitle())
        for name, figure in figures.gallery_figures(ledger, ledger.cells)
    ]
    assert [name for name, _ in drawn] == [f"gallery_selection_{n}" for n in (1, 2, 3)]
    for (_, title), method in zip(drawn, ("controller", *methods[2:]), strict=False):
        assert title.endswith(f"{method}, seed 0")
