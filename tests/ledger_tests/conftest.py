"""An object store: moto's S3 server on loopback, found by the usual AWS variables."""

import uuid

import pytest

from sweeps.ledger import lock as lock_module
from sweeps.ledger.files import Store


@pytest.fixture(scope="module")
def server():
    from moto.server import ThreadedMotoServer  # here: few tests need it, and it takes a second

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def variables(server, monkeypatch) -> dict[str, str]:
    """What a user sets for a store that is not Amazon's own."""
    values = {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return values


@pytest.fixture
def client(variables):
    import boto3

    return boto3.client("s3", endpoint_url=variables["AWS_ENDPOINT_URL"])


@pytest.fixture
def bucket(client) -> str:
    name = f"b{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=name)
    return name


@pytest.fixture
def store(bucket) -> Store:
    return Store(f"s3://{bucket}/studies/one")


@pytest.fixture
def quick(monkeypatch):
    """The beat, forty times faster."""
    monkeypatch.setattr(lock_module, "BEAT_S", 0.1)
    monkeypatch.setattr(lock_module, "STILL_S", 0.8)
    monkeypatch.setattr(lock_module, "SETTLE_S", 0.3)
