"""Wait until the Ray cluster at RAY_ADDRESS has so many nodes.

python cluster/launch/wait_for_nodes.py 4
"""

import logging
import os
import sys
import time

import ray

from cluster.connect import reachable

TIMEOUT_S = 300.0
POLL_S = 2.0


def main(wanted: int) -> None:
    """Return once `wanted` nodes are alive; exit with a message after TIMEOUT_S."""
    address = os.environ["RAY_ADDRESS"]
    deadline = time.monotonic() + TIMEOUT_S
    alive = 0
    while alive < wanted:
        if time.monotonic() > deadline:
            raise SystemExit(
                f"{alive} of {wanted} nodes at {address} after {TIMEOUT_S:.0f} s; see the log of "
                "the steps that start Ray"
            )
        if ray.is_initialized():
            alive = sum(node["Alive"] for node in ray.nodes())
        elif reachable(address):
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            continue
        time.sleep(POLL_S)


if __name__ == "__main__":
    main(int(sys.argv[1]))
