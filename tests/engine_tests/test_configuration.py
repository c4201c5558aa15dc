"""What is shown of a configuration is what runs; a file says the same as the command line."""

import importlib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

import pytest
import toy_study
import yaml
from studies import ROOT, elsewhere, here
from test_planning import DATA, STUDIES, plan_of

from imaging_core.fields import ConfigError, as_dict, field_names
from sweeps import ablation_controller, hip_fracture, kshot
from sweeps.engine.configuration import chosen_arm, configuration_yaml, field_lines
from sweeps.engine.plan import plan_arms
from sweeps.engine.study import Request, Study, apply, expand
from sweeps.engine.yaml_files import read_study, with_file


def study_values(study: Study) -> Mapping[str, Any]:
    """What `read_study` reads as `study`: plain values, defaults left out."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: plain(each) for name, each in value.items()}
        return [plain(each) for each in value] if isinstance(value, (tuple, list)) else value

    default = {
        field.name: field.default if field.default is not MISSING else field.default_factory()
        for field in fields(Study)
        if field.default is not MISSING or field.default_factory is not MISSING
    }
    values = {field.name: getattr(study, field.name) for field in fields(Study)}
    return {
        name: plain(value)
        for name, value in values.items()
        if name not in default or value != default[name]
    }


def of_file(study, path, *, seeds=(0, 3), **request):
    """The plan of a study as the file at `path` has it."""
    request = with_file(Request(**request), study, str(path), ())
    study, shared = apply(study, request)
    arms = expand(study, shared, request.data or study.data)
    return plan_arms(
        study, request, seeds, arms, {arm.data: DATA for arm in arms},
        results=str(path.parent), retry_failed=False,
    )  # fmt: skip


def keys(plan):
    return [cell.key for cell in plan.cells]


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_read_from_yaml_is_the_one_in_python(name, tmp_path):
    study = importlib.import_module(f"sweeps.{name}").STUDY
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(dict(study_values(study)), sort_keys=False))
    assert read_study(str(file)) == study


def test_both_forms_of_a_study_give_the_same_plan(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(dict(study_values(hip_fracture.STUDY))))
    assert keys(plan_of(read_study(str(file)), tmp_path, preset="paper")) == keys(
        plan_of(hip_fracture.STUDY, tmp_path, preset="paper")
    )


LARGE = ("apga_ambiguities", "selection_ambiguities")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in STUDIES],
)
def test_the_file_that_show_config_writes_gives_the_same_plan(name, tmp_path):
    study = importlib.import_module(f"sweeps.{name}").STUDY
    other = "batch_size=30" if study.core == "apga_core" else "clip=.3"
    plan = plan_of(study, tmp_path, "k_shot=7,9", other)
    file = tmp_path / "config.yaml"
    file.write_text(configuration_yaml(plan, plan.arms[0]))
    assert keys(of_file(study, file)) == keys(plan)


@pytest.mark.parametrize("study", [ablation_controller.STUDY, kshot.STUDY])
def test_every_field_is_there_with_its_value_and_a_meaning(study, tmp_path):
    plan = plan_of(study, tmp_path)
    names = field_names(study.task.config)
    assert set(study.task.meanings) == set(names)
    for arm in plan.arms:
        lines = field_lines(plan, arm)
        assert {line.name: line.value for line in lines} == as_dict(arm.config)
        assert [line.name for line in lines] == list(names)
        assert all(line.meaning and "\n" not in line.meaning for line in lines)


def test_where_a_value_comes_from(tmp_path):
    plan = plan_of(kshot.STUDY, tmp_path, "epochs=4")
    found = {
        line.name: line for line in field_lines(plan, chosen_arm(plan, "k_shot=25,method=apga"))
    }
    assert found["method"].source == "arm"
    assert found["epochs"].source == "--set"
    assert found["batch_size"].source == "preset"
    assert (found["lambda_mode"].source, found["lambda_mode"].where) == ("paper", "eq. 7")
    assert found["bn_mode"].source == "ours"
    assert (found["baseline_decay"].type, found["baseline_decay"].range) == ("float", "≥ 0, < 1")
    own = plan_of(ablation_controller.STUDY, tmp_path)
    of_pool = {line.name: line.source for line in field_lines(own, own.arms[0])}
    assert of_pool["pool"] == of_pool["matched_draws"] == "study"


def test_a_value_that_the_data_forces_says_so_and_is_left_to_it(tmp_path):
    shown = here(
        ablation_controller, "--show-config", "--yaml", "--preset", "paper", "--results", tmp_path,
        "--set", "k_shot=100", "--set", "pool=real", "--set", "method=controller",
    ).stdout  # fmt: skip
    assert "# pool_per_class is left to the data" in shown
    file = tmp_path / "c.yaml"
    file.write_text(shown)
    again = here(ablation_controller, "--config", file, "--results", tmp_path, "--plan")
    assert again.returncode == 0
    assert "preset paper" in again.stdout
    assert "pool_per_class is" in again.stdout


def test_what_is_typed_wins_over_the_file(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("preset: paper\nseeds: [4]\nfactors: {pooling: [8, 16]}\nfields: {ridge: 3}\n")
    plan = ["--plan", "--results", tmp_path, "--config", file]
    assert "2 arms × 1 seeds" in here(toy_study, *plan).stdout.replace("[bold]", "")
    assert "preset paper" in here(toy_study, *plan).stdout
    assert "preset demo" in here(toy_study, *plan, "--preset", "demo").stdout
    assert "4 arms × 3 seeds" in here(
        toy_study, *plan, "--set", "ridge=5,7", "--seeds", "3"
    ).stdout  # fmt: skip


def test_on_and_off_are_words(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("fields: {value_baseline: off, classifier_learning_rate: 1e-3}\n")
    plan = of_file(ablation_controller.STUDY, file)
    assert {arm.config.value_baseline for arm in plan.arms} == {"off"}
    assert {arm.config.classifier_learning_rate for arm in plan.arms} == {1e-3}


BAD = {
    "field: [": "line 1: it must be YAML",
    "just text": "must hold a mapping (field: value), got text",
    "fields: {ridge: 1}\nfields: {}": 'a key must come once, "fields" comes again in line 2',
    "presett: demo": 'unknown key "presett"; did you mean "preset"?',
    "study: other": 'must be a file of this study (toy), it says "other"',
    "fields: {rigde: 1}": 'unknown factor or field "rigde"; did you mean "ridge"?',
    "fields: {ridge: -1}": "ridge: should be greater than 0, got -1",
    "fields: {ridge: [1, 2]}": "ridge must be one value, got a list",
    "fields: {ridge: }": "ridge must be one value, got nothing",
    "fields: 3": 'fields must be a mapping, got "3"',
    "factors: {ridge: 3}": 'factors: ridge must be a list of levels, got "3"',
    "factors: {k_shot: [3]}": "k_shot must have at least two levels where the study does not vary",
    "factors: {ridge: [1, 1]}": "lists a level more than once: 1, 1",
    "seeds: {a: 1}": "seeds must be a count or a list of numbers, got a mapping",
    "preset: [demo]": "preset must be text, got a list",
    "2: 3": "keys must be words, got 2 in line 1; put it in quotes",
}


@pytest.mark.parametrize("text", BAD)
def test_a_file_that_cannot_be_right_is_refused_by_name(text, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    answer = here(toy_study, "--config", file, "--plan", "--results", tmp_path)
    assert answer.returncode == 2
    assert BAD[text] in " ".join(answer.stderr.split())


def test_a_file_that_is_not_there_is_refused(tmp_path):
    answer = here(toy_study, "--config", tmp_path / "no.yaml", "--plan", "--results", tmp_path)
    assert answer.returncode == 2
    assert "--config must be a YAML file that can be read" in " ".join(answer.stderr.split())


BAD_STUDIES = {
    "name": ("a/b", "name must be letters, digits, - and _"),
    "core": ("apga_cor", 'core must be one of apga_core, selection_core, got "apga_cor"; did you'),
    "factors": ({"metod": ["apga"]}, 'unknown factor "metod"; did you mean "method"?'),
    "baseline": ({"epochs": 3}, 'unknown key "epochs"'),
    "seeds": ("five", "seeds must be a count, got text"),
    "question": (None, "question must be text, got nothing"),
}


@pytest.mark.parametrize("key", BAD_STUDIES)
def test_a_declaration_that_cannot_be_right_is_refused_by_name(key, tmp_path):
    value, message = BAD_STUDIES[key]
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump({**study_values(kshot.STUDY), key: value}))
    with pytest.raises(ConfigError) as caught:
        read_study(str(file))
    assert message in str(caught.value)


def test_a_missing_key_is_named(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text("name: x\ncore: apga_core\n")
    with pytest.raises(ConfigError, match="missing: question, factors, baseline, data"):
        read_study(str(file))


def test_arms_are_chosen_by_levels(tmp_path):
    plan = plan_of(kshot.STUDY, tmp_path)
    assert chosen_arm(plan, None).label == "k_shot=100,method=baseline_matched"
    for text, message in (
        ("method=apga", '--arm must name one arm, "method=apga" names 6'),
        ("metod=apga", '--arm: unknown factor "metod"; did you mean "method"?'),
        ("apga", "--arm takes FACTOR=LEVEL"),
        ("k_shot=3,method=apga", '--arm: no arm has the levels "k_shot=3,method=apga"; did you'),
    ):
        with pytest.raises(ConfigError) as caught:
            chosen_arm(plan, text)
        assert message in str(caught.value)


@pytest.mark.slow
def test_a_declared_study_has_the_options_of_every_study(tmp_path):
    script, file = ROOT / "sweeps" / "declared.py", tmp_path / "toy.yaml"
    file.write_text(yaml.safe_dump(dict(study_values(toy_study.STUDY))))
    plan = elsewhere(file, "--plan", "--results", tmp_path, "--seeds", "3", script=script)
    assert plan.returncode == 0, plan.stderr
    assert "6 arms × 3 seeds = 18 cells" in plan.stdout
    assert elsewhere(tmp_path / "no.yaml", "--plan", script=script).returncode == 2
    assert "usage: python sweeps/declared.py STUDY.yaml" in elsewhere(script=script).stderr
