"""Networks beside their cells: stored by content, checked when they are read."""

import numpy as np
import pytest

from sweeps.ledger.files import Store
from sweeps.ledger.schema import LedgerError
from sweeps.ledger.weights import kept_keys, read_weights, write_weights

ABOUT = {"classes": ("a", "b"), "channels": 1, "size": (16, 24)}


def arrays(value=1.0):
    return {"classifier/w": np.full((2, 3), value, np.float32), "classifier/n": np.array(7)}


def test_what_was_written_is_read(tmp_path):
    store = Store(tmp_path)
    size = write_weights(store, "k1", arrays(), **ABOUT)
    said, found = read_weights(store, "k1")
    assert (said.classes, said.channels, said.size, said.bytes) == (("a", "b"), 1, (16, 24), size)
    assert found.keys() == arrays().keys()
    assert all(np.array_equal(found[name], a) for name, a in arrays().items())
    assert found["classifier/n"].shape == ()


def test_equal_networks_are_one_file(tmp_path):
    store = Store(tmp_path)
    for key, value in (("k1", 1.0), ("k2", 1.0), ("k3", 2.0)):
        write_weights(store, key, arrays(value), **ABOUT)
    assert len(list(store.names("weights", ".safetensors"))) == 2
    assert kept_keys(store) == {"k1", "k2", "k3"}


def test_what_is_absent_or_damaged_is_named(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(LedgerError, match="of cell k1 were not kept"):
        read_weights(store, "k1")
    write_weights(store, "k1", arrays(), **ABOUT)
    (file,) = store.names("weights", ".safetensors")
    content = store.read(f"weights/{file}")
    store.write(f"weights/{file}", content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(LedgerError, match="its content is not what its name says"):
        read_weights(store, "k1")
    store.delete(f"weights/{file}")
    with pytest.raises(LedgerError, match="is not there"):
        read_weights(store, "k1")
    store.write("weights/k1.json", b"{}")
    with pytest.raises(LedgerError, match="is damaged"):
        read_weights(store, "k1")
