import numpy as np
import pytest
from PIL import Image

from imaging_core.datasets import DataError
from imaging_core.datasets.images import read_images

GREY = {"size": (10, 12), "resize": "bilinear", "colour": "grey"}


def test_pixels_come_back_as_stored(tmp_path, write_image):
    wanted = [write_image(tmp_path / f"{i}.png", i) for i in range(3)]
    out = read_images(tmp_path, ["2.png", "0.png", "1.png"], **GREY)
    assert out.dtype == np.uint8
    assert np.array_equal(out[:, 0], np.stack([wanted[2], wanted[0], wanted[1]]))


@pytest.mark.parametrize("suffix", ["png", "PNG", "bmp", "tif", "tiff"])
def test_formats(tmp_path, write_image, suffix):
    pixels = write_image(tmp_path / f"x.{suffix}", 0)
    assert np.array_equal(read_images(tmp_path, [f"x.{suffix}"], **GREY)[0, 0], pixels)


def test_jpeg_and_colour(tmp_path):
    Image.new("RGB", (12, 10), (200, 100, 50)).save(tmp_path / "x.jpg", quality=95)
    rgb = read_images(tmp_path, ["x.jpg"], size=(10, 12), resize="area", colour="rgb")
    assert rgb.shape == (1, 3, 10, 12)
    assert np.abs(rgb[0].mean(axis=(1, 2)) - (200, 100, 50)).max() < 3
    grey = read_images(tmp_path, ["x.jpg"], **GREY)
    assert abs(grey.mean() - (0.299 * 200 + 0.587 * 100 + 0.114 * 50)) < 2


def test_shrinking_by_area_is_the_mean(tmp_path, write_image):
    pixels = write_image(tmp_path / "x.png", 0, size=(12, 8)).astype(float)
    out = read_images(tmp_path, ["x.png"], size=(4, 6), resize="area", colour="grey")
    means = pixels.reshape(4, 2, 6, 2).mean(axis=(1, 3))
    assert np.abs(out[0, 0] - means).max() <= 1  # it rounds after each axis
    nearest = read_images(tmp_path, ["x.png"], size=(4, 6), resize="nearest", colour="grey")
    assert np.abs(nearest[0, 0] - means).max() > 5


def test_every_bad_file_is_listed_with_the_rule_it_breaks(tmp_path, write_image, write_bomb):
    root, outside = tmp_path / "data", tmp_path / "outside"
    write_image(root / "good.png", 0)
    write_image(outside / "secret.png", 1)
    (root / "empty.png").write_bytes(b"")
    (root / "text.png").write_text("no image")
    good = (root / "good.png").read_bytes()
    (root / "torn.png").write_bytes(good[: len(good) // 2])
    (root / "flipped.png").write_bytes(good[:45] + bytes(b ^ 0x55 for b in good[45:60]) + good[60:])
    (root / "link.png").symlink_to(outside / "secret.png")
    (root / "folder.png").mkdir()
    Image.new("L", (4, 4)).save(root / "really.jpg", format="PNG")
    Image.new("L", (4, 4)).save(root / "animation.gif")
    (root / "gif.png").write_bytes((root / "animation.gif").read_bytes())
    Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16)).save(root / "deep.png")
    pages = [Image.new("L", (4, 4), shade) for shade in (0, 99)]
    pages[0].save(root / "pages.tif", save_all=True, append_images=pages[1:])
    write_bomb(root / "bomb.png", 10_000)
    write_bomb(root / "huge.png", 30_000)
    rules = {
        "empty.png": "the file must not be empty (0 bytes)",
        "text.png": "the content must be a PNG, JPEG, TIFF or BMP image",
        "torn.png": "it must decode without errors",
        "flipped.png": "it must decode without errors",
        "link.png": "links must stay inside the dataset's folder",
        "folder.png": "it must be a file",
        "really.jpg": "the content must be what the name says, it is PNG",
        "animation.gif": "the name must end in one of .bmp, .jpeg, .jpg, .png, .tif, .tiff",
        "gif.png": "the content must be a PNG, JPEG, TIFF or BMP image",
        "deep.png": "it must have 8 bits per channel, its mode is I;16",
        "pages.tif": "it must hold one picture, it holds 2",
        "bomb.png": "it must have at most 89478485 pixels (decompression bomb)",
        "huge.png": "it must have at most 89478485 pixels (decompression bomb)",
        "absent.png": "the file must exist",
        "../outside/secret.png": "the path must be relative and stay inside",
        str(outside / "secret.png"): "the path must be relative and stay inside",
    }
    with pytest.raises(DataError) as error:
        read_images(root, ["good.png", *rules], **GREY)
    message = str(error.value)
    assert f"{len(rules)} of {len(rules) + 1} images break a rule" in message
    lines = message.splitlines()[1:]
    assert len(lines) == len(rules)
    for line, (name, rule) in zip(lines, rules.items(), strict=True):
        assert line.startswith(f"  {name}: {rule}"), line


def test_a_link_inside_the_folder_is_fine(tmp_path, write_image):
    pixels = write_image(tmp_path / "x.png", 0)
    (tmp_path / "y.png").symlink_to("x.png")
    assert np.array_equal(read_images(tmp_path, ["y.png"], **GREY)[0, 0], pixels)


def test_decoded_pixels_are_kept_until_a_file_changes(tmp_path, write_image, monkeypatch):
    names = [f"{i}.png" for i in range(256)]
    for i, name in enumerate(names):
        write_image(tmp_path / "data" / name, i)
    monkeypatch.setenv("MEDRL_IMAGE_CACHE", str(tmp_path / "cache"))
    opened = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda *a, **k: opened.append(1) or real(*a, **k))

    first = read_images(tmp_path / "data", names, **GREY)
    assert len(opened) == 256
    assert np.array_equal(read_images(tmp_path / "data", names, **GREY), first)
    assert len(opened) == 256
    read_images(tmp_path / "data", names, **{**GREY, "resize": "area"})
    assert len(opened) == 512
    changed = write_image(tmp_path / "data" / "7.png", 1000, size=(12, 10))
    again = read_images(tmp_path / "data", names, **GREY)
    assert len(opened) == 768
    assert np.array_equal(again[7, 0], changed)


def test_a_torn_or_unwritable_cache_does_no_harm(tmp_path, write_image, monkeypatch):
    names = [f"{i}.png" for i in range(256)]
    for i, name in enumerate(names):
        write_image(tmp_path / "data" / name, i)
    expected = read_images(tmp_path / "data", names, **GREY)
    monkeypatch.setenv("MEDRL_IMAGE_CACHE", str(tmp_path / "cache"))
    read_images(tmp_path / "data", names, **GREY)
    (kept,) = (tmp_path / "cache").glob("*.u8")
    kept.write_bytes(kept.read_bytes()[:1000])
    assert np.array_equal(read_images(tmp_path / "data", names, **GREY), expected)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEDRL_IMAGE_CACHE", str(tmp_path / "file" / "below"))
    assert np.array_equal(read_images(tmp_path / "data", names, **GREY), expected)
