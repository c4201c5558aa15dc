"""What a study declares: the first word stands, a change after cells is kept as a change."""

from dataclasses import replace

import pytest

from sweeps.ledger.declared import (
    Declared,
    compared,
    declared_in,
    declaring,
    reference_rows,
)
from sweeps.ledger.schema import LedgerError, Manifest


def declared(**values: object) -> Declared:
    base = {
        "metric": "accuracy", "higher_is_better": True, "margin": 0.01, "error": 0.05,
        "comparisons": 5, "baseline": {"method": "none"}, "looks": (5,), "after_cells": 0,
    }  # fmt: skip
    return Declared(**{**base, **values})


def manifest(**values: object) -> Manifest:
    base = {
        "study": "s", "question": "?", "core": "c", "factors": {}, "baseline": {}, "seeds": (0,),
        "preset": "demo", "data": "d", "protocol": "held-out", "data_fingerprint": "f00d",
        "data_card": "", "tables": (), "metrics": (), "cells": (),
    }  # fmt: skip
    return Manifest(**{**base, **values})


def told(*declarations: Declared, **values: object) -> tuple[Declared, tuple[Declared, ...]]:
    earlier = None
    for each in declarations:
        now = manifest()
        earlier = replace(now, extra=declaring(each, now, earlier))
    return declared_in(earlier)


def test_the_first_declaration_stands_however_often_the_study_is_resumed() -> None:
    first = declared()
    assert told(first, declared(after_cells=7), declared(after_cells=30)) == (first, ())


def test_a_change_after_cells_is_kept_with_what_it_replaced() -> None:
    first, second = declared(), declared(margin=0.05, after_cells=12)
    assert told(first, second) == (second, (first,))
    third = declared(metric="auc", after_cells=30)
    assert told(first, second, third) == (third, (first, second))


def test_before_the_first_cell_it_may_be_changed_freely() -> None:
    assert told(declared(), declared(margin=0.05)) == (declared(margin=0.05), ())


def test_another_experiment_starts_anew() -> None:
    before = manifest(preset="paper")
    before = replace(before, extra=declaring(declared(), before, None))
    now = manifest()
    changed = declared(margin=0.5, after_cells=3)
    assert declared_in(replace(now, extra=declaring(changed, now, before))) == (changed, ())


def test_a_ledger_without_one_says_none_and_a_damaged_one_is_named() -> None:
    assert declared_in(manifest()) == (None, ())
    with pytest.raises(LedgerError, match=r"what it declared is damaged.*run the study's script"):
        declared_in(manifest(extra={"declared": {"metric": 3}}))


def test_the_family_is_every_arm_against_the_baseline_of_its_task() -> None:
    arms = [
        {"k_shot": k, "method": method}
        for k in ("8", "16")
        for method in ("none", "apga", "cutout")
    ]
    assert reference_rows(arms, {"k_shot": "8", "method": "none"}).tolist() == [0, 0, 0, 3, 3, 3]
    assert compared(arms, {"k_shot": "8", "method": "none"}) == [1, 2, 4, 5]
    assert compared(arms, {"method": "absent"}) == []
