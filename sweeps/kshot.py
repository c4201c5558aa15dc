"""How few training images does APGA need, against the other masks?

Rebuilds Table 2 of Cheng et al. 2019 (100 images per class) as one point of a curve over k. The
subsets are nested in k, stratified by class and spread over patients. k_shot=0 is all images.

    python sweeps/kshot.py          # this machine, generated radiographs
    python sweeps/kshot.py --plan   # what would be computed
"""

if __name__ == "__main__":  # before the imports, which take a second
    from sweeps.engine.session import listen

    listen()

from analysis import reporting
from sweeps.engine.cli import main
from sweeps.engine.study import Study

STUDY = Study(
    name="kshot",
    question="At how many training images per class does the augmentation matter?",
    core="apga_core",
    factors={
        "k_shot": (10, 25, 50, 100, 200, 0),
        "method": ("baseline", "baseline_matched", "cutout", "gradcam", "apga"),
    },
    baseline={"k_shot": 100, "method": "baseline_matched"},
    data="phantom-xray",
    tables=("apga_t2_mura_100shot_val_acc",),
)

if __name__ == "__main__":
    main(STUDY, reporting.run, __doc__)
