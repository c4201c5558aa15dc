"""The only room that imports Ray and Optuna. It knows no method, no ledger and no study.

`connect` finds or starts a cluster; `queue` decides who computes what next (no Ray in it); `fleet`
keeps one Ray Train run per node whose workers take work from the queue; `arms` drives the study's
arms as Ray Tune trials whose search is an Optuna study.
"""

import os
from pathlib import Path


def has_token() -> bool:
    """Whether this machine has a token for Ray clusters."""
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or path.is_file()


# Ray 2.60 sends its token to an explicit HOST:PORT only in this mode, which it reads when it is
# first imported: so it is set here, before any module of this room imports it. A cluster without
# tokens ignores the token.
if has_token():
    os.environ.setdefault("RAY_AUTH_MODE", "token")
