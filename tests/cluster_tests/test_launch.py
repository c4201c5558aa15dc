"""The launch files: valid where their readers check them, closed to strangers, stoppable."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

LAUNCH = Path(__file__).resolve().parents[2] / "cluster" / "launch"
CLOUDS = ("aws.yaml", "gcp.yaml")
FILES = sorted(path for path in LAUNCH.iterdir() if path.suffix in (".yaml", ".sbatch", ".py"))
STUDY = "sweeps/ablation_controller.py --address auto"


def load(name: str) -> dict:
    return yaml.safe_load((LAUNCH / name).read_text())


@pytest.mark.parametrize("name", CLOUDS)
def test_rays_own_schema_takes_the_autoscaler_files(name, monkeypatch):
    prepared = prepare_config(load(name))
    validate_config(prepared)
    with pytest.raises(Exception, match="Additional properties are not allowed"):
        validate_config(prepared | {"max_worker": 3})


@pytest.mark.parametrize("name", CLOUDS)
def test_idle_means_one_small_head(name):
    config = load(name)
    workers = {k: v for k, v in config["available_node_types"].items() if k != "head"}
    assert config["head_node_type"] == "head"
    assert all(kind["min_workers"] == 0 for kind in workers.values())
    assert config["idle_timeout_minutes"] <= 15
    assert config["provider"]["cache_stopped_nodes"] is False
    assert config["available_node_types"]["head"]["resources"]["CPU"] == 0


def test_workers_are_spot_and_heads_are_not():
    aws = load("aws.yaml")["available_node_types"]
    assert aws["gpu-spot"]["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert "InstanceMarketOptions" not in aws["head"]["node_config"]
    gcp = load("gcp.yaml")["available_node_types"]
    assert gcp["gpu-spot"]["node_config"]["scheduling"]["provisioningModel"] == "SPOT"
    assert "scheduling" not in gcp["head"]["node_config"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_opens_a_dashboard_or_carries_a_token(path):
    text = path.read_text()
    assert "0.0.0.0" not in text
    assert "--auth-token" not in text
    assert not re.search(r"RAY_AUTH_TOKEN(?!_PATH)", text)  # the token itself; its path is fine
    commands = text.replace("\\\n", " ").splitlines()
    heads = [line for line in commands if "ray start" in line and "--head " in line]
    assert all("--dashboard-host=127.0.0.1" in line for line in heads)
    assert heads or path.name in ("rayjob.yaml", "wait_for_nodes.py")


@pytest.mark.parametrize("name", CLOUDS)
def test_clouds_authenticate_by_a_file_and_open_ssh_only(name):
    config = load(name)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    setup = " ".join(config["setup_commands"])
    assert "chmod 600 ~/.ray/auth_token" in setup
    assert "RAY_AUTH_MODE=token" in setup
    assert "-c constraints.txt" in setup
    assert {".venv", "results"} <= set(config["rsync_exclude"])
    # Ray's own rules for a group that it creates are SSH and the cluster itself; we add none.
    assert "IpPermissions" not in config["provider"].get("security_group", {})


def test_the_rayjob_has_what_kuberay_requires():
    job, policy = yaml.safe_load_all((LAUNCH / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert STUDY in spec["entrypoint"]
    assert spec["shutdownAfterJobFinishes"] is True
    cluster = spec["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        for container in group["template"]["spec"]["containers"]:
            assert {"name", "image", "resources"} <= set(container)
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] == 0
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert limits["nvidia.com/gpu"] == "1"
    assert policy["kind"] == "NetworkPolicy"
    assert policy["metadata"]["namespace"] == job["metadata"]["namespace"]
    assert policy["spec"]["policyTypes"] == ["Ingress"]


def test_versions_in_the_launch_files_are_the_pinned_ones():
    constraints = (LAUNCH.parents[1] / "constraints.txt").read_text()
    pinned = re.search(r"^ray==(.+)$", constraints, re.MULTILINE).group(1)
    job = next(yaml.safe_load_all((LAUNCH / "rayjob.yaml").read_text()))
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == pinned
    assert f"rayproject/ray:{pinned}-py311-gpu" in (LAUNCH / "Dockerfile").read_text()


def test_the_image_has_every_package():
    root = LAUNCH.parents[1]
    rooms = {
        folder.parent.name
        for folder in root.glob("*/__init__.py")
        if not folder.parent.name.startswith((".", "test"))
    }
    copied = set(re.findall(r"^COPY \S+ (\w+) \1$", (LAUNCH / "Dockerfile").read_text(), re.M))
    assert copied == rooms


def test_the_readme_shows_every_file_and_the_way_back_to_zero():
    text = (LAUNCH / "README.md").read_text()
    for path in LAUNCH.iterdir():
        if path.name not in ("README.md", "__pycache__", "wait_for_nodes.py"):
            assert path.name in text, path.name
    for needed in ("ray down", "kubectl delete", "ray job submit", "get-auth-token", STUDY):
        assert needed in text


# Slurm, with every command of the machine room replaced by a short script that writes down what
# it was asked.

FAKES = {
    "scontrol": 'echo "scontrol $*" >>"$LOG"; [ "$1" = show ] && printf "n1\\nn2\\nn3\\n"; exit 0',
    "srun": 'case "$*" in *hostname*) echo "10.0.0.1 fe80::1";;'
    ' *) echo "srun $*" >>"$LOG"; trap "exit 0" TERM; while :; do sleep 0.1; done;; esac',
    "ray": 'mkdir -p "$HOME/.ray"; echo secret >"$HOME/.ray/auth_token"',
    "python": 'echo "python $*" >>"$LOG"\n'
    # As the real one: the other nodes have been asked to start before it ends.
    'case "$*" in *wait_for_nodes*)\n'
    '  for i in $(seq 200); do grep -q -- --exclude "$LOG" && break; sleep 0.1; done\n'
    '  exit "$NODES_STATUS";; esac\n'
    '[ "$MODE" = long ] || exit "$MODE"\n'
    'trap "echo stopped >>\\"$LOG\\"; exit 143" TERM; while :; do sleep 0.1; done',
}


@pytest.fixture
def slurm(tmp_path):
    bins = tmp_path / ".venv" / "bin"
    bins.mkdir(parents=True)
    for name, body in FAKES.items():
        (bins / name).write_text(f"#!/bin/bash\n{body}\n")
        (bins / name).chmod(0o755)
    log = tmp_path / "log"

    def start(*arguments: str, mode: str, nodes_status: int = 0) -> subprocess.Popen:
        environment = os.environ | {
            "HOME": str(tmp_path),
            "LOG": str(log),
            "MODE": mode,
            "NODES_STATUS": str(nodes_status),
            "HEAD_START_S": "0.1",
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "SLURM_JOB_ID": "12345",
            "SLURM_JOB_NODELIST": "n[1-3]",
            "SLURM_JOB_NUM_NODES": "3",
            "SLURM_CPUS_PER_TASK": "16",
            "SLURM_GPUS_ON_NODE": "4",
        }
        environment.pop("RESULTS", None)
        return subprocess.Popen(
            ["bash", str(LAUNCH / "slurm.sbatch"), *arguments], env=environment, text=True
        )

    return start, log


def wait_for(log: Path, text: str) -> None:
    deadline = time.monotonic() + 20
    while not (log.exists() and text in log.read_text()):
        assert time.monotonic() < deadline, log.read_text() if log.exists() else "no log"
        time.sleep(0.05)


def test_the_slurm_script_parses():
    subprocess.run(["bash", "-n", LAUNCH / "slurm.sbatch"], check=True)


def test_slurm_starts_ray_on_every_node_and_hands_on_the_studys_status(slurm, tmp_path):
    start, log = slurm
    job = start("sweeps/ablation_apga.py", "--seeds", "10", mode="3")
    assert job.wait(30) == 3
    said = log.read_text()
    assert "srun --nodes=1 --ntasks=1 -w n1 ray start --head --node-ip-address=10.0.0.1" in said
    assert "srun --nodes=2 --ntasks=2 --exclude=n1 ray start --address=10.0.0.1:22345" in said
    assert said.count("--num-cpus=16 --num-gpus=4") == 2
    assert (
        f"python sweeps/ablation_apga.py --seeds 10 --address auto --results {tmp_path}/results"
        in said
    )
    assert "requeue" not in said
    assert "secret" not in said
    assert (tmp_path / ".ray" / "auth_token").stat().st_mode & 0o077 == 0


@pytest.mark.long
def test_slurm_forwards_sigterm_and_requeues(slurm):
    start, log = slurm
    job = start(mode="long")
    wait_for(log, f"python {STUDY}")
    time.sleep(0.5)
    job.send_signal(signal.SIGTERM)
    assert job.wait(30) == 143
    said = log.read_text()
    assert said.count("stopped") == 1
    assert "scontrol requeue 12345" in said


def test_slurm_runs_no_study_where_nodes_are_missing(slurm):
    start, log = slurm
    job = start(mode="0", nodes_status=1)
    assert job.wait(30) == 1
    assert "ablation" not in log.read_text()
