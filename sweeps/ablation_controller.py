"""Which controller, and which policy gradient, chooses images best, and does choosing help?

Rebuilds Table 3 of Ye et al. 2020 ("Synthetic Sample Selection via Reinforcement Learning",
MICCAI): three controllers × two policy gradients × five seeds, the reward being the validation
accuracy of a classifier trained on real and chosen images. Below the paper's six rows stand, of the
same pool, steps and seeds: the real images alone (baseline), as many as Transformer-PPO kept but at
random (k_matched_random), those whose label the base classifier supports most (agreement), and the
candidates known to be good (true_half), the most that choosing could gain.

The demo's pool is one where that is something: 256 real images that the classifiers do not have,
half of them under a wrong label. Pools as a generator leaves them are the honest other case, where
there is little to find.

    python sweeps/ablation_controller.py                  # this machine
    python sweeps/ablation_controller.py --address auto   # the cluster this machine belongs to
    python sweeps/ablation_controller.py --plan           # what would be computed
    python sweeps/ablation_controller.py --until decided  # seeds until each arm has its answer
    python sweeps/ablation_controller.py --set pool=mixed --set pool_label_noise=0  # the other case

The demo preset's 50 cells take about 4 minutes on 2 cores without a GPU; expect the six arms to be
undecided among each other at five seeds.
"""

if __name__ == "__main__":  # before the imports, which take a second
    from sweeps.engine.session import listen

    listen()

from analysis import reporting
from sweeps.engine.cli import main
from sweeps.engine.study import Study

PAPERS_OWN = {"policy_gradient": "ppo", "controller": "transformer", "method": "controller"}
REFERENCES = ("baseline", "k_matched_random", "agreement", "true_half")
SOMETHING_TO_FIND = {"pool": "real", "pool_label_noise": 0.5}

STUDY = Study(
    name="controller_ablation",
    question="Which controller and policy gradient selects images best, and does choosing help?",
    core="selection_core",
    factors={
        "policy_gradient": ("reinforce", "ppo"),
        "controller": ("gru", "gru_attention", "transformer"),
        "method": ("controller", *REFERENCES),
    },
    baseline=PAPERS_OWN,
    data="ihc-colon",
    tables=("ye2020_t3_cervical_ablation_test",),
    fixed={"matched_draws": 3, "classifier_augment": "none"},
    of_preset={"demo": SOMETHING_TO_FIND},
    only=({"method": "controller"}, *(PAPERS_OWN | {"method": name} for name in REFERENCES)),
)

if __name__ == "__main__":
    main(STUDY, reporting.run, __doc__)
