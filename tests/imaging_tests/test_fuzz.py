"""Whatever text comes: it is read, or refused with a message; nothing else is ever raised."""

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imaging_core.datasets import DataError, load
from imaging_core.datasets.folder import read_manifest
from imaging_core.datasets.voc_annotations import read_annotations
from imaging_core.fields import ConfigError
from sweeps import selection_methods
from sweeps.engine.seeds import parse_seeds
from sweeps.engine.study import Request, apply, expand, place_data

QUICK = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
REFUSED = contextlib.suppress(ConfigError, DataError)
WORDS = st.sampled_from(
    ["path", "label", "group", "split", ",", "\n", '"', "a.png", "..", "/", "nan", "\x00", "é", "7"]
)
TEXT = st.one_of(st.text(max_size=40), st.lists(WORDS, max_size=20).map("".join))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "Annotations").mkdir()
    (folder / "JPEGImages").mkdir()
    (folder / "JPEGImages/a.jpg").write_bytes(b"x")
    return folder


@pytest.mark.long
@QUICK
@given(TEXT, st.booleans())
def test_manifests(place, text, with_header):
    head = "path,label,group\n" if with_header else ""
    (place / "manifest.csv").write_bytes((head + text).encode("utf-8", "surrogatepass"))
    with REFUSED:
        read_manifest(place)
    with REFUSED:
        load("folder", f"{place}?size=8")


@QUICK
@given(st.one_of(st.text(max_size=12), st.floats().map(str), st.integers().map(str)), TEXT)
def test_annotations(place, number, name):
    box = "".join(f"<{s}>{number}</{s}>" for s in ("xmin", "ymin", "xmax", "ymax"))
    text = (
        f"<annotation><size><width>{number}</width><height>9</height></size><object><name>{name}"
        f"</name><bndbox>{box}</bndbox></object></annotation>"
    )
    (place / "Annotations/a.xml").write_bytes(text.encode("utf-8", "surrogatepass"))
    with REFUSED:
        read_annotations(place)


@QUICK
@given(st.one_of(TEXT, st.lists(st.integers(), max_size=4).map(lambda n: ",".join(map(str, n)))))
def test_seeds(text):
    with REFUSED:
        assert min(parse_seeds(text, 5)) >= 0


FIELDS = st.sampled_from(["method", "k_shot", "pool", "data", "learning_rate", "episodes", "x"])


@QUICK
@given(FIELDS, st.one_of(TEXT, st.integers().map(str), st.floats().map(str)))
def test_settings(field, value):
    with REFUSED:
        study, shared = apply(selection_methods.STUDY, Request(settings=(f"{field}={value}",)))
        expand(study, shared, study.data)


@QUICK
@given(st.sampled_from(["folder", "voc", "mura", "medmnist", "pcam", "ihc-colon", ""]), TEXT)
def test_data(name, text):
    with REFUSED:
        place_data(f"{name}:{text}")
        load(name, text)
