"""Data in a bucket, on nodes that share no disk: each brings and decodes them once, and agrees."""

from pathlib import Path

import boto3
import numpy as np
import pytest
from PIL import Image
from s3_server import CREDENTIALS, s3_server
from studies import elsewhere

from sweeps.ledger.read import read_ledger

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(400)]

IMAGES, SIDE = 300, 32  # so many are worth a cache


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    """The `--data` of a folder dataset in moto's S3, and what a process needs to reach it."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with s3_server() as address:
        s3 = boto3.client("s3", endpoint_url=f"http://{address}")
        s3.create_bucket(Bucket="scans")
        rng, lines = np.random.default_rng(0), ["path,label,group,split"]
        for i in range(IMAGES):
            pixels = rng.integers(0, 200, (SIDE, SIDE)) + 50 * (i % 2)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "image.png")
            s3.upload_file(str(tmp_path / "image.png"), "scans", f"hips/{i}.png")
            part = ("train", "val", "test")[i * 3 // IMAGES]
            lines.append(f"{i}.png,{'ab'[i % 2]},g{i},{part}")
        s3.put_object(
            Bucket="scans", Key="hips/manifest.csv", Body="\n".join(lines).encode() + b"\n"
        )
        data = f"folder:s3://scans/hips?scheme=http&endpoint_override={address}&size=32"
        yield data, CREDENTIALS


def files(cache: Path) -> dict[str, int]:
    """Path in a cache → when it was written."""
    return {str(p.relative_to(cache)): p.stat().st_mtime_ns for p in cache.rglob("*")
            if p.is_file() and not p.name.endswith(".lock")}  # fmt: skip


def test_two_nodes_with_disks_of_their_own_each_fetch_and_decode_once(cluster, bucket, tmp_path):
    data, variables = bucket
    caches = {name: tmp_path / name for name in ("driver", "one", "two")}
    for name in ("one", "two"):
        cluster.add(env_vars={**variables, "MEDRL_IMAGE_CACHE": str(caches[name])})

    def run(*arguments: str) -> str:
        answer = elsewhere(
            "--results", tmp_path / "results", "--data", data, "--set", "wait_s=2",
            "--address", cluster.address, *arguments,
            timeout=200, MEDRL_IMAGE_CACHE=str(caches["driver"]), **variables,
        )  # fmt: skip
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return answer.stdout

    run()
    rows = read_ledger(str(tmp_path / "results" / "toy")).cells
    assert rows["status"].tolist() == ["ok"] * 12
    assert rows["node"].nunique() == 2
    assert rows["data_fingerprint"].nunique() == 1
    before = {name: files(cache) for name, cache in caches.items()}
    for there in before.values():
        assert sum(name.endswith(".png") for name in there) == IMAGES
    for cache in caches.values():  # the file's name has its node's own copies in it
        (pixels,) = cache.rglob("*.u8")
        assert pixels.stat().st_size == IMAGES * SIDE * SIDE
    run("--seeds", "3")  # more cells, and nothing is brought or decoded again
    assert {name: files(cache) for name, cache in caches.items()} == before
