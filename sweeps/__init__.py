"""One script per study beside this file; `engine` runs them, `ledger` keeps what they found.

    from sweeps import open_study, run

`sweeps.api` says what both do; it is loaded when it is asked for.
"""

from typing import Any

__all__ = ["open_study", "run"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from sweeps import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
