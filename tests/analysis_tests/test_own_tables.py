"""The study's own tables and verdicts, on cells whose answer is known."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from toy_ledgers import make_ledger

from analysis import tables
from analysis.aggregate import in_order
from analysis.claims import table_claims, verdict_table, welch_p
from analysis.generic import ambiguity_table, factor_table
from analysis.layouts import rebuilt
from analysis.paired import paired_tables
from analysis.published import published_tables
from analysis.table import interval
from analysis.variance import iqm_table, variance_table
from sweeps.ledger.read import read_ledger
from sweeps.ledger.schema import CLASS_SIZES, LedgerError

CERVICAL = {"Normal": 1284, "CIN1": 410, "CIN2": 481, "CIN3": 472}
T3 = "ye2020_t3_cervical_ablation_test"
BODY_PARTS = ("elbow", "finger", "forearm", "hand", "humerus", "shoulder", "wrist")


def cell(table, row, column):
    (found,) = [r for r in table.rows if r.label == row]
    return found.entries[table.columns.index(column)]


def jitter(*key: object) -> float:
    """A small number that depends on its key alone."""
    return float(np.random.default_rng([len(str(k)) * 31 + sum(map(ord, str(k))) for k in key])
                 .normal(0, 0.002))  # fmt: skip


def better_with_ppo(levels, seed, metric):
    strength = {"gru": 0.7, "gru_attention": 0.7, "transformer": 0.75}[levels["controller"]]
    if levels["policy_gradient"] == "reinforce":
        strength += 0.1
    return strength + 0.01 * seed + jitter(levels["controller"], seed, metric, *levels.values())


def test_paired_differences_use_common_seeds_and_name_their_family(tmp_path: Path) -> None:
    seeds = tuple(range(10))
    baseline = {"policy_gradient": "ppo", "controller": "transformer"}
    root = make_ledger(
        tmp_path / "s", seeds=seeds, value=better_with_ppo, baseline=baseline, missing=(2,)
    )
    table = paired_tables(read_ledger(str(root)))[0]
    assert table.title == "Accuracy: paired differences against ppo, transformer"
    assert len(table.rows) == 5
    assert cell(table, "reinforce, gru", "n").text == "9"
    assert len(cell(table, "reinforce, gru", "difference").keys) == 20
    assert cell(table, "ppo, gru", "difference").values["value"] == pytest.approx(-0.05, abs=0.005)
    assert cell(table, "ppo, gru", "answer").text == "worse"
    assert cell(table, "reinforce, transformer", "answer").text == "better"
    assert cell(table, "ppo, gru", "p").values["value"] == pytest.approx(2**-9)
    assert table.notes[1].startswith(
        "Decided by Accuracy alone: 5% error over the 5 comparisons with the baseline together"
    )
    assert any(
        note.startswith("Nothing was declared before this study ran") for note in table.notes
    )
    other = paired_tables(read_ledger(str(root)))[1]
    assert other.title.endswith("(exploratory)")
    assert "answer" not in other.columns
    assert "Holm family: the 5 comparisons with ppo, transformer on AUC" in other.notes[2]
    assert not any("no exact paired test" in note for note in table.notes)


def test_five_seeds_say_that_they_cannot_decide(controller_study: Path) -> None:
    table = paired_tables(read_ledger(str(controller_study)))[0]
    assert "With n = 5 no exact paired test can reach 0.05: its smallest p is 0.0625." in (
        table.notes
    )
    answers = [row.entries[-1].text for row in table.rows]
    assert all(text.startswith("undecided; about ") for text in answers)


def test_verdicts_on_the_papers_own_data(tmp_path: Path) -> None:
    # On "cervical" itself: PPO's transformer beats PPO's GRUs, and loses to REINFORCE's.
    data = "folder:/data/cervical?size=256x128"
    root = make_ledger(
        tmp_path / "s",
        seeds=tuple(range(12)),
        value=better_with_ppo,
        baseline={"policy_gradient": "ppo", "controller": "transformer"},
        data=data,
        config={**published_tables()[T3].setting, **published_tables()[T3].at_least},
        extra={CLASS_SIZES: {data: CERVICAL}},
    )
    ledger = read_ledger(str(root))
    table = verdict_table(ledger, published_tables()[T3])
    assert len(table.rows) == 19
    confirmed = cell(table, "Transformer-PPO beats GRU-PPO on Accuracy", "verdict")
    assert confirmed.text == "confirmed (n = 12)"
    against = cell(table, "Transformer-PPO beats Transformer-REINFORCE on Accuracy", "verdict")
    assert against.text == "contradicted (n = 12)"
    assert len(against.keys) == 0
    rest = [row.entries[-1].text for row in table.rows if not row.label.endswith(" on Accuracy")]
    assert set(rest) == {"exploratory (n = 12)"}
    assert len(cell(table, "Transformer-PPO beats GRU-PPO on AUC", "ours").keys) == 24


def test_where_the_paper_prints_a_rival_as_better_it_claims_nothing(
    controller_study: Path,
) -> None:
    claims = table_claims(read_ledger(str(controller_study)), published_tables()[T3])
    assert all(claim.text.startswith("Transformer-PPO beats ") for claim in claims)
    assert all(claim.better.mean > claim.worse.mean for claim in claims)
    assert "Transformer-PPO beats GRU-Attn-PPO on Sensitivity" not in [c.text for c in claims]


def test_welch_on_printed_summaries(controller_study: Path) -> None:
    ledger = read_ledger(str(controller_study))
    claims = {c.text: c for c in table_claims(ledger, published_tables()[T3])}
    p = welch_p(claims["Transformer-PPO beats GRU-Attn-PPO on Accuracy"], 5)
    assert p == pytest.approx(0.0144, abs=0.0005)


@pytest.mark.long
def test_best_is_bold_only_when_decided(tmp_path: Path) -> None:
    def value(levels, seed, metric):
        return better_with_ppo(levels, seed, metric)

    def bold(seeds):
        root = make_ledger(tmp_path / str(len(seeds)), seeds=seeds, value=value)
        (table,) = rebuilt(read_ledger(str(root)), published_tables()[T3])
        return {row.label for row in table.rows for entry in row.entries if entry.best}

    assert bold(tuple(range(12))) == {"Transformer-REINFORCE"}
    root = make_ledger(
        tmp_path / "all_worse",
        seeds=tuple(range(12)),
        value=value,
        baseline={"policy_gradient": "reinforce", "controller": "transformer"},
    )
    (table,) = rebuilt(read_ledger(str(root)), published_tables()[T3])
    marked = {
        (row.label, column)
        for row in table.rows
        for column, entry in zip(table.columns, row.entries, strict=True)
        if entry.best
    }
    assert marked == {("Transformer-REINFORCE", "Accuracy")}  # the primary metric alone decides
    assert bold(tuple(range(5))) == set()


METHODS = ("baseline", "cutout", "gradcam", "apga", "random_mask")


def test_apga_table_1_from_data_named_after_body_parts(tmp_path: Path) -> None:
    data = tuple(f"mura:MURA-v1.1?part=XR_{part.upper()}" for part in BODY_PARTS[:3])
    root = make_ledger(
        tmp_path / "s",
        factors={"data": data, "method": METHODS},
        baseline={"method": "baseline"},
        data=", ".join(data),
        tables=("apga_t1_mura_val_acc",),
        seeds=(0, 1),
        value=lambda levels, seed, _metric: 0.8 + 0.01 * seed + 0.02 * (levels["method"] == "apga"),
    )
    (table,) = rebuilt(read_ledger(str(root)), published_tables()["apga_t1_mura_val_acc"])
    assert [row.label for row in table.rows] == [part.capitalize() for part in BODY_PARTS]
    assert table.columns == (
        "DenseNet", "DenseNet+cutout", "DenseNet+GradCam", "APGA", "random_mask",
    )  # fmt: skip
    # The paper's images, but as published its numbers are of the split that selected.
    assert table.title.endswith("(on mura; different setting)")
    assert any("protocol held-out (printed: paper)" in note for note in table.notes)
    assert cell(table, "Elbow", "APGA").text == "82.50 ± 0.71"
    assert cell(table, "Elbow", "APGA").under == ("83.26 ± 0.62",)
    assert cell(table, "Wrist", "APGA").text == "—"
    assert cell(table, "Elbow", "random_mask").under == ("",)


def test_apga_table_1_on_data_without_body_parts_keeps_both_apart(tmp_path: Path) -> None:
    root = make_ledger(
        tmp_path / "s",
        factors={"method": METHODS},
        data="phantom-xray?size=32",
        tables=("apga_t1_mura_val_acc",),
        seeds=(0, 1),
    )
    (table,) = rebuilt(read_ledger(str(root)), published_tables()["apga_t1_mura_val_acc"])
    assert [row.label for row in table.rows][:2] == ["phantom-xray", "Elbow"]
    assert cell(table, "phantom-xray", "APGA").values["n"] == 2
    assert cell(table, "Elbow", "APGA").text == "—"
    assert "ours on phantom-xray, printed on mura: different data" in table.title


def test_apga_table_2_takes_k_100_and_table_3_both_splits(tmp_path: Path) -> None:
    root = make_ledger(
        tmp_path / "k",
        factors={"k_shot": ("0", "10", "100"), "method": METHODS},
        data="phantom-xray",
        tables=("apga_t2_mura_100shot_val_acc",),
        seeds=(0, 1),
        value=lambda levels, seed, _m: 0.5 + 0.01 * seed + 0.2 * (levels["k_shot"] == "100"),
    )
    (table,) = rebuilt(read_ledger(str(root)), published_tables()["apga_t2_mura_100shot_val_acc"])
    assert cell(table, "Elbow (k_shot = 100)", "DenseNet").text == "70.50 ± 0.71"
    assert cell(table, "Elbow (k_shot = 100)", "DenseNet").under == ("62.68 ± 2.29",)
    assert [row.label for row in table.rows][1:] == ["k_shot = 10", "k_shot = all"]
    root = make_ledger(
        tmp_path / "hip",
        factors={"data": ("phantom-xray:hip-whole", "phantom-xray:hip-bounded"), "method": METHODS},
        data="phantom-xray:hip-whole, phantom-xray:hip-bounded",
        tables=("apga_t3_hipfx_acc",),
        seeds=(0, 1),
        value=lambda levels, seed, metric: 0.6 + 0.1 * (metric == "val_best") + 0.01 * seed,
    )
    (table,) = rebuilt(read_ledger(str(root)), published_tables()["apga_t3_hipfx_acc"])
    assert cell(table, "Whole Pelvis (val)", "APGA").text == "70.50 ± 0.71"
    assert cell(table, "Whole Pelvis (test)", "APGA").text == "60.50 ± 0.71"


def test_selection_methods_have_a_table_per_pool(tmp_path: Path) -> None:
    root = make_ledger(
        tmp_path / "s",
        factors={"pool": ("natural", "mixed"), "method": ("baseline", "controller", "oracle")},
        baseline={"method": "baseline"},
        tables=("ye2020_t1_cervical_test",),
        seeds=(0, 1),
    )
    first, second = rebuilt(read_ledger(str(root)), published_tables()["ye2020_t1_cervical_test"])
    assert first.name == "ye2020_t1_cervical_test_1"
    assert first.title.endswith("pool = natural)")
    assert second.title.endswith("pool = mixed)")
    assert [row.label for row in first.rows][-1] == "oracle"


def test_an_arm_is_compared_within_its_own_task(tmp_path: Path) -> None:
    root = make_ledger(
        tmp_path / "s",
        factors={"k_shot": ("10", "50"), "method": ("baseline", "apga")},
        baseline={"k_shot": "10", "method": "baseline"},
        tables=(),
        seeds=tuple(range(8)),
        value=lambda levels, seed, _m: (
            0.5 + 0.3 * (levels["k_shot"] == "50") + 0.05 * (levels["method"] == "apga") + seed / 99
        ),
    )
    table = paired_tables(read_ledger(str(root)))[0]
    assert {row.label for row in table.rows} == {"10, apga", "50, apga"}
    assert cell(table, "50, apga", "difference").values["value"] == pytest.approx(0.05)


def test_two_sources_of_variance(controller_study: Path) -> None:
    table = variance_table(read_ledger(str(controller_study)))
    for row in table.rows:
        over_seeds, over_patients, cells = row.entries
        assert cells.text == "5"
        assert 0 < over_seeds.values["value"] < 0.06
        # Sixty images of twelve patients at about 75 %: near sqrt(.75·.25/60) = .056.
        assert 0.03 < over_patients.values["value"] < 0.09


def apart_by_task(levels, seed: int, _metric: str) -> float:
    hand = levels["body_part"] == "hand"
    gain = (0.02 if hand else 0.1) * (levels["method"] == "apga")
    return (0.5 if hand else 0.7) + gain + seed / 100


def test_iqm_only_over_several_tasks(tmp_path: Path, controller_study: Path) -> None:
    assert iqm_table(read_ledger(str(controller_study))) is None
    root = make_ledger(
        tmp_path / "s",
        factors={"body_part": ("elbow", "hand"), "method": ("baseline", "apga")},
        tables=(),
        value=apart_by_task,
    )
    table = iqm_table(read_ledger(str(root)))
    # On its task's scale apga's runs are .8 .9 1 1.1 1.2 and 0 .5 1 1.5 2; two go at each end.
    assert cell(table, "apga", "Accuracy").values["iqm"] == pytest.approx(1.0)
    assert cell(table, "baseline", "Accuracy").values["iqm"] == pytest.approx(0.0)
    assert any("on its own scale" in note for note in table.notes)


def test_without_a_common_seed_the_table_says_so(tmp_path: Path) -> None:
    root = make_ledger(
        tmp_path / "s",
        factors={"method": ("baseline", "apga")},
        baseline={"method": "baseline"},
        seeds=(0, 1, 2, 3),
        tables=(),
        missing=(0, 1, 6, 7),
    )
    table = paired_tables(read_ledger(str(root)))[0]
    n, *others = [entry.text for entry in table.rows[0].entries]
    assert n == "0"
    assert len(others) > 6
    assert set(others) == {"—"}
    assert any("No arm has a finished seed in common with baseline" in n for n in table.notes)


def test_a_bound_says_on_which_side_of_zero_it_is() -> None:
    assert interval(-0.0391, -0.0004, 3) == "[−.039, −.0004]"
    assert interval(-0.0391, 0.0, 3) == "[−.039, .000]"
    assert interval(0.0000002, 0.12, 3) == "[.000, .120]"
    assert interval(-0.12, 0.00004, 2, percent=True) == "[−12.00, 0.004]"


def test_one_decision_at_a_time(tmp_path: Path) -> None:
    factors = {"target": ("taken", "printed"), "sampling": ("greedy", "grid"), "bn": ("a", "b")}
    baseline = {name: levels[0] for name, levels in factors.items()}
    kept = [
        i
        for i, arm in enumerate(itertools.product(*factors.values()))
        if sum(level != default for level, default in zip(arm, baseline.values(), strict=True)) < 2
    ]
    root = make_ledger(tmp_path / "s", factors=factors, baseline=baseline, tables=(), keep=kept)
    table = factor_table(read_ledger(str(root)))
    assert table.name == "ambiguities"
    assert [row.label for row in table.rows] == [
        "default", "bn = b", "sampling = grid", "target = printed",
    ]  # fmt: skip
    assert any("With n = 5 no exact paired test can reach 0.05" in note for note in table.notes)
    assert ambiguity_table(read_ledger(str(root))) == table


def test_two_factors_make_a_grid_in_numerical_order(tmp_path: Path) -> None:
    factors = {"lambda_zeros": ("0.1", "0.01", "1e-3"), "baseline_decay": ("0.9", "0.5")}
    root = make_ledger(tmp_path / "s", factors=factors, tables=(), seeds=(0, 1), failed=(0,))
    table = factor_table(read_ledger(str(root)))
    assert table.columns == ("0.5", "0.9")
    assert [row.label for row in table.rows] == ["1e-3", "0.01", "0.1"]
    assert cell(table, "0.1", "0.9").under == ("n = 1/2",)
    assert in_order(("100", "all", "25")) == ("25", "100", "all")
    assert in_order(("b", "a")) == ("b", "a")
    assert in_order(("0", "100", "25"), "k_shot") == ("25", "100", "0")


def test_an_unknown_published_table_is_refused_by_name(tmp_path: Path) -> None:
    root = make_ledger(tmp_path / "s", tables=("ye2020_t9",), seeds=(0,))
    with pytest.raises(LedgerError, match="no published table 'ye2020_t9'; analysis/published has"):
        tables.rebuild(str(root))
