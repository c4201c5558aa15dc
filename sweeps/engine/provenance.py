"""Where a number comes from: commit, versions, host, device."""

import platform
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("numpy", "optuna", "pyarrow", "ray", "scikit-image", "scikit-learn", "torch")
PACKAGES += ("torchvision", "torchmetrics")


def _git(*arguments: str) -> str:
    root = Path(__file__).resolve().parents[2]
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


@lru_cache(maxsize=1)
def source() -> dict[str, Any]:
    """The commit of this checkout, and whether tracked files differ from it ("" outside git)."""
    return {
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Python and the packages a number can depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def device_name(device: str) -> str:
    """`"cpu"` → the processor's kind; `"cuda:0"` → the GPU's name."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return f"cpu ({platform.machine()})"
