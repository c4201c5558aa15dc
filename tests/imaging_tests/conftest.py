import zlib

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def _no_image_cache(monkeypatch):
    """Tests leave nothing in the user's cache; the cache's own tests switch it on."""
    monkeypatch.setenv("MEDRL_IMAGE_CACHE", "off")


@pytest.fixture
def write_image():
    """write_image(path, seed): a real image of noise, different for every seed."""

    def write(path, seed, size=(12, 10), colour="L"):
        shape = (size[1], size[0]) if colour == "L" else (size[1], size[0], 3)
        pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        return pixels

    return write


@pytest.fixture
def write_bomb():
    """write_bomb(path, side): a PNG of a few kilobytes that claims side × side pixels."""

    def chunk(kind, body):
        return (
            len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
        )

    def write(path, side):
        header = side.to_bytes(4, "big") * 2 + bytes((1, 0, 0, 0, 0))
        rows = zlib.compress(bytes(10_000))
        path.write_bytes(
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", header)
            + chunk(b"IDAT", rows)
            + chunk(b"IEND", b"")
        )

    return write
