"""Which nodes that come to a running study may work for it: those whose versions agree."""

import time
from collections.abc import Mapping
from typing import Any

import ray

from cluster.versions import ANSWER_TIMEOUT_S, ask, compare, name_of, versions_here


class NodeAdmission:
    """Lets nodes into a running study once their versions agree; it never waits for an answer.

    Args:
        checked: ids of nodes that are known to agree.
    """

    def __init__(self, checked: frozenset[str]) -> None:
        self._open = set(checked)
        self._asked: dict[str, tuple[Any, float]] = {}  # node id → its answer, when it was asked
        self._shut: set[str] = set()

    def admits(self, node: Mapping[str, Any]) -> tuple[bool, str]:
        """Whether the node may be used by now, and once a line that says why it may not.

        Args:
            node: as `ray.nodes()` lists it; alive.
        """
        identity = node["NodeID"]
        if identity in self._open:
            return True, ""
        if identity in self._shut:
            return False, ""
        if identity not in self._asked:
            self._asked[identity] = (ask(identity), time.monotonic())
        answer, since = self._asked[identity]
        if not ray.wait([answer], timeout=0)[0]:
            if time.monotonic() - since < ANSWER_TIMEOUT_S:
                return False, ""
            self._shut.add(identity)
            return False, f"{name_of(node)} is not used: it starts no process"
        del self._asked[identity]
        try:
            theirs = {"node": "it", **ray.get(answer)}
        except ray.exceptions.RayError:
            return False, ""  # the node has left, or is asked again
        differences = compare([{"node": "the driver", **versions_here()}, theirs])
        if not differences:
            self._open.add(identity)
            return True, ""
        self._shut.add(identity)
        why = "; ".join(differences)
        return False, f"{name_of(node)} is not used: {why}. Install constraints.txt there"
