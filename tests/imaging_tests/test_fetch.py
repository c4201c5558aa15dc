"""Data at a URI: fetched once, whole, resumed; on moto's S3 where the store matters."""

import boto3
import numpy as np
import pytest
from PIL import Image
from s3_server import CREDENTIALS, s3_server

from imaging_core.datasets import FetchError, fetch, load, registry
from imaging_core.datasets.fetch import fetched
from imaging_core.datasets.mura import at_uri
from imaging_core.fields import ConfigError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDRL_IMAGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tree(tmp_path):
    """A `folder` dataset of 12 images."""
    root, lines = tmp_path / "far" / "hips", ["path,label,group,split"]
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(
            root / "images" / f"{i}.png"
        )
        lines.append(f"images/{i}.png,{'ab'[i % 2]},g{i},{('train', 'val', 'test')[i // 4]}")
    (root / "manifest.csv").write_text("\n".join(lines) + "\n")
    return root


def everything(_name):
    return True


def times(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_only_what_changed_comes_again_and_what_went_goes(tree, cache, monkeypatch):
    brought, real = [], fetch._bring

    def bring(store, missing, files):
        brought.append(sorted(path.name for path in missing))
        real(store, missing, files)

    monkeypatch.setattr(fetch, "_bring", bring)
    uri = tree.as_uri()
    place = fetched(uri, {}, everything)
    assert sorted(p.relative_to(place) for p in place.rglob("*")) == sorted(
        p.relative_to(tree) for p in tree.rglob("*")
    )
    assert fetched(uri, {}, everything) == place
    assert len(brought) == 1
    (tree / "images" / "3.png").write_bytes((tree / "images" / "4.png").read_bytes())
    (tree / "images" / "5.png").unlink()
    fetched(uri, {}, everything)
    assert brought[1:] == [["3.png"]]
    assert not (place / "images" / "5.png").exists()


def test_a_killed_fetch_goes_on_inside_a_file(tmp_path, cache, monkeypatch):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "big").write_bytes(bytes(range(256)) * 100)
    monkeypatch.setattr(fetch, "CHUNK", 1000)
    real, asked = fetch._chunks, []

    def torn(stream):
        for number, chunk in enumerate(real(stream)):
            if number == 7:
                raise OSError("connection reset")
            yield chunk

    monkeypatch.setattr(fetch, "_chunks", torn)
    uri = (tmp_path / "far").as_uri()
    with pytest.raises(FetchError, match="connection reset"):
        fetched(uri, {}, everything)
    monkeypatch.setattr(fetch, "_chunks", lambda s: asked.append(s.tell()) or real(s))
    place = fetched(uri, {}, everything)
    assert asked == [7000]
    assert (place / "big").read_bytes() == bytes(range(256)) * 100


def test_a_file_of_another_length_than_listed_is_no_data(tmp_path, cache, monkeypatch):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "x").write_bytes(b"12345")
    monkeypatch.setattr(fetch, "_chunks", lambda stream: [b"123"])
    with pytest.raises(FetchError, match="must have 5 bytes as listed"):
        fetched((tmp_path / "far").as_uri(), {}, everything)
    assert times(cache / "fetched").keys() == {*(cache / "fetched").glob("*.lock")}


def test_what_cannot_be_fetched_is_refused_in_words(tmp_path, cache, monkeypatch):
    with pytest.raises(ConfigError, match="must be a file or a folder, "):
        fetched((tmp_path / "nothing").as_uri(), {}, everything)
    with pytest.raises(ConfigError, match=r"a URI that pyarrow\.fs knows"):
        fetched("ftp://host/x", {}, everything)
    monkeypatch.setenv("MEDRL_IMAGE_CACHE", "off")
    with pytest.raises(ConfigError, match="data at a URI needs the cache"):
        fetched(tmp_path.as_uri(), {}, everything)


@pytest.mark.parametrize(
    ("uri", "part"),
    [("s3://b/MURA-v1.1", "wrist"), ("s3://b/MURA-v1.1/XR_WRIST", None)],
)
def test_a_body_part_needs_its_own_images_only(uri, part):
    root, inside, wanted = at_uri(uri, {} if part is None else {"part": part})
    assert root == "s3://b/MURA-v1.1"
    assert inside == ("" if part else "XR_WRIST")
    assert wanted("train_image_paths.csv")
    assert wanted("train/XR_WRIST/patient00001/study1_positive/image1.png")
    assert not wanted("train/XR_HAND/patient00001/study1_positive/image1.png")


@pytest.mark.slow
def test_two_nodes_each_fetch_once_from_s3_and_agree(tree, tmp_path, monkeypatch):
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with s3_server() as address:
        s3 = boto3.client("s3", endpoint_url=f"http://{address}")
        s3.create_bucket(Bucket="scans")
        for path in tree.rglob("*"):
            if path.is_file():
                s3.upload_file(str(path), "scans", f"hips/{path.relative_to(tree).as_posix()}")
        here = load("folder", f"{tree}?size=8")
        uri = f"s3://scans/hips?scheme=http&endpoint_override={address}&size=8"
        seen = []
        for node in ("one", "two"):
            monkeypatch.setenv("MEDRL_IMAGE_CACHE", str(tmp_path / node))
            for _ in range(2):
                registry._loaded.clear()
                assert load("folder", uri).fingerprint == here.fingerprint
                seen.append(times(tmp_path / node))
        assert seen[0] == seen[1]
        assert seen[2] == seen[3]
        assert not {*seen[0]} & {*seen[2]}
        s3.delete_object(Bucket="scans", Key="hips/manifest.csv")
        registry._loaded.clear()
        with pytest.raises(Exception, match=r"must hold a manifest\.csv"):
            load("folder", uri)
