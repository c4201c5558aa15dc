"""Every metric a cell may carry: what it means, which way is better, its range. No torch."""

from imaging_core.task import Metric

_INFINITY = float("inf")

_METRICS = (
    Metric(
        name="accuracy",
        label="Accuracy",
        higher_is_better=True,
        meaning="Share of right answers at the most probable class (micro average).",
    ),
    Metric(
        name="auc",
        label="AUC",
        higher_is_better=True,
        meaning="Area under the ROC curve of class 1; macro one-vs-rest for many classes.",
    ),
    Metric(
        name="sensitivity",
        label="Sensitivity",
        higher_is_better=True,
        meaning="Recall of class 1; macro one-vs-rest for many classes.",
    ),
    Metric(
        name="specificity",
        label="Specificity",
        higher_is_better=True,
        meaning="Recall of class 0; macro one-vs-rest for many classes.",
    ),
    Metric(
        name="balanced_accuracy",
        label="Balanced accuracy",
        higher_is_better=True,
        meaning="Mean recall over the classes.",
    ),
    Metric(
        name="study_accuracy",
        label="Accuracy per study",
        higher_is_better=True,
        meaning="Share of right answers over studies, each decided by the mean probability of its "
        "images; for datasets whose images come in studies (MURA).",
    ),
    Metric(
        name="kappa",
        label="Cohen's κ per study",
        higher_is_better=True,
        low=-1.0,
        meaning="Agreement of these decisions with the labels beyond chance: MURA's own score.",
    ),
    Metric(
        name="val_best",
        label="Best validation accuracy",
        higher_is_better=True,
        meaning="Highest validation accuracy over what was selected from: what the papers print. "
        "Of the images that chose it (in the demos at most 256, as many of each class), so neither "
        "an estimate of test accuracy nor always above it.",
    ),
    Metric(
        name="test_at_best_val",
        label="Test accuracy at best validation",
        higher_is_better=True,
        meaning="Test accuracy of what validation chose: what a reader should believe.",
    ),
    Metric(
        name="selected",
        label="Selected",
        higher_is_better=None,
        high=_INFINITY,
        meaning="Candidates kept from the pool.",
    ),
    Metric(
        name="classifier_trainings",
        label="Classifier trainings",
        higher_is_better=None,
        high=_INFINITY,
        meaning="Classifiers trained for this cell, rewards included: its budget.",
    ),
    Metric(
        name="optimiser_steps",
        label="Optimiser steps",
        higher_is_better=None,
        high=_INFINITY,
        meaning="Gradient steps taken for this cell, over all of its networks.",
    ),
    Metric(
        name="evaluations",
        label="Evaluations",
        higher_is_better=None,
        high=_INFINITY,
        meaning="Times the validation set was scored: chances to overfit it.",
    ),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _METRICS}
