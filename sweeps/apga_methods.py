"""Does masking learnt from an adversary's reward train a better classifier than simpler masks?

Rebuilds Table 1 of Cheng et al. 2019 ("Adversarial Policy Gradient for Deep Learning Image
Augmentation", MICCAI), and adds the arms it lacks: above all `baseline_matched`, the same second
phase without any mask. `baseline` is the paper's DenseNet, trained once.

    python sweeps/apga_methods.py          # this machine, generated radiographs
    python sweeps/apga_methods.py --plan   # what would be computed

All arms but `baseline` make the same number of classifier steps and validation scores.
"""

if __name__ == "__main__":  # before the imports, which take a second
    from sweeps.engine.session import listen

    listen()

from analysis import reporting
from apga_core.config import APGAConfig
from imaging_core.fields import levels_of
from sweeps.engine.cli import main
from sweeps.engine.study import Study

STUDY = Study(
    name="apga_methods",
    question="Which augmentation trains the best classifier at the same budget?",
    core="apga_core",
    factors={"method": levels_of(APGAConfig, "method")},
    baseline={"method": "baseline_matched"},
    data="phantom-xray",
    tables=("apga_t1_mura_val_acc",),
)

if __name__ == "__main__":
    main(STUDY, reporting.run, __doc__)
