"""Partitions as replicates: Nadeau and Bengio's interval, and one decision over all of them."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from toy_ledgers import make_ledger

from analysis.answer import answer_sentences
from analysis.decisions import decisions
from analysis.inference import paired_family
from analysis.paired import paired_tables
from analysis.partitions import Partitioned, over_partitions, read_study
from analysis.tables import study_tables
from sweeps.ledger.declared import DECLARED, Declared
from sweeps.ledger.read import read_ledger

FOLDS = tuple(f"{number}of5" for number in range(1, 6))


def repeated_folds(studies: int, images: int, folds: int, times: int, mean: float) -> np.ndarray:
    """(studies, folds × times) the difference of two learners' squared losses on each test fold:
    one predicts the mean of its training images, the other 0. It is 1/n − mean² on average.
    """
    rng = np.random.default_rng(5)
    x = rng.normal(mean, 1, size=(studies, images))
    found = []
    for _ in range(times):
        for test in np.array_split(rng.permutation(images), folds):
            learned = np.delete(x, test, axis=1).mean(axis=1)
            found.append(learned**2 - 2 * learned * x[:, test].mean(axis=1))
    return np.stack(found, axis=1)


def test_the_corrected_interval_covers_and_the_naive_one_does_not() -> None:
    images, folds, mean = 60, 5, 1.0
    truth = 1 / (images * (folds - 1) / folds) - mean**2
    differences = repeated_folds(1000, images, folds, 4, mean)
    assert differences.mean() == pytest.approx(truth, abs=0.03)  # what is covered is the truth

    def coverage(overlap: float) -> float:
        found = paired_family(differences, overlap)
        return float(np.mean([one.low <= truth <= one.high for one in found]))

    assert coverage(1 / (folds - 1)) >= 0.94
    assert coverage(0.0) < 0.8


def test_the_correction_is_nadeau_and_bengios_formula() -> None:
    differences = np.array([[0.1, 0.3, 0.2, 0.0, 0.4]])
    (found,) = paired_family(differences, 0.25)
    half = 2.776445 * np.std(differences, ddof=1) * np.sqrt(1 / 5 + 0.25)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=1e-6)
    assert np.isnan(found.p_exact)  # no sign of one partition may be flipped alone
    assert found.p > stats.ttest_1samp(differences[0], 0).pvalue


def study(root: Path, gain: float, noise: float = 0.004) -> Path:
    """A method that gains `gain` over the baseline in each fold; the folds differ far more."""

    def value(levels, seed, _metric) -> float:
        fold = FOLDS.index(levels["fold"])
        luck = np.random.default_rng([fold, seed, levels["method"] == "ours"]).normal(0, noise)
        return 0.7 + 0.05 * fold + gain * (levels["method"] == "ours") + luck

    declared = Declared(
        metric="accuracy", higher_is_better=True, margin=0.01, error=0.05, comparisons=1,
        baseline={"method": "base"}, looks=(5,), partitions=5, overlap=0.25,
    )  # fmt: skip
    return make_ledger(
        root,
        factors={"method": ("base", "ours"), "fold": FOLDS},
        baseline={"method": "base", "fold": FOLDS[0]},
        seeds=(0, 1),
        tables=(),
        value=value,
        extra={DECLARED: asdict(declared)},
    )


@pytest.mark.parametrize(
    ("gain", "noise", "answer"),
    [
        (0.1, 0.004, "better"),
        (-0.1, 0.004, "worse"),
        (0, 0.001, "equivalent"),
        (0, 0.03, "undecided"),
    ],
)
def test_one_decision_over_all_folds(tmp_path, gain, noise, answer) -> None:
    ledger = read_study(str(study(tmp_path, gain, noise)))
    (found,) = decisions(ledger).every
    assert found.answer == answer
    assert found.pair.n == 5
    assert found.pair.mean == pytest.approx(gain, abs=0.03)
    said = " ".join(answer_sentences(ledger))
    if answer == "undecided":
        assert "Open: ours (more partitions would tell)" in said
    else:
        assert "for training anew on other partitions of such patients" in said


def test_tables_say_what_a_replicate_is_and_hold_every_cell(tmp_path) -> None:
    ledger = read_study(str(study(tmp_path, 0.1)))
    main = paired_tables(ledger)[0]
    assert len(main.rows) == 1
    assert "5 partitions of the patients, the mean over 2 seeds each" in main.notes[0]
    assert not any("no exact paired test" in note for note in main.notes)
    tables = study_tables(ledger)
    assert all("one of 5 partitions of the patients" in table.notes[-1] for table in tables)
    assert len(set(ledger.cells["key"])) == 20


def test_seeds_of_a_fold_that_failed_are_left_out_of_its_mean() -> None:
    partitioned = Partitioned(count=2, seeds=3, overlap=0.5)
    found = partitioned.means(np.array([[1, np.nan, 3, np.nan, np.nan, np.nan]]))
    np.testing.assert_array_equal(found, [[2, np.nan]])
    assert partitioned.all(np.array([[True] * 3 + [True, False, True]])).tolist() == [[True, False]]


def test_a_study_of_one_split_is_what_it_was(tmp_path) -> None:
    ledger = read_ledger(str(make_ledger(tmp_path)))
    assert over_partitions(ledger) is ledger
