"""How a cluster is found: dead addresses are noticed at once and said, never waited for."""

import os
import socket
import subprocess
import time

import pytest

from cluster.connect import ClusterError, find_cluster, reachable, speak_as_asked
from cluster.fleet import plan_nodes


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"127.0.0.1:{port}"


def test_reachable_tells_a_listening_port_from_a_closed_one(listening, closed_port):
    assert reachable(listening)
    assert not reachable(closed_port)
    assert not reachable("no port here")


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


def test_the_address_file_of_a_live_cluster_is_used(tmp_path, monkeypatch, listening):
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(listening + "\n")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert find_cluster() == (listening, f"joined the Ray cluster at {listening}")


def test_the_environment_goes_before_the_file(tmp_path, monkeypatch, listening):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("RAY_ADDRESS", listening)
    assert find_cluster()[0] == listening


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
        speak_as_asked("127.0.0.1:1")


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
        speak_as_asked("127.0.0.1:1")
    assert f"others may read the token in {token} (its mode is 0640)" in str(refusal.value)
    subprocess.run(str(refusal.value).split("`")[1], shell=True, check=True)
    speak_as_asked("127.0.0.1:1")
    assert os.environ["RAY_AUTH_MODE"] == "token"
