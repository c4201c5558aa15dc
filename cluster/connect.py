"""Find the Ray cluster that is meant, or start one on this machine.

Ray is imported inside the functions here, because it reads whether to speak with a token once, when
it is first imported, and whether a cluster asks for one is known only once it has been found.
"""

import atexit
import logging
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from cluster.errors import ClusterError, ClusterLost
from cluster.private import private_folder

REACH_TIMEOUT_S = 3.0
ANSWER_S = 9.0  # a head under load answers late; what is no head never does
AGAIN_S = 1.0
NO_GRPC = "Failed parsing HTTP/2"  # gRPC's words for a web server, say
CONNECT_TIMEOUT_S = 15.0
NAMESPACE = "medrl"
PATIENT = {"RAY_gcs_rpc_server_reconnect_timeout_s": "600"}
"""Ray ends a process whose GCS has been gone for a minute, whatever it does then. The driver finds
out sooner (`cluster.census`), and has tables to make."""


@dataclass(frozen=True, kw_only=True)
class Connection:
    """A cluster this process has joined.

    Attributes:
        address: HOST:PORT of its head.
        started: whether this process started it (and will stop it).
        note: one line for the user about how it was found.
    """

    address: str
    started: bool
    note: str


def reachable(address: str, timeout_s: float = REACH_TIMEOUT_S) -> bool:
    """Whether something listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s):
            return True
    except (OSError, ValueError):
        return False


def asks_for_token(address: str, patience_s: float = ANSWER_S) -> bool:
    """Whether the cluster at HOST:PORT refuses a call that carries no token.

    Raises:
        ClusterError: what answers there is no head of Ray's, or nothing does within `patience_s`.
    """
    deadline = time.monotonic() + patience_s
    # Ray's own channels take no proxy to the cluster either.
    with grpc.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),)) as channel:
        alive = channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")
        while True:
            try:
                alive(b"", timeout=min(REACH_TIMEOUT_S, patience_s))
                return False
            except grpc.RpcError as error:
                code, said = error.code(), error.details() or ""
            if code == grpc.StatusCode.UNAUTHENTICATED:
                return True
            waits = code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            if not waits or NO_GRPC in said or time.monotonic() + AGAIN_S > deadline:
                break
            time.sleep(AGAIN_S)
    hint = "; 10001 is the port of ray:// clients" if address.endswith(":10001") else ""
    why = "it does not speak gRPC" if NO_GRPC in said else f"it says {code.name.lower()}"
    raise ClusterError(
        f"what listens at {address} is not the head of a Ray cluster ({why}); give the HOST:PORT "
        f"that `ray start --head` printed, 6379 unless it was told another{hint}"
    )


def need_home() -> None:
    """Ray's libraries look for the home directory when they are imported, in every process.

    Raises:
        ClusterError: nobody knows where it is.
    """
    try:
        Path.home()
    except RuntimeError:
        raise ClusterError(
            "Ray needs a home directory, and none is known; set HOME to a folder that can be "
            "written (HOME=/tmp/me), or compute without Ray (--inline)"
        ) from None


def need_docstrings() -> None:
    """Ray's libraries append to their docstrings when they are imported, in every process.

    The nodes of a cluster that we join have them: without, `ray start` does not.

    Raises:
        ClusterError: this interpreter has none (PYTHONOPTIMIZE=2, `python -OO`).
    """
    if sys.flags.optimize > 1:
        raise ClusterError(
            "Ray's libraries need docstrings, and PYTHONOPTIMIZE=2 or python -OO takes them away; "
            "set PYTHONOPTIMIZE=1 (python -O), or compute without Ray (--inline)"
        )


def set_auth_mode(address: str) -> None:
    """Set Ray's token mode to the cluster's: with the wrong one it hangs, or its actors die.

    Raises:
        ClusterError: the cluster asks for a token and this machine has none, or has it where
            others can read it.
    """
    asked = asks_for_token(address)
    if asked and not os.environ.get("RAY_AUTH_TOKEN"):
        named = os.environ.get("RAY_AUTH_TOKEN_PATH")
        path = Path(named) if named else Path.home() / ".ray" / "auth_token"
        if not path.is_file():
            raise ClusterError(
                f"the cluster at {address} asks for a token and there is none in {path}; copy its "
                "~/.ray/auth_token there (readable by you alone)"
            )
        mode = path.stat().st_mode & 0o777
        if mode & 0o077:
            raise ClusterError(
                f"others may read the token in {path} (its mode is {mode:04o}), and who has it "
                f"runs commands on the cluster as you; run `chmod 600 {shlex.quote(str(path))}`"
            )
    os.environ["RAY_AUTH_MODE"] = "token" if asked else "disabled"


def address_files() -> list[Path]:
    """Where `ray start` may have left the address of this machine's cluster; Ray's own place first.

    A cluster that was started in another shell knew another TMPDIR, or none.
    """
    named = [os.environ.get("RAY_TMPDIR"), os.environ.get("TMPDIR"), "/tmp"]
    return [Path(place, "ray", "ray_current_cluster") for place in dict.fromkeys(named) if place]


def find_cluster() -> tuple[str | None, str]:
    """The address of the running cluster this machine belongs to, and how it was found or not."""
    candidates = []
    if from_environment := os.environ.get("RAY_ADDRESS"):
        candidates.append((from_environment, "RAY_ADDRESS"))
    for file in address_files():
        try:
            if from_file := file.read_text().strip():
                candidates.append((from_file, str(file)))
        except (OSError, UnicodeDecodeError):
            continue
    dead = []
    for address, origin in candidates:
        if not reachable(address):
            dead.append(f"{origin} names {address}, where nothing answers")
            continue
        try:
            asks_for_token(address)
        except ClusterError:
            dead.append(f"{origin} names {address}, where no Ray cluster answers")
            continue
        return address, f"joined the Ray cluster at {address}"
    return None, "; ".join(dead)


@contextmanager
def connect(address: str | None, *, runtime_env: Mapping[str, Any] | None) -> Iterator[Connection]:
    """Join or start a cluster for the length of the block; stop it only if we started it.

    Args:
        address: None or "local" starts one on this machine; "auto" joins the running one, or
            starts one where there is none; "HOST:PORT" joins that one.
        runtime_env: what remote nodes need to import our code; None on this machine alone.

    Raises:
        ClusterError: HOST:PORT does not answer, or refuses us.
        ClusterLost: Ray did not start on this machine.
    """
    need_home()
    need_docstrings()
    found, note = None, ""
    if address == "auto":
        found, note = find_cluster()
    elif address not in (None, "local"):
        found = address.removeprefix("ray://")
        if not reachable(found):
            raise ClusterError(
                f"no Ray cluster answers at {found}; start one there with "
                "`ray start --head --port=PORT`, or use --address local to run on this machine"
            )
        note = f"joined the Ray cluster at {found}"
    started = found is None
    if address == "auto" and started:
        note = (f"{note}; " if note else "no running Ray cluster; ") + "started Ray on this machine"
    elif started:
        note = "started Ray on this machine"
    with ExitStack() as own:
        folder = None
        if found is None:
            try:
                folder = own.enter_context(private_folder())
            except OSError as error:
                raise ClusterError(
                    f"Ray needs a folder of its own for temporary files: {error}; set TMPDIR to a "
                    "folder that can be written, whose path has 22 characters at most"
                ) from error
        else:
            set_auth_mode(found)
        for name, value in PATIENT.items():
            os.environ.setdefault(name, value)
        import ray

        lost = False
        before = os.environ.pop("RAY_ADDRESS", None)  # it would override an explicit address
        try:
            context = _init(found, runtime_env, folder)
            head = context.address_info["gcs_address"]
            # A stale address file would send Ray's own State API to a dead cluster, which costs
            # every Train run 12-15 s at its end; the environment variable takes precedence.
            os.environ["RAY_ADDRESS"] = head
            yield Connection(address=head, started=started, note=note)
        except ClusterLost:
            lost = True
            _abandon(ray)
            raise
        finally:
            os.environ.pop("RAY_ADDRESS", None)
            if before is not None:
                os.environ["RAY_ADDRESS"] = before
            if not lost:
                ray.shutdown()


def read_environment_anew() -> None:
    """Ray keeps the token and whether to send it since it was imported, which may be long ago."""
    from ray._raylet import AuthenticationTokenLoader, Config

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def cpus_of_ours() -> int | None:
    """CPUs that this process may use, where they are fewer than the machine's; None: let Ray count.

    Ray counts all cores, or those of a container, but not those of a batch job's shell.
    """
    allowed = len(os.sched_getaffinity(0))
    if allowed >= (os.cpu_count() or 1):
        return None
    from ray._private.utils import get_num_cpus

    return max(1, min(allowed, int(get_num_cpus())))


def _init(address: str | None, runtime_env: Mapping[str, Any] | None, folder: Path | None) -> Any:
    import ray

    common = {
        "log_to_driver": False,
        "logging_level": logging.WARNING,
        "namespace": NAMESPACE,
        "configure_logging": True,
    }
    if address is None:
        read_environment_anew()
        try:
            return ray.init(
                address="local",
                include_dashboard=False,
                num_cpus=cpus_of_ours(),
                _temp_dir=str(folder),
                **common,
            )
        except Exception as error:  # Ray raises a bare one where a process of its own is too slow
            raise ClusterLost(f"Ray did not start on this machine: {_first_line(error)}") from error
    os.environ.setdefault("RAY_gcs_server_request_timeout_seconds", str(int(CONNECT_TIMEOUT_S)))
    try:
        return ray.init(address=address, runtime_env=dict(runtime_env or {}), **common)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(
            f"the cluster at {address} refused this process: {_first_line(error)}. Check that "
            "python and ray have the same versions there, and that ~/.ray/auth_token is the "
            "cluster's"
        ) from error


def _abandon(ray: Any) -> None:
    """End the processes that we started, without a word to a cluster that does not answer.

    A disconnect waits for what is dead, and a thread that waits with it may crash the process.
    """
    atexit.unregister(ray.shutdown)
    node = ray._private.worker._global_node
    if node is not None:  # of a cluster that is not ours it has no processes
        node.kill_all_processes(check_alive=False, allow_graceful=True)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
