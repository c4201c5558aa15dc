"""Which controller, and which policy gradient, chooses synthetic images best?

Rebuilds Table 3 of Ye et al. 2020 ("Synthetic Sample Selection via Reinforcement Learning",
MICCAI): three controllers × two policy gradients × five seeds, the reward being the validation
accuracy of a classifier trained on real and chosen images.

    python sweeps/ablation_controller.py                  # this machine
    python sweeps/ablation_controller.py --address auto   # the cluster this machine belongs to
    python sweeps/ablation_controller.py --plan           # what would be computed

The demo preset's 30 cells took 3 min 43 s on 2 cores without a GPU (2026-11-21); expect the six
arms to be undecided at five seeds.
"""

from analysis import last_step
from sweeps.engine.cli import main
from sweeps.engine.study import Study

STUDY = Study(
    name="controller_ablation",
    question="Which controller, trained by which policy gradient, selects synthetic images best?",
    core="selection_core",
    factors={
        "policy_gradient": ("reinforce", "ppo"),
        "controller": ("gru", "gru_attention", "transformer"),
    },
    baseline={"policy_gradient": "ppo", "controller": "transformer"},
    data="ihc-colon",
    tables=("ye2020_t3_cervical_ablation_test",),
)

if __name__ == "__main__":
    main(STUDY, last_step.run, __doc__)
