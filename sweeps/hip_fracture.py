"""Six classes: does APGA help where the lesion is small in the view, and where it fills it?

Rebuilds Table 3 of Cheng et al. 2019, whose hip radiographs are not public, on six-class generated
radiographs: whole views (two bones at half the scale, the lesion on one of them) and bounded ones.

    python sweeps/hip_fracture.py          # this machine
    python sweeps/hip_fracture.py --plan   # what would be computed
"""

if __name__ == "__main__":  # before the imports, which take a second
    from sweeps.engine.session import listen

    listen()

from analysis import reporting
from sweeps.engine.cli import main
from sweeps.engine.study import Study

STUDY = Study(
    name="hip_fracture",
    question="Which augmentation helps a six-class classifier, on whole and on bounded views?",
    core="apga_core",
    factors={
        "data": ("phantom-xray:hip-whole", "phantom-xray:hip-bounded"),
        "method": ("baseline", "baseline_matched", "cutout", "gradcam", "apga"),
    },
    baseline={"data": "phantom-xray:hip-bounded", "method": "baseline_matched"},
    data="phantom-xray:hip-bounded",
    tables=("apga_t3_hipfx_acc",),
)

if __name__ == "__main__":
    main(STUDY, reporting.run, __doc__)
