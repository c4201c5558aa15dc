"""The printed values are data: all of them, in their tables, on their pages."""

import pytest

from analysis.published import claims_checked, published_tables


def test_all_120_printed_values_are_there() -> None:
    tables = published_tables().values()
    assert {t.name: (t.number, t.page, len(t.values)) for t in tables} == {
        "apga_t1_mura_val_acc": (1, 6, 28),
        "apga_t2_mura_100shot_val_acc": (2, 6, 4),
        "apga_t3_hipfx_acc": (3, 7, 16),
        "ye2020_t1_cervical_test": (1, 7, 24),
        "ye2020_t2_pcam_test": (2, 8, 24),
        "ye2020_t3_cervical_ablation_test": (3, 9, 24),
    }
    assert sum(len(t.values) for t in tables) == 120


@pytest.mark.parametrize(
    ("table", "row", "column", "mean", "std"),
    [
        ("apga_t1_mura_val_acc", "Elbow", "APGA", 83.26, 0.62),
        ("apga_t2_mura_100shot_val_acc", "Elbow", "DenseNet", 62.68, 2.29),
        ("apga_t3_hipfx_acc", "Whole Pelvis (test)", "APGA", 53.38, 2.5),
        ("ye2020_t1_cervical_test", "Baseline Model", "Accuracy", 0.754, 0.012),
        ("ye2020_t2_pcam_test", "+ Traditional Augmentation", "Specificity", 0.885, 0.017),
        ("ye2020_t3_cervical_ablation_test", "Transformer-PPO", "AUC", 0.890, 0.005),
    ],
)
def test_values_as_printed(table: str, row: str, column: str, mean: float, std: float) -> None:
    value = published_tables()[table].values[row, column]
    assert (value.mean, value.std) == (mean, std)


def test_every_value_belongs_to_a_row_and_a_column() -> None:
    for table in published_tables().values():
        rows = {line.label for line in table.rows}
        columns = {line.label for line in table.columns}
        assert set(table.values) == {(row, column) for row in rows for column in columns}
        assert table.focus in (rows if table.focus_axis == "row" else columns)
        for value in table.values.values():
            assert 0 < value.std < value.mean <= (100 if table.percent else 1)


def test_the_claims_that_the_papers_own_tables_contradict_are_listed() -> None:
    found = {claim.claim: claim.finding for p in ("apga", "ye2020") for claim in claims_checked(p)}
    assert len(found) == 8
    assert found["gain up to 7.33% (abstract, results)"] == "mismatch"
    assert found["full model best in all metrics (Table 3)"] == "false"
    assert found["cervical +8.1%, PCam +2.3%"] == "holds"
