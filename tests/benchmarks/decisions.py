"""The errors, the power and the cost of decisions, by simulation with the code that decides.

    python tests/benchmarks/decisions.py              # 4,000 studies a line, some minutes
    python tests/benchmarks/decisions.py --studies 500

A study is a baseline and five arms, 40 seeds at most, a family error of 5 %. In the first table the
unit is the std of a seed, in the second the margin.
"""

import argparse

import numpy as np

from sweeps.search.decide import Rule, decide
from sweeps.search.looks import schedule
from sweeps.search.race import race

MOST, ARMS = 40, 5
MARGINS = (0.1, 0.7, 1.2)  # in std of a difference; the worst is printed
LOOKS = schedule(MOST)


def arms_alike(kind: str, rng: np.random.Generator, studies: int) -> np.ndarray:
    """(studies, ARMS, MOST) differences of arms whose seeds have the baseline's own law."""
    shape = (studies, ARMS + 1, MOST)
    if kind == "normal":
        cells = rng.normal(size=shape)
    elif kind == "exponential":
        cells = rng.exponential(size=shape)
    else:  # one seed in ten collapses by ten std, in the baseline as often as in an arm
        cells = rng.normal(size=shape) - 10 * (rng.random(shape) < 0.1)
    return cells[:, 1:] - cells[:, :1]


def lopsided(kind: str, rng: np.random.Generator, studies: int) -> np.ndarray:
    """The same of a baseline that never varies: the differences themselves are lopsided, mean 0."""
    shape = (studies, ARMS, MOST)
    if kind == "exponential":
        return rng.exponential(size=shape) - 1
    if kind == "half exponential":  # and normal noise as large
        return rng.exponential(size=shape) - 1 + rng.normal(size=shape)
    return rng.normal(size=shape) + 1 - 10 * (rng.random(shape) < 0.1)


def wrong(differences: np.ndarray, rule: Rule, answers: tuple[str, ...]) -> float:
    """Share of studies with one of `answers` or more."""
    found = decide(differences.reshape(-1, MOST), rule)
    bad = np.array([one.answer in answers for one in found]).reshape(-1, ARMS)
    return float(bad.any(axis=1).mean())


def errors(studies: int) -> None:
    print("family-wise error (5 % promised)           at no difference   at the margin's edge")
    laws = [(arms_alike, k) for k in ("normal", "exponential", "collapsing")]
    laws += [(lopsided, k) for k in ("half exponential", "exponential", "collapsing")]
    for draw, kind in laws:
        name = f"{kind}, {'differences alone' if draw is lopsided else 'every arm alike'}"
        differences = draw(kind, np.random.default_rng(0), studies)
        std = float(differences.std())
        rules = [
            Rule(looks=LOOKS, margin=margin * std, error=0.05, family=ARMS) for margin in MARGINS
        ]
        null = max(wrong(differences, rule, ("better", "worse")) for rule in rules)
        edge = max(
            wrong(differences + sign * rule.margin, rule, ("equivalent",))
            for rule in rules
            for sign in (-1, 1)
        )
        print(f"{name:42} {null:12.4f} {edge:20.4f}")


def costs(studies: int) -> None:
    print("true differences        std   decided   cells   of a fixed design of equal power")
    cases = (
        ((0, 0.5, 1, 2, 3), 1.0), ((0, 0, 0, 0, 0), 0.5), ((0, 0, 2, 3, 4), 1.0),
        ((0, 0, 0, 2, 5), 0.6), ((0, 1, 2, 3, 5), 2.0),
    )  # fmt: skip
    for effects, std in cases:
        rng = np.random.default_rng(0)
        values = rng.normal(0, std / np.sqrt(2), size=(studies, ARMS + 1, MOST))
        values[:, 1:] += np.array(effects)[:, None]
        rule = Rule(looks=LOOKS, margin=1.0, error=0.05, family=ARMS)
        runs = [race(each, range(1, ARMS + 1), [0] * ARMS, rule) for each in values]
        power = np.mean([[one.answer != "undecided" for one in found] for found, _ in runs])
        spent = np.mean([cells for _, cells in runs])
        pairs = (values[:, 1:] - values[:, :1]).reshape(-1, MOST)
        fixed = next((n for n in range(6, MOST) if _power(pairs[:, :n], n) >= power), MOST)
        share = spent / ((ARMS + 1) * fixed)
        print(f"{effects!s:20} {std:6.1f} {power:9.3f} {spent:7.1f} {share:8.2f} (n = {fixed})")


def _power(pairs: np.ndarray, n: int) -> float:
    rule = Rule(looks=(n,), margin=1.0, error=0.05, family=ARMS)
    return float(np.mean([one.answer != "undecided" for one in decide(pairs, rule)]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=4000)
    asked = parser.parse_args().studies
    errors(asked)
    costs(max(1, asked // 40))
