"""Main effects and interactions, planted and found again; what a fraction cannot tell apart."""

from pathlib import Path

import numpy as np
import pytest
from statsmodels.formula.api import ols
from toy_ledgers import make_ledger

from analysis.answer import answer_sentences
from analysis.effects import effect_table, effects, estimated
from analysis.figures import plt, specification_figures
from sweeps.engine.designs import fraction
from sweeps.ledger.read import Ledger, read_ledger
from sweeps.ledger.schema import DESIGN

SIX = tuple("abcdef")
LEVELS = {name: (f"{name}0", f"{name}1") for name in SIX}


def planted(levels, seed: int, _metric: str = "") -> float:
    """a is worth −4 points, b 2, c × d 3 (half of what they change in one another); seeds differ
    by far more, and e and f do nothing.
    """
    a, b, c, d = (1 if levels[name].endswith("1") else -1 for name in "abcd")
    luck = np.random.default_rng([seed, *(ord(levels[n][1]) for n in SIX)]).normal(0, 0.004)
    return 0.7 + 0.05 * seed - 0.02 * a + 0.01 * b + 0.015 * c * d + luck


def screening(root: Path, value=planted, missing: tuple[int, ...] = ()) -> Path:
    """The sixteen arms of a fraction of six factors, three seeds."""
    wanted = {tuple(map(int, row)) for row in fraction(6)}
    every = list(np.ndindex(*[2] * 6))
    return make_ledger(
        root,
        factors=LEVELS,
        baseline={name: levels[0] for name, levels in LEVELS.items()},
        tables=(),
        seeds=(0, 1, 2),
        value=value,
        missing=missing,
        extra={DESIGN: "screening"},
        keep=[i for i, row in enumerate(every) if row in wanted],
    )


@pytest.fixture(scope="module")
def ledger(tmp_path_factory) -> Ledger:
    return read_ledger(str(screening(tmp_path_factory.mktemp("screening"))))


def found(ledger: Ledger) -> dict[str, float]:
    both = effects(ledger)
    return {" × ".join(one.names): one.estimate for one in (*both.main, *both.interactions)}


@pytest.mark.parametrize("factors", range(2, 17))
def test_a_fraction_confuses_no_main_effect_and_has_the_baseline(factors) -> None:
    signs = np.where(fraction(factors), 1, -1)
    assert len(signs) == max(4, 2 ** int(np.ceil(np.log2(2 * factors)))) if factors > 3 else True
    assert (signs[0] == -1).all()
    assert not signs.sum(axis=0).any()
    assert ((signs.T @ signs) == len(signs) * np.eye(factors)).all()
    pairs = [signs[:, i] * signs[:, j] for i in range(factors) for j in range(i)]
    if factors > 2:
        assert not (signs.T @ np.stack(pairs, axis=1)).any()


def test_planted_effects_are_found_with_their_sign_and_the_others_are_not(ledger) -> None:
    both = effects(ledger)
    main = {one.names[0]: one for one in both.main}
    assert main["a"].estimate == pytest.approx(-0.04, abs=0.003)
    assert main["b"].estimate == pytest.approx(0.02, abs=0.003)
    assert {name for name, one in main.items() if one.p_holm <= 0.05} == {"a", "b"}
    assert main["a"].same_sign == main["a"].blocks == 3
    (joint,) = [one for one in both.interactions if one.p_holm <= 0.05]
    assert joint.estimate == pytest.approx(0.03, abs=0.003)
    assert ("c", "d") in (joint.names, *(names for _, names in joint.aliases))


def test_the_twin_with_other_signs_is_found_with_other_signs(ledger, tmp_path) -> None:
    def flipped(levels, seed, metric) -> float:
        return 1.4 - planted(levels, seed, metric)

    one, twin = found(ledger), found(read_ledger(str(screening(tmp_path, flipped))))
    assert one.keys() == twin.keys()
    assert all(twin[name] == pytest.approx(-value) for name, value in one.items())
    assert twin["a"] > 0 > one["a"]


def test_interactions_that_the_arms_confuse_are_named_together_with_their_signs(ledger) -> None:
    both = effects(ledger)
    signs = np.where(fraction(6), 1, -1)
    place = {name: i for i, name in enumerate(SIX)}

    def column(names) -> np.ndarray:
        return signs[:, [place[name] for name in names]].prod(axis=1)

    confused = [one for one in both.interactions if one.aliases]
    assert confused
    for one in confused:
        for sign, names in one.aliases:
            assert (column(one.names) == sign * column(names)).all()
    every = [n for one in both.interactions for n in (one.names, *(a for _, a in one.aliases))]
    assert len(every) == len(set(every)) == 15


def test_least_squares_is_statsmodels_with_seeds_as_blocks() -> None:
    import pandas as pd

    rng = np.random.default_rng(3)
    signs = np.array([[2 * a - 1, 2 * b - 1, 2 * c - 1] for a, b, c in np.ndindex(2, 2, 2)])
    values = rng.normal(0.7, 0.05, size=(8, 4)) + rng.normal(0, 1, size=4)
    values[3, 1] = np.nan
    main, interactions = estimated(signs, values, "abc", np.zeros(8, dtype=int))
    frame = pd.DataFrame(
        [
            {"y": values[i, s], "seed": s, **dict(zip("abc", signs[i] / 2, strict=True))}
            for i, s in np.ndindex(8, 4)
        ]
    ).dropna()
    fit = ols("y ~ a + b + c + I(2*a*b) + I(2*a*c) + I(2*b*c) + C(seed)", frame).fit()
    assert [one.estimate for one in main] == pytest.approx([fit.params[n] for n in "abc"])
    bounds = fit.conf_int()
    for one, name in zip(interactions, ("a * b", "a * c", "b * c"), strict=True):
        term = f"I(2 * {name})"
        assert [one.estimate, one.low, one.high] == pytest.approx(
            [fit.params[term], *bounds.loc[term]]
        )


def test_the_specification_curve_has_every_arm_and_the_levels_that_moved(ledger) -> None:
    ((name, figure),) = specification_figures(ledger, ledger.cells)
    assert name == "specification_curve"
    above, below = figure.axes
    drawn = np.concatenate([c.lines[0].get_ydata() for c in above.containers])
    means = ledger.cells.groupby("arm")["metric.accuracy"].mean()
    assert sorted(drawn) == pytest.approx(sorted(means))
    ((base,),) = [c.lines[0].get_ydata() for c in above.containers if c.get_label() == "baseline"]
    assert base == pytest.approx(means[",".join(f"{n}={n}0" for n in SIX)])
    (dots,) = below.collections
    assert len(dots.get_offsets()) == 16 * 6 / 2
    arms = dict(enumerate(means.sort_values(kind="stable").index))
    assert all(f"{SIX[int(y)]}={SIX[int(y)]}1" in arms[int(x)] for x, y in dots.get_offsets())
    plt.close(figure)


def test_the_table_is_in_points_and_the_answer_names_what_is_seen(tmp_path) -> None:
    ledger = read_ledger(str(screening(tmp_path, missing=(7,))))
    table = effect_table(ledger)
    rows = {row.label: row for row in table.rows}
    first = rows["a: a1 − a0"].entries
    assert float(first[0].text.replace("−", "-")) == pytest.approx(-4, abs=0.4)
    assert first[3].text == "2 of 2"  # a seed without every arm is no block of its own
    assert any(" × " in label and "(+ " in label for label in rows)
    assert any("cannot be told apart" in note for note in table.notes)
    said = answer_sentences(ledger)[1]
    assert said.startswith("Averaged over the other factors (exploratory), a = a1 changes Accuracy")
    assert said.endswith("of 4 more nothing is seen.")


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_without_anything_to_measure_the_error_with_there_is_no_interval(tmp_path, seeds) -> None:
    rng = np.random.default_rng(0)
    signs = np.array([[2 * a - 1, 2 * b - 1] for a, b in np.ndindex(2, 2)])
    main, _ = estimated(signs, rng.normal(size=(4, len(seeds))), "ab", np.zeros(4, dtype=int))
    assert np.isnan(main[0].low) == (len(seeds) == 1)


def test_a_study_that_is_no_factorial_has_no_effects(tmp_path) -> None:
    assert effects(read_ledger(str(make_ledger(tmp_path / "three_levels")))) is None
    one_at_a_time = make_ledger(
        tmp_path / "moves", factors=LEVELS, tables=(), keep=[0, 1, 2, 4, 8, 16, 32]
    )
    assert effects(read_ledger(str(one_at_a_time))) is None
    assert effect_table(read_ledger(str(one_at_a_time))) is None
