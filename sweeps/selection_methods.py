"""Does choosing synthetic images help, and does it take reinforcement learning to choose them?

Rebuilds Tables 1 and 2 of Ye et al. 2020 ("Synthetic Sample Selection via Reinforcement Learning",
MICCAI): real images alone, traditional augmentation, a random half of the pool, and halves chosen
by metric learning, by centroid distance and by the controller; beside them the controls that say
what a gain is due to (`selection_core/README.md`, "Rivals and controls"). All on the same pool,
classifier and budget; augmentation is off for all but the arm that is named for it, as in the
paper, and every final fit makes the same number of steps. 15 methods × 5 seeds of the demo preset
take about 10 minutes on one CPU core, a third of it five generators: each sees the k-shot images of
its seed and no others (`generator_images=all` is one generator that sees all training images).

    python sweeps/selection_methods.py                          # 16 images per class, mixed pool
    python sweeps/selection_methods.py --set generator_images=k_shot,all
    python sweeps/selection_methods.py --set k_shot=16,64 --set pool=natural,mixed
    python sweeps/selection_methods.py --set pool_label_noise=0.5      # half of the labels flipped
    python sweeps/selection_methods.py --set pool=PATH                 # your own generator's images
"""

if __name__ == "__main__":  # before the imports, which take a second
    from sweeps.engine.session import listen

    listen()

from analysis import reporting
from imaging_core.fields import levels_of
from selection_core.config import SelectionConfig
from sweeps.engine.cli import main
from sweeps.engine.study import Study

STUDY = Study(
    name="selection_methods",
    question="Which way of choosing synthetic images helps a classifier most?",
    core="selection_core",
    factors={"method": levels_of(SelectionConfig, "method")},
    baseline={"method": "controller"},
    data="ihc-colon",
    tables=("ye2020_t1_cervical_test", "ye2020_t2_pcam_test"),
    fixed={"classifier_augment": "none", "matched_draws": 3, "pool_quality": "on"},
)

if __name__ == "__main__":
    main(STUDY, reporting.run, __doc__)
