"""How a cluster is found: dead addresses are noticed at once and said, never waited for."""

import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest

from cluster.connect import (
    ClusterError,
    address_files,
    asks_for_token,
    connect,
    cpus_of_ours,
    find_cluster,
    reachable,
    set_auth_mode,
)
from cluster.fleet import plan_nodes


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def head_of(answer) -> Iterator[str]:
    """A gRPC server that answers every call of Ray's by `answer(context)`; its HOST:PORT."""

    class Everything(grpc.GenericRpcHandler):
        def service(self, call):
            if answer is None or not call.method.endswith("/CheckAlive"):
                return None  # UNIMPLEMENTED
            return grpc.unary_unary_rpc_method_handler(lambda request, context: answer(context))

    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Everything()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


@pytest.fixture
def head():
    """Of a cluster without a token."""
    yield from head_of(lambda context: b"")


@pytest.fixture
def guarded_head():
    yield from head_of(lambda context: context.abort(grpc.StatusCode.UNAUTHENTICATED, "a token!"))


@pytest.fixture
def other_service():
    """It speaks gRPC and knows no call of a head: Ray's own port for ray:// clients, say."""
    yield from head_of(None)


@pytest.fixture
def web_server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"127.0.0.1:{port}"


def test_reachable_tells_a_listening_port_from_a_closed_one(listening, closed_port):
    assert reachable(listening)
    assert not reachable(closed_port)
    assert not reachable("no port here")


@pytest.fixture
def one_place(tmp_path, monkeypatch) -> Path:
    """The only folder whose address file is read: a cluster of somebody else's is none of ours."""
    file = tmp_path / "ray" / "ray_current_cluster"
    monkeypatch.setattr("cluster.connect.address_files", lambda: [file])
    return tmp_path


@pytest.mark.usefixtures("one_place")
def test_a_stale_address_file_is_named_and_costs_no_time(tmp_path, monkeypatch, closed_port):
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(closed_port)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    began = time.monotonic()
    address, note = find_cluster()
    assert address is None
    assert f"names {closed_port}, where nothing answers" in note
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
def test_the_address_file_of_a_live_cluster_is_used(tmp_path, monkeypatch, head, variable):
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(head + "\n")
    for name in ("RAY_ADDRESS", "RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    assert find_cluster() == (head, f"joined the Ray cluster at {head}")


def test_the_places_of_the_address_file_are_rays_own_then_the_others(monkeypatch):
    from ray._common.utils import get_default_ray_temp_dir

    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/scratch/job_7")
    first, *others = address_files()
    assert str(first.parent) == get_default_ray_temp_dir() == "/scratch/job_7/ray"
    assert list(map(str, others)) == ["/tmp/ray/ray_current_cluster"]
    monkeypatch.setenv("RAY_TMPDIR", "/ray_s")
    assert str(address_files()[0].parent) == get_default_ray_temp_dir() == "/ray_s/ray"


def test_the_environment_goes_before_the_file(tmp_path, monkeypatch, head):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("RAY_ADDRESS", head)
    assert find_cluster()[0] == head


@pytest.mark.usefixtures("one_place")
def test_a_service_that_took_the_port_of_a_dead_cluster_is_not_joined(
    tmp_path, monkeypatch, web_server
):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("RAY_ADDRESS", web_server)
    _, note = find_cluster()
    assert f"RAY_ADDRESS names {web_server}, where no Ray cluster answers" in note


def test_a_proxy_is_not_asked_for_the_cluster(monkeypatch, head, guarded_head, closed_port):
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, f"http://{closed_port}")
    monkeypatch.setenv("no_proxy", "")
    assert asks_for_token(guarded_head)
    assert not asks_for_token(head)


def test_what_is_no_head_is_named_and_not_waited_for(web_server, other_service, listening):
    began = time.monotonic()
    for address, patience_s in ((web_server, 9.0), (other_service, 9.0), (listening, 0.3)):
        with pytest.raises(ClusterError) as refusal:
            asks_for_token(address, patience_s)
        text = str(refusal.value)
        assert f"what listens at {address} is not the head of a Ray cluster" in text
        assert "give the HOST:PORT that `ray start --head` printed" in text
    assert time.monotonic() - began < 12


def test_an_address_of_no_head_ends_before_ray_is_asked(web_server, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "as before")
    with (
        pytest.raises(ClusterError, match="is not the head"),
        connect(web_server, runtime_env=None),
    ):
        raise AssertionError("joined a web server")
    assert os.environ["RAY_AUTH_MODE"] == "as before"


@pytest.mark.parametrize("address", ["local", "auto", "127.0.0.1:1"])
def test_a_home_that_nobody_knows_is_named(monkeypatch, address):
    def unknown():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    refused = pytest.raises(ClusterError, match=r"needs a home directory.*set HOME")
    with refused, connect(address, runtime_env=None):
        raise AssertionError("Ray was started")


@pytest.mark.parametrize("address", ["local", "auto", "127.0.0.1:1"])
def test_python_without_docstrings_is_refused_before_ray_is_imported(address):
    code = f"""
import sys
from cluster.connect import ClusterError, connect
try:
    with connect({address!r}, runtime_env=None):
        pass
except ClusterError as error:
    print(error, "ray" in sys.modules)
"""
    answer = subprocess.run(
        [sys.executable, "-OO", "-c", code], capture_output=True, text=True, check=True
    )
    assert "set PYTHONOPTIMIZE=1 (python -O), or compute without Ray (--inline)" in answer.stdout
    assert answer.stdout.endswith("False\n")


@pytest.mark.slow
def test_what_ray_imports_does_need_them():
    """Once this passes the refusal can go; with one level less it is there."""
    command = [sys.executable, "-OO", "-c", "import ray.tune"]
    assert subprocess.run(command, capture_output=True).returncode == 1
    subprocess.run([sys.executable, "-O", "-c", "import ray.util.state, ray.tune"], check=True)


@pytest.mark.parametrize(("allowed", "cores", "counted"), [({3}, 2, 1), ({0, 1}, 2, None)])
def test_the_cpus_of_a_shell_that_may_use_some_are_those(allowed, cores, counted, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: allowed)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert cpus_of_ours() == counted


def node(name: str, *, alive: bool = True, **resources: float) -> dict:
    return {
        "NodeID": name,
        "Alive": alive,
        "NodeManagerAddress": "127.0.0.1",
        "Resources": resources,
    }


def workers_of(nodes, **options) -> dict[str, int]:
    options = {"workers": None, "cpus_per_worker": 1.0, "gpus_per_worker": 0.0} | options
    return {n.node_id: n.workers for n in plan_nodes(nodes, **options)}


def test_every_alive_node_gets_a_worker_per_slot():
    nodes = [node("a", CPU=2), node("b", CPU=4), node("dead", alive=False, CPU=8), node("c")]
    assert workers_of(nodes) == {"a": 2, "b": 4}
    assert workers_of(nodes, workers=3) == {"a": 2, "b": 1}
    assert workers_of(nodes, cpus_per_worker=2.0) == {"a": 1, "b": 2}


def test_a_fraction_of_a_gpu_makes_several_slots():
    nodes = [node("g", CPU=16, GPU=2), node("cpu", CPU=16)]
    assert workers_of(nodes, gpus_per_worker=0.25) == {"g": 8}
    assert workers_of(nodes, gpus_per_worker=1.0) == {"g": 2}


def test_a_node_without_room_gets_no_worker():
    assert workers_of([node("a", CPU=2)], cpus_per_worker=4, gpus_per_worker=1) == {}


def test_a_cluster_that_asks_for_a_token_this_machine_lacks_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("cluster.connect.asks_for_token", lambda address: True)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    with pytest.raises(ClusterError, match=r"asks for a token and there is none in .*none"):
        set_auth_mode("127.0.0.1:1")


def test_a_token_that_others_can_read_is_refused_with_the_command_that_closes_it(
    tmp_path, monkeypatch
):
    token = tmp_path / "a token"
    token.write_text("secret")
    token.chmod(0o640)
    monkeypatch.setattr("cluster.connect.asks_for_token", lambda address: True)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "as before")
    with pytest.raises(ClusterError) as refusal:
        set_auth_mode("127.0.0.1:1")
    assert f"others may read the token in {token} (its mode is 0640)" in str(refusal.value)
    subprocess.run(str(refusal.value).split("`")[1], shell=True, check=True)
    set_auth_mode("127.0.0.1:1")
    assert os.environ["RAY_AUTH_MODE"] == "token"
