"""Where a number comes from: commit, versions, host, device."""

import os
import platform
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

from sweeps.process import versions_of

ROOT = Path(__file__).resolve().parents[2]
COMMIT_VARIABLE = "MEDRL_COMMIT"
"""Where code travels without its .git (a submitted job, an image): what
`git describe --always --abbrev=40 --exclude='*' --dirty` said of the checkout it was taken from."""
DIRTY = "-dirty"
PACKAGES = ("numpy", "optuna", "pyarrow", "ray", "scikit-image", "scikit-learn", "torch")
PACKAGES += ("torchvision", "torchmetrics")


def _git(*arguments: str) -> str:
    try:
        answer = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


@lru_cache(maxsize=1)
def source() -> dict[str, Any]:
    """The commit of this checkout, and whether tracked files differ from it.

    Without a .git, what COMMIT_VARIABLE says, or "".
    """
    if not (ROOT / ".git").exists():  # git would find a repository that we only lie in
        told = os.environ.get(COMMIT_VARIABLE, "")
        return {"git_commit": told.removesuffix(DIRTY), "git_dirty": told.endswith(DIRTY)}
    return {
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Python and the packages a number can depend on."""
    return versions_of(PACKAGES)


def device_name(device: str) -> str:
    """`"cpu"` → the processor's kind; `"cuda:0"` → the GPU's name."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return f"cpu ({platform.machine()})"
