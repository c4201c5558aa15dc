import pytest

from imaging_core.datasets import load, names
from imaging_core.datasets.folder import Options as FolderOptions
from imaging_core.datasets.options import split_query
from imaging_core.fields import ConfigError, build


def test_a_query_is_taken_off_the_path():
    assert split_query("/data/x?size=64&colour=rgb") == ("/data/x", {"size": "64", "colour": "rgb"})
    assert split_query("/data/x") == ("/data/x", {})
    assert split_query(None) == (None, {})
    assert split_query("?size=64") == (None, {"size": "64"})


def test_a_query_that_is_none_is_refused():
    with pytest.raises(ConfigError, match='must be name=value, joined by "&", got "size"'):
        split_query("/data/x?size")
    with pytest.raises(ConfigError, match='option "size" must be given once'):
        split_query("/data/x?size=1&size=2")


def test_options_are_read_as_their_types():
    options = build(FolderOptions, {"size": "256x128", "shares": "7:1:2", "classes": "b,a"})
    assert options.size == (256, 128)
    assert options.shares == pytest.approx((0.7, 0.1, 0.2))
    assert options.classes == ("b", "a")
    assert build(FolderOptions, {"size": "64"}).size == (64, 64)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("sise=64", 'options of folder: unknown field "sise"; did you mean "size"?'),
        ("size=big", r"size: a size is pixels \(64\) or HEIGHTxWIDTH \(256x128\), got 'big'"),
        ("size=0", "size: a size is pixels"),
        ("resize=bilinaer", 'resize must be one of area, .*; did you mean "bilinear"'),
        ("shares=7:3", "shares: shares are three positive numbers"),
        ("colour=red", 'colour must be one of grey, rgb, got "red"'),
    ],
)
def test_bad_options_are_refused_before_any_file_is_read(query, text):
    with pytest.raises(ConfigError, match=text):
        load("folder", f"/no/such/place?{query}")


def test_a_dataset_without_options_says_so():
    with pytest.raises(ConfigError, match='ihc-colon takes no options, got "size"'):
        load("ihc-colon", "?size=64")


@pytest.mark.parametrize("name", ["folder", "mura", "voc", "medmnist", "pcam"])
def test_a_path_must_be_given_and_exist(name, tmp_path):
    with pytest.raises(
        ConfigError, match=f"{name} needs a (folder|file); write --data {name}:PATH"
    ):
        load(name)
    with pytest.raises(ConfigError, match=f"path of {name} must be a (folder|file), .*is none"):
        load(name, str(tmp_path / "absent"))


def test_the_list_of_names():
    assert set(names()) == {
        "ihc-colon",
        "phantom-xray",
        "folder",
        "mura",
        "voc",
        "medmnist",
        "pcam",
    }
