"""`make bench-gpu` on a CPU: every part's code, with sizes that take well under a second."""

import json
import time
from dataclasses import replace

import bench_gpu
import pytest
import torch
from gpu import networks, sharing, studies
from gpu.rows import TINY, Row, markdown
from our_runs import StudyRun

from imaging_core.classifiers import build_classifier
from imaging_core.descent import Descent
from imaging_core.seeding import torch_generator

ABOUT = {"card": "a card", "card_gib": 80.0, "torch": "2", "cuda": "13", "python": "3.11",
         "commit": "abc", "date": "2026-11-28"}  # fmt: skip


@pytest.fixture
def here(monkeypatch):
    """No process set-up: it would change the settings of the tests that come later."""
    monkeypatch.setattr(bench_gpu, "prepare_process", lambda: None)


def values(rows: list[Row]) -> dict[str, float]:
    return {row.what: row.value for row in rows if row.value is not None}


def test_masks_and_steps_of_every_setting_are_measured():
    rows = networks.masking("cpu", TINY)
    assert {row.part for row in rows} == {"masking"}
    steps = [row for row in rows if row.goal]
    assert len(steps) == 4  # demo, pixel-wise, and the paper's in both precisions
    assert all(row.met == (row.value <= 1.15) for row in steps)
    assert sum("one image at a time" in row.what for row in rows) == 2
    assert sum("bfloat16" in row.what for row in rows) == 2
    assert all(row.value > 0 for row in rows)


@pytest.mark.long
def test_the_reward_loop_is_measured_and_its_graph_needs_a_gpu():
    *taken, graph = networks.reward("cpu", TINY)
    assert [row.what for row in taken] == ["one reward of the demo preset", "its steps, eager"]
    assert all(row.value > 0 for row in taken)
    assert graph == Row(part="reward", what="its steps as a CUDA graph", value=None, unit="",
                        note="skipped: needs a CUDA device")  # fmt: skip


def test_what_a_graph_would_hold_learns_and_is_the_same_step_each_time():
    """A step that is replayed reads its batch from where it was captured, and nothing else."""
    weights = torch_generator(0, "weights")
    net = build_classifier("tiny-resnet", channels=1, classes=2, size=16, generator=weights)
    batches = networks.batches_of(
        torch.arange(12 * 256.0).view(12, 1, 16, 16) / 3072, torch.arange(12) % 2, 8, 3
    )
    assert [labels.tolist() for _, labels in batches[:2]] == [[0, 1] * 4, [0, 1] * 4]
    assert torch.equal(batches[1][0][4:], batches[0][0][:4]), "it goes round"
    descent = Descent(kind="adamw", learning_rate=0.01)
    stepper = networks.Stepper(net, descent, *batches[0])
    before = [p.detach().clone() for p in net.parameters()]
    own = stepper.images
    stepper.run(batches, stepper.step)
    assert stepper.images is own
    assert torch.equal(own, batches[-1][0])
    assert all(not torch.equal(p, q) for p, q in zip(before, net.parameters(), strict=True))


def test_precisions_and_layouts_are_measured_in_training_and_inference():
    rows = networks.precision("cpu", TINY)
    assert len(values(rows)) == 2 * 2 * 2
    assert all(row.unit == "images/s" for row in rows)
    assert not any(row.note for row in rows), "timm's figures are of networks that are not here"
    assert set(networks.TIMM) == {"densenet169", "resnet34"}


@pytest.mark.long
def test_a_worker_says_it_is_ready_and_then_how_fast_it_was(monkeypatch):
    monkeypatch.setattr("sweeps.engine.worker.prepare_process", lambda: None)
    asked = []
    began = time.monotonic()
    speed = sharing.rewards_per_second("cpu", 0.2, lambda: asked.append(time.monotonic()))
    assert len(asked) == 1
    assert 0 < speed <= 1 / 0.01
    assert time.monotonic() - began >= 0.2


@pytest.mark.slow
def test_workers_side_by_side_are_processes_and_mps_needs_a_gpu():
    one, two, with_mps = sharing.sharing("cpu", TINY)
    assert one.value == 1.0
    assert (one.goal, two.goal) == ("", "≥ 3")
    assert two.met == (two.value >= 3)
    assert with_mps.note == "skipped: needs a CUDA device"


@pytest.mark.slow
def test_a_worker_that_does_not_start_is_told_with_what_it_said():
    with pytest.raises(RuntimeError, match=r"a worker on abacus did not start: (?s:.*)abacus"):
        sharing.together(1, "abacus", 0.1, {})


def test_mps_that_does_not_start_is_told_with_what_it_said(tmp_path, monkeypatch):
    tool = tmp_path / sharing.MPS
    tool.write_text("#!/bin/sh\necho no device >&2\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(RuntimeError, match="-d: no device"), sharing.mps():
        pass


def test_mps_is_ended_with_what_it_was_asked_for(tmp_path, monkeypatch):
    tool = tmp_path / sharing.MPS
    tool.write_text(
        f'#!/bin/sh\necho "$@ $CUDA_MPS_PIPE_DIRECTORY" >> {tmp_path}/said\n'
        f'[ "$1" = -d ] || cat >> {tmp_path}/said\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with sharing.mps() as environment:
        folder = environment["CUDA_MPS_PIPE_DIRECTORY"]
    assert (tmp_path / "said").read_text() == f"-d {folder}\n {folder}\nquit\n"


def run_of(cells: int, seconds: float) -> StudyRun:
    return StudyRun(wall_s=seconds + 30, start_s=20, end_s=10, stages={"base": [60.0, 30.0]},
                    cells_s=[120.0] * cells, last_line="")  # fmt: skip


def test_cells_per_hour_are_of_the_time_between_first_stage_and_last_commit():
    one, eight, gain = studies.demo_rows({1.0: run_of(50, 250), 0.125: run_of(50, 50)})
    assert (one.value, eight.value) == (720, 3600)
    assert (gain.value, gain.met) == (5, True)
    (only,) = studies.demo_rows({1.0: run_of(50, 250)})
    assert only.what.endswith("1 worker(s) on the device")


def test_a_cells_minutes_are_those_of_its_stages_too():
    (row,) = studies.cell_rows(run_of(1, 500), "kermany-cxr", 224)
    assert (row.value, row.met) == (3.5, True)
    assert row.note == "cell 120 s; base 90 s"


def test_shares_of_a_gpu_are_what_the_engine_is_asked_for():
    assert studies.slots("cuda", 0.125) == ["--gpus-per-worker", "0.125"]
    assert studies.slots("cpu", 1.0) == ["--inline"]


def test_without_the_real_radiographs_a_tree_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "REAL", tmp_path / "nowhere")
    data, name = studies.dataset(tmp_path, TINY, images=12)
    assert data == f"mura:{tmp_path}/MURA-v1.1?part=XR_WRIST&size=32"
    assert name == "12 made images"
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "manifest.csv").touch()
    monkeypatch.setattr(studies, "REAL", tmp_path / "real")
    data, name = studies.dataset(tmp_path, TINY)
    assert data == f"folder:{tmp_path}/real?size=32&classes=normal,pneumonia"
    assert name == "kermany-cxr"


@pytest.mark.slow
def test_a_demo_study_and_a_cell_of_the_paper_run_as_commands(tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "REAL", tmp_path / "nowhere")
    monkeypatch.setattr(studies, "MADE_IMAGES", 90)
    (row,) = studies.demo("cpu", TINY)
    assert row.value > 0
    (row,) = studies.cell("cpu", TINY)
    assert row.met
    assert "90 made images at 32 px" in row.what


def test_a_part_that_fails_says_so_and_the_table_keeps_the_others(tmp_path, here, monkeypatch):
    good = Row(part="masking", what="a step", value=1.2, unit="×", goal="≤ 1.15", met=False)

    def fails(device, size):
        raise RuntimeError("first\nout of memory")

    monkeypatch.setattr(bench_gpu, "PARTS", {"masking": lambda d, s: [good], "reward": fails})
    rows = bench_gpu.run(["masking", "reward"], "cpu", TINY, tmp_path)
    assert rows[1].note == "failed: RuntimeError: out of memory"
    text = (tmp_path / "benchmarks_gpu.md").read_text()
    assert "no card" in text
    assert "0 met, 1 not met, 0 not measured" in text
    assert "| masking | a step | 1.2 × | ≤ 1.15 | **no** |  |" in text
    kept = json.loads((tmp_path / "benchmarks_gpu.json").read_text())
    assert [row["part"] for row in kept["rows"]] == ["masking", "reward"]
    monkeypatch.setattr(bench_gpu, "PARTS", {"masking": fails, "reward": lambda d, s: []})
    bench_gpu.run(["reward"], "cpu", TINY, tmp_path)
    kept = json.loads((tmp_path / "benchmarks_gpu.json").read_text())
    assert [Row(**row) for row in kept["rows"]] == [good], "the other part's row stays"


def test_another_cards_rows_are_not_kept(tmp_path):
    row = Row(part="masking", what="a step", value=1.0, unit="×")
    bench_gpu.write(bench_gpu.merged([row], ["masking"], ABOUT, tmp_path), tmp_path)
    other = ABOUT | {"card": "another"}
    assert bench_gpu.merged([], ["reward"], ABOUT, tmp_path)["rows"]
    assert not bench_gpu.merged([], ["reward"], other, tmp_path)["rows"]


def test_a_missing_number_is_a_dash_with_its_reason():
    row = Row(part="reward", what="a|b", value=None, unit="", goal="≥ 3", note="skipped: no card")
    text = markdown({**ABOUT, "rows": [vars(row)]})
    assert "| reward | a\\|b | — | ≥ 3 |  | skipped: no card |" in text
    assert "0 met, 0 not met, 1 not measured" in text


def test_without_a_gpu_the_command_says_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["bench_gpu.py"])
    assert bench_gpu.main() == 2
    assert "torch sees no GPU here; --cpu --out FOLDER" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["bench_gpu.py", "--cpu"])
    assert bench_gpu.main() == 2
    assert "--cpu needs --out FOLDER" in capsys.readouterr().err


def test_sizes_of_a_gpu_are_the_papers_and_the_issues():
    full = replace(bench_gpu.Size())
    assert (full.side, full.batch, full.networks) == (224, 25, ("densenet169", "resnet34"))
    assert full.workers == (1, 2, 4, 8)
