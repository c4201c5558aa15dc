"""An object store: moto's S3 server on loopback, found by the usual AWS variables."""

import uuid

import pytest
from s3_server import CREDENTIALS, s3_server

from sweeps.ledger import lock as lock_module
from sweeps.ledger.files import Store


@pytest.fixture(scope="module")
def server():
    with s3_server() as address:
        yield f"http://{address}"


@pytest.fixture
def variables(server, monkeypatch) -> dict[str, str]:
    """What a user sets for a store that is not Amazon's own."""
    values = {"AWS_ENDPOINT_URL": server, **CREDENTIALS}
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
