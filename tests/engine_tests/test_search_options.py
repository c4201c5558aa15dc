"""Options of a study that a search has too, and those that it refuses with the reason."""

import asyncio
import json
from pathlib import Path

import learning_search
import pytest
from studies import invoke

from cluster.broker import Broker
from cluster.queue import WorkItem
from cluster.traffic import Key, Report
from sweeps import search_apga
from sweeps.engine.budget import Budget
from sweeps.ledger.read import read_ledger

SMALL = ("--inline", "--trials", "2", "--tuning-seeds", "1")


def here(results: Path, *arguments: object, search=learning_search):
    steps, options = learning_search, ("--results", results, *arguments)
    return invoke(search, *options, steps=steps, columns=250)


def test_config_is_set_from_a_file_and_what_is_typed_wins(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text("study: learning_search\nseeds: [3]\nfields: {rate: 0.1, steps: 7}\n")
    steps = ("--set", "rate=0.1,0.2", "--set", "steps=5")
    assert here(tmp_path / "a", *SMALL, "--config", file, *steps[:2]).exit_code == 0
    cells = read_ledger(str(tmp_path / "a/learning_search")).cells
    assert cells["seed"].unique().tolist() == [3]
    assert {json.loads(config)["steps"] for config in cells["config"]} == {7}
    assert {json.loads(config)["rate"] for config in cells["config"]} <= {0.1, 0.2}
    # A field of the file is fixed like one of --set: no axis is left of it.
    alone = here(tmp_path / "b", *SMALL, "--config", file)
    assert alone.exit_code == 2
    assert "the space of learning_search has 1 points" in " ".join(alone.stderr.split())
    both = here(tmp_path / "c", *SMALL, "--plan", "--config", file, *steps, "--seeds", "2")
    assert "2 arms (default and tuned) × 2 seeds" in both.output


def test_a_budget_ends_a_search_and_the_next_run_goes_on(tmp_path):
    whole = ("--inline", "--trials", "3")
    spent = here(tmp_path / "a", *whole, "--max-hours", "1e-9")
    assert spent.exit_code == 3
    said = " ".join(spent.output.split())
    # The first cell had begun; 5 of tuning and 2 of the report are left.
    assert "1 tuning cells committed" in said
    assert "slot-hours); 7 cells are left, about " in said
    assert "on 1 slots by the cell of this run" in said
    assert not (tmp_path / "a/learning_search/cells").exists()
    assert (tmp_path / "a/learning_search/search/trials.csv").exists()
    assert here(tmp_path / "a", *whole, "--max-gpu-hours", "5").exit_code == 0
    assert here(tmp_path / "b", *whole).exit_code == 0
    files = [tmp_path / name / "learning_search/search/trials.csv" for name in "ab"]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_report_has_what_the_search_left_of_the_budget():
    budget = Budget(hours=2.0, gpu_hours=4.0, gpus_per_slot=0.5)
    rest = budget.less(1800.0, 7200.0)
    assert (rest.hours, rest.gpu_hours, rest.gpus_per_slot) == (1.5, 3.0, 0.5)
    assert Budget(hours=1.0).less(900.0, 900.0) == Budget(hours=0.75)


def test_on_ray_no_held_cell_is_queued_once_the_budget_is_spent():
    async def ask():
        broker = Broker(max_attempts=1)
        cells = [WorkItem(id=Key(name), payload={}) for name in "ab"]
        await broker.hold("arm", [[cell] for cell in cells])
        first = asyncio.create_task(broker.result_of_arm("arm", 0))
        await asyncio.sleep(0)
        await broker.take("w", "1")
        await broker.start_no_more()
        assert not await broker.may_start()
        await broker.finish("w", "1", "a", Report(seed=1, objective=0.5).to_json())
        # A trial that starts again hears what is there; the second cell was never begun.
        return [(await first)["seed"], (await broker.result_of_arm("arm", 0))["seed"],
                await broker.result_of_arm("arm", 1)]  # fmt: skip

    assert asyncio.run(ask()) == [1, 1, None]


REFUSED = {
    "pilot": (("--plan", "--pilot"), "a search proposes its arms while it runs; --trials 1 comp"),
    "until": (("--until", "decided"), "--until adds seeds to arms that are compared, and a sear"),
    "first": (("--first", "rate=1"), "--first puts arms of a plan ahead, and a search's are pro"),
    "show": (("--show-config",), "--show-config shows the arms of a plan, and a search's are p"),
    "keep": (("--keep", "weihgts"), '--keep must be one of weights, got "weihgts"; did you mean'),
    "networks": (("--keep", "weights"), "--keep weights: learning_core offers no networks; leave"),
    "tracker": (("--track", "tensorbord"), 'wandb, got "tensorbord"; did you mean "tensorboard"'),
    "hours": (("--max-hours", "0"), "--max-hours must be above 0, got 0; leave it out for none"),
    "file": (("--config", "/nowhere.yaml"), "--config must be a YAML file that can be read, got"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_before_a_cell_is_computed(name, tmp_path):
    arguments, words = REFUSED[name]
    answer = here(tmp_path, *SMALL, *arguments)
    assert answer.exit_code == 2
    assert words in " ".join(answer.stderr.split())
    assert not list(tmp_path.rglob("cells/*.parquet"))


def test_the_list_of_options_has_those_that_fit():
    said = here(Path("/nowhere"), "--help").output
    for option in ("--prune", "--keep", "--track", "--config"):
        assert option in said
    for option in ("--pilot", "--until", "--first", "--show-config"):
        assert f" {option} " not in said


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_networks_of_winners_and_defaults_are_kept_and_those_of_proposals_are_not(tmp_path):
    small = [f"{name}={value}" for name, value in (
        ("k_shot", 4), ("base_epochs", 1), ("epochs", 1), ("base_min_steps", 2), ("min_steps", 2),
    )]  # fmt: skip
    settings = [word for setting in small for word in ("--set", setting)]
    answer = here(
        tmp_path, *SMALL, "--seeds", "1", "--keep", "weights", *settings, search=search_apga
    )
    assert answer.exit_code == 0, answer.output
    assert list((tmp_path / "search_apga/weights").iterdir())
    assert not (tmp_path / "search_apga_tuning/weights").exists()
