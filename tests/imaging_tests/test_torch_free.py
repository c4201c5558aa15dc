import subprocess
import sys

PROBE = """
import sys, time
start = time.perf_counter()
import imaging_core.fields, imaging_core.task, imaging_core.splits, imaging_core.metric_table
from imaging_core.datasets import load
data = load("ihc-colon")
imaging_core.splits.check_k_shot(data, 16)
seconds = time.perf_counter() - start
from imaging_core.datasets.registry import LOADERS
for module in LOADERS.values():
    __import__(module)
heavy = sorted({"torch", "torchvision", "torchmetrics", "sklearn", "pandas"} & set(sys.modules))
print(",".join(heavy) or "none", f"{seconds:.2f}", len(data.train))
"""


def test_what_the_command_line_needs_imports_no_torch_and_is_quick(capsys):
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    heavy, seconds, images = done.stdout.split()
    with capsys.disabled():
        print(f"\nimports and ihc-colon in a fresh interpreter: {seconds} s")
    assert heavy == "none"
    assert int(images) > 1000
    # 0.5 s on an idle core; the bound leaves room for a machine whose cores are all busy
    assert float(seconds) < 5
