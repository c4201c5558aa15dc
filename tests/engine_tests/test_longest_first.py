"""What a cell is expected to take, so that the longest go first."""

import toy_study
from studies import here

from sweeps.engine.plan import make_plan
from sweeps.engine.run import expected_seconds
from sweeps.engine.study import Request
from sweeps.ledger.files import Store

ONE_ARM = ("ridge=1", "pooling=8")


def expected(results, waits: str) -> list[float]:
    request = Request(seeds="2", settings=(*ONE_ARM, f"wait_s={waits}"))
    plan = make_plan(toy_study.STUDY, request, results=str(results), retry_failed=False)
    return list(expected_seconds(plan, Store(str(results)).child("toy")).values())


def test_an_arm_takes_what_its_committed_cell_took_and_an_unknown_one_the_mean(tmp_path):
    assert expected(tmp_path, "0,0.2,0.3") == [0, 0, 0]
    settings = [text for one in (*ONE_ARM, "wait_s=0,0.3") for text in ("--set", one)]
    answer = here(toy_study, "--inline", "--results", tmp_path, "--seeds", "1", *settings)
    assert answer.returncode == 0
    quick, unknown, slow = expected(tmp_path, "0,0.2,0.3")
    assert slow >= 0.3 > quick
    assert unknown == (quick + slow) / 2
