"""What of this checkout travels to the nodes of a cluster that we join: the code, and nothing else.

An allow-list, because a checkout holds whatever its owner has put beside the code (a dataset, an
environment, results under another name), and Ray refuses to send more than 512 MiB.
"""

import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("apga_core", "cluster", "imaging_core", "selection_core", "sweeps")
"""What a worker may import of ours."""
CODE = (".json", ".py", ".toml", ".yaml")
LARGEST = 1 << 20  # bytes; nobody writes so much code into a file


def packages_for(core: str) -> dict[str, Path]:
    """Name → folder of every package that a study's workers need; another's `core` is one."""
    found = {name: ROOT / name for name in PACKAGES}
    spec = importlib.util.find_spec(core.partition(".")[0])
    if spec is not None and spec.submodule_search_locations and spec.name not in found:
        found[spec.name] = Path(next(iter(spec.submodule_search_locations)))
    return found


def code_in(folder: Path) -> list[Path]:
    """The files of a package that are code, as paths inside it, sorted."""
    return [
        path.relative_to(folder)
        for path in sorted(folder.rglob("*"))
        if path.suffix in CODE and path.is_file() and path.stat().st_size <= LARGEST
    ]


@contextmanager
def runtime_env(core: str) -> Iterator[dict[str, Any]]:
    """Our code as Ray's runtime environment: a folder with copies of it while the block runs.

    Equal code is one upload, whichever run sends it. Empty where `ray job submit --working-dir` has
    sent it already: Ray refuses to be told twice.
    """
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    if (job.get("runtime_env") or {}).get("working_dir"):
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="medrl-code-") as folder:
        for name, package in packages_for(core).items():
            for path in code_in(package):
                copy = Path(folder, name, path)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(package / path, copy)
        yield {"working_dir": folder}
