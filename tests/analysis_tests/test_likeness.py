"""What counts as the paper's own experiment: data, protocol, image size and what it states."""

import dataclasses
import itertools
import json
from dataclasses import asdict
from pathlib import Path

import pytest
from toy_ledgers import make_ledger

from analysis.claims import verdict_table
from analysis.likeness import MOST_NAMED, Unlike, unlike
from analysis.published import claims_checked, published_tables
from apga_core.config import DEMO, APGAConfig
from imaging_core.datasets.options import ImageOptions
from imaging_core.datasets.pcam import Options as PcamOptions
from imaging_core.fields import as_dict
from selection_core.config import PRESETS, SelectionConfig
from sweeps.ledger.declared import DECLARED, Declared
from sweeps.ledger.files import Store
from sweeps.ledger.read import read_ledger, read_manifest
from sweeps.ledger.schema import CLASS_SIZES

CONFIG = {"apga": APGAConfig, "ye2020": SelectionConfig}
T1 = "apga_t1_mura_val_acc"
PAPERS_CONFIG = {**published_tables()[T1].setting, **published_tables()[T1].at_least}
MURA = "mura:MURA-v1.1?part=XR_ELBOW&size=224"


def manifest(path: Path, **values: str):
    root = make_ledger(path, factors={"method": ("apga",)}, seeds=(), tables=(), metrics=())
    return dataclasses.replace(read_manifest(Store(root)), **{"protocol": "paper", **values})


@pytest.fixture
def toy(tmp_path: Path):
    return manifest(tmp_path, data=MURA)


def found(toy, table: str = T1, levels=None, **changes: object) -> Unlike:
    published = published_tables()[table]
    config = {**as_dict(CONFIG[published.paper]()), **changes}
    return unlike(toy, published, [(json.dumps(config), levels or {})])


def test_the_paper_preset_on_the_papers_data_and_protocol_is_the_papers_experiment(toy) -> None:
    assert not found(toy)
    assert not found(dataclasses.replace(toy, data="mura:MURA-v1.1/XR_ELBOW"))
    # What the paper leaves open may be anything.
    assert not found(toy, epochs=30, second_view_statistics="frozen", precision="bfloat16")


def test_other_data_is_named(toy) -> None:
    other = found(dataclasses.replace(toy, data="phantom-xray"))
    assert other.data == "ours are phantom-xray, the printed values are mura"
    assert found(dataclasses.replace(toy, data=f"{MURA}, phantom-xray")).data


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"protocol": "held-out"}, "protocol held-out (printed: paper)"),
        ({"data": "mura:M?size=32"}, "image size 32 (printed: 224)"),
        ({"data": f"{MURA}, mura:M?size=32"}, "image size 32 (printed: 224)"),
        ({"classifier": "tiny-resnet"}, "classifier tiny-resnet (printed: densenet169)"),
        ({"lambda_zeros": 0.3}, "lambda_zeros 0.3 (printed: 0.1)"),
        ({"k_shot": 100}, "k_shot 100 (printed: 0)"),
    ],
)
def test_each_difference_of_the_setting_is_named(toy, change, said) -> None:
    of_study = {n: v for n, v in change.items() if n in ("protocol", "data")}
    of_cells = {n: v for n, v in change.items() if n not in of_study}
    other = found(dataclasses.replace(toy, **of_study), **of_cells)
    assert other == Unlike(setting=(said,))


def test_the_demo_preset_is_no_paper_experiment_and_its_differences_are_counted(toy) -> None:
    other = found(toy, **DEMO)
    assert other.named.count(" (printed: ") == MOST_NAMED
    assert other.named.endswith(f"; and {len(other.setting) - MOST_NAMED} more")
    demo = PRESETS["demo"]
    for name in ("ye2020_t1_cervical_test", "ye2020_t2_pcam_test"):
        assert found(dataclasses.replace(toy, protocol="held-out"), name, **demo).setting


def test_a_field_that_is_not_recorded_is_no_match(toy) -> None:
    other = unlike(toy, published_tables()[T1], [('{"classifier": "densenet169"}', {})])
    assert "policy_network not recorded (printed: unet-vgg11)" in other.setting


def test_a_row_or_column_that_names_a_level_stands_before_the_general_setting(toy) -> None:
    table = "apga_t2_mura_100shot_val_acc"
    assert not found(toy, table, {"k_shot": "100"}, k_shot=100)
    assert found(toy, table, {"k_shot": "100"}, k_shot=0).setting
    pcam = dataclasses.replace(toy, protocol="held-out", data="pcam:P?subset=0.03")
    t2 = "ye2020_t2_pcam_test"
    assert found(pcam, t2, {"method": "baseline"}, method="baseline").setting == (
        "pool_per_class 1024 (printed: 2048)",
    )


def test_official_patchcamelyon_is_not_the_data_of_ye_et_al(toy) -> None:
    pcam = dataclasses.replace(toy, protocol="held-out", data="pcam:P?subset=0.03")
    assert found(pcam, "ye2020_t2_pcam_test", pool_per_class=2048).data
    shares = []
    table = published_tables()["ye2020_t2_pcam_test"]
    for row in table.rows:
        accuracy, sensitivity, specificity = (
            table.values[row.label, metric].mean
            for metric in ("Accuracy", "Sensitivity", "Specificity")
        )
        shares.append((accuracy - specificity) / (sensitivity - specificity))
    assert min(shares) == pytest.approx(0.387, abs=1e-3)
    assert max(shares) == pytest.approx(0.404, abs=1e-3)
    assert any(".387 to .404" in c.printed_tables_say for c in claims_checked("ye2020"))


def test_a_folder_called_cervical_must_hold_the_papers_class_counts(toy) -> None:
    text = "folder:/data/cervical?size=256x128"

    def of_sizes(*sizes: int) -> Unlike:
        extra = {CLASS_SIZES: {text: dict(zip("abcd", sizes, strict=True))}} if sizes else {}
        named = dataclasses.replace(toy, protocol="held-out", data=text, extra=extra)
        return found(named, "ye2020_t3_cervical_ablation_test")

    assert not of_sizes(1284, 410, 481, 472)
    assert not of_sizes(410, 481, 472, 1284)
    assert of_sizes(1284, 410, 481, 471) == Unlike(
        data="ours has 1284, 410, 481, 471 images per class, the printed values are of 1284, 410, "
        "481, 472"
    )
    assert of_sizes().data == (
        "images per class are not recorded, the printed values are of 1284, 410, 481, 472"
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weights": "none"}, "weights none (printed: imagenet)"),
        ({"target": "as-printed"}, "target as-printed (printed: taken-action)"),
        ({"reward_granularity": "batch"}, "reward_granularity batch (printed: image)"),
        ({"bn_mode": "released"}, "bn_mode released (printed: matched)"),
        ({"base_epochs": 1}, "base_epochs 1 (at least: 30)"),
        ({"epochs": 1}, "epochs 1 (at least: 20)"),
    ],
)
def test_untrained_networks_and_other_readings_are_no_paper_experiment(toy, change, said) -> None:
    assert found(toy, **change) == Unlike(setting=(said,))


def test_what_the_papers_state_is_what_the_cores_call_the_papers() -> None:
    for published in published_tables().values():
        config_type = CONFIG[published.paper]
        stated = {
            name
            for name, field in config_type.__pydantic_fields__.items()
            if field.json_schema_extra["source"] == "paper"
        }
        assert stated - {"method"} <= set(published.setting)
        preset = as_dict(config_type())
        differing = {n for n, v in published.setting.items() if preset[n] != v}
        assert differing == ({"pool_per_class"} if "pcam" in published.name else set())


def test_the_loaders_defaults_are_those_that_are_written_down() -> None:
    for published in published_tables().values():
        options = PcamOptions() if "pcam" in published.name else ImageOptions()
        for name, option in published.options.items():
            value = getattr(options, name)
            assert (value[0] if isinstance(value, tuple) else value) == option.default


def test_no_verdict_on_the_papers_data_with_small_networks(tmp_path: Path) -> None:
    # A verdict is the study's own decision: here it declares the paper's metric and method.
    baseline = {"data": MURA, "method": "apga"}
    declared = Declared(
        metric="val_best", higher_is_better=True, margin=0.01, error=0.05, comparisons=3,
        baseline=baseline, looks=(10,),
    )  # fmt: skip

    def labels(name: str, **changes: object) -> set[str]:
        root = make_ledger(
            tmp_path / name,
            factors={"data": (MURA,), "method": ("baseline", "cutout", "gradcam", "apga")},
            baseline=baseline,
            extra={DECLARED: asdict(declared)},
            seeds=tuple(range(10)),
            data=MURA,
            protocol="paper",
            tables=(T1,),
            config={**PAPERS_CONFIG, **changes},
            value=lambda levels, seed, _m: 0.7 + 0.1 * (levels["method"] == "apga") + seed / 999,
        )
        table = verdict_table(read_ledger(str(root)), published_tables()[T1])
        elbow = itertools.islice(table.rows, 3)
        reason = [note for note in table.notes if note.startswith("different setting: ")]
        assert reason == (["different setting: batch_size 8 (printed: 25)."] if changes else [])
        return {row.entries[-1].values["label"] for row in elbow}

    assert labels("paper") == {"confirmed"}
    assert labels("small", batch_size=8) == {"different setting"}
