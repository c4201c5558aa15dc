from fractions import Fraction

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from imaging_core.metrics import METRICS, area_under_roc, classification_metrics, study_metrics


def draw(classes, count=400, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, size=count, p=np.arange(1, classes + 1) / sum(range(classes + 1)))
    scores = rng.normal(size=(count, classes))
    scores[np.arange(count), labels] += 0.8
    scores[:, 0] += 0.5
    p = np.exp(scores)
    return labels, (p / p.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_two_classes_agree_with_scikit_learn(seed):
    labels, p = draw(2, seed=seed)
    decided = (p[:, 1] > 0.5).astype(int)
    ours = classification_metrics(labels, p)
    assert ours["accuracy"] == pytest.approx(sk.accuracy_score(labels, decided), abs=1e-14)
    assert ours["auc"] == pytest.approx(sk.roc_auc_score(labels, p[:, 1]), abs=1e-14)
    assert ours["sensitivity"] == pytest.approx(sk.recall_score(labels, decided), abs=1e-14)
    specificity = sk.recall_score(labels, decided, pos_label=0)
    assert ours["specificity"] == pytest.approx(specificity, abs=1e-14)
    assert ours["sensitivity"] != pytest.approx(specificity, abs=0.02)
    balanced = sk.balanced_accuracy_score(labels, decided)
    assert ours["balanced_accuracy"] == pytest.approx(balanced, abs=1e-14)


@pytest.mark.parametrize("classes", [3, 6])
def test_many_classes_agree_with_scikit_learn(classes):
    labels, p = draw(classes)
    decided = p.argmax(axis=1)
    ours = classification_metrics(labels, p)
    assert ours["accuracy"] == pytest.approx(sk.accuracy_score(labels, decided), abs=1e-14)
    auc = np.mean([sk.roc_auc_score(labels == c, p[:, c]) for c in range(classes)])
    assert ours["auc"] == pytest.approx(auc, abs=1e-14)
    recall = sk.recall_score(labels, decided, average="macro")
    assert ours["sensitivity"] == pytest.approx(recall, abs=1e-14)
    assert ours["balanced_accuracy"] == pytest.approx(recall, abs=1e-14)
    specificity = np.mean([sk.recall_score(labels != c, decided != c) for c in range(classes)])
    assert ours["specificity"] == pytest.approx(specificity, abs=1e-14)
    assert ours["accuracy"] != pytest.approx(recall, abs=0.005)


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_torchmetrics_says_the_same_in_float32(classes):
    from torchmetrics.functional import classification as tm

    labels, p = draw(classes)
    y, scores = torch.from_numpy(labels), torch.from_numpy(p)
    ours = classification_metrics(labels, p)
    macro = {"num_classes": classes, "average": "macro"}
    sensitivity = tm.binary_recall if classes == 2 else tm.multiclass_recall
    specificity = tm.binary_specificity if classes == 2 else tm.multiclass_specificity
    auc = tm.binary_auroc if classes == 2 else tm.multiclass_auroc
    theirs = {"sensitivity": sensitivity, "specificity": specificity, "auc": auc}
    for name, function in theirs.items():
        expected = function(scores[:, 1], y) if classes == 2 else function(scores, y, **macro)
        assert ours[name] == pytest.approx(float(expected), abs=2e-6)


def test_equal_counts_are_equal_numbers_and_ratios_are_the_nearest_float64():
    labels, p = draw(2, count=300)
    ours = classification_metrics(labels, p)
    right = Fraction(int(((p[:, 1] > 0.5) == labels).sum()), 300)
    assert ours["accuracy"] == right.numerator / right.denominator
    pairs = [
        Fraction(1 if a > b else 0) + Fraction(1, 2) * int(a == b)
        for a in np.round(p[labels == 1, 1], 1)
        for b in np.round(p[labels == 0, 1], 1)
    ]
    area = sum(pairs, Fraction(0)) / len(pairs)
    assert area_under_roc(labels == 1, np.round(p[:, 1], 1)) == area.numerator / area.denominator


def test_two_classes_literal():
    labels = np.array([0, 0, 0, 1])
    p1 = np.array([0.1, 0.6, 0.2, 0.55])
    assert classification_metrics(labels, np.stack([1 - p1, p1], axis=1)) == pytest.approx(
        {
            "accuracy": 0.75,
            "auc": 2 / 3,
            "sensitivity": 1.0,
            "specificity": 2 / 3,
            "balanced_accuracy": 5 / 6,
        }
    )


def test_swapped_columns_mirror_the_result():
    labels, p = draw(2)
    good, bad = classification_metrics(labels, p), classification_metrics(labels, p[:, ::-1].copy())
    assert bad["auc"] == pytest.approx(1 - good["auc"], abs=1e-12)
    assert bad["accuracy"] == pytest.approx(1 - good["accuracy"], abs=1e-12)


def test_a_class_without_examples_is_refused():
    with pytest.raises(ValueError, match=r"class \[1\] has none"):
        classification_metrics(np.zeros(3, dtype=int), np.full((3, 2), 0.5))


def test_logits_are_refused():
    with pytest.raises(ValueError, match="pass softmax outputs, not logits"):
        classification_metrics(np.array([0, 1]), np.array([[3.0, -1.0], [0.2, 0.8]]))
    with pytest.raises(ValueError, match="labels must be"):
        classification_metrics(np.array([0]), np.array([[0.5, 0.5], [0.2, 0.8]]))


def test_every_computed_metric_is_in_the_table():
    computed = classification_metrics(*draw(2))
    assert set(computed) < set(METRICS)
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.low < metric.high
        assert metric.meaning.endswith(".")
    assert METRICS["val_best"].higher_is_better is True
    assert METRICS["selected"].higher_is_better is None


@pytest.mark.parametrize("classes", [2, 4])
def test_studies_are_decided_by_the_mean_of_their_images(classes):
    rng = np.random.default_rng(classes)
    of = np.sort(rng.integers(0, 60, size=200))
    label_of = np.arange(60) % classes
    _, p = draw(classes, count=200)
    labels = label_of[of]
    names = np.array([f"study{s}" for s in of])
    ours = study_metrics(labels, p, names)
    seen = np.unique(of)
    mean = np.stack([p[of == s].mean(axis=0) for s in seen])
    decided = mean.argmax(axis=1)
    assert ours["study_accuracy"] == pytest.approx((decided == label_of[seen]).mean())
    assert ours["kappa"] == pytest.approx(sk.cohen_kappa_score(label_of[seen], decided))
    per_image = (p.argmax(axis=1) == labels).mean()
    assert ours["study_accuracy"] != pytest.approx(per_image, abs=1e-4)


def test_study_literal_and_a_study_with_two_labels():
    p1 = np.array([0.9, 0.2, 0.4, 0.8])
    p = np.stack([1 - p1, p1], axis=1)
    studies = np.array(["a", "a", "b", "c"])
    # a: mean .55, right; b: .4, right; c: .8, wrong. p_o 2/3, p_e (1·2 + 2·1) / 9.
    found = study_metrics(np.array([1, 1, 0, 0]), p, studies)
    assert found == pytest.approx({"study_accuracy": 2 / 3, "kappa": (2 / 3 - 4 / 9) / (1 - 4 / 9)})
    with pytest.raises(ValueError, match="a study has one label, a has several"):
        study_metrics(np.array([1, 0, 0, 0]), p, studies)
