"""The exit code of every command of ours, decided here: `code_of` what ended it, or `verdict`.

| code | the command |
|---|---|
| 0 | did what was asked; of a run: every cell is there |
| 1 | met what nobody foresaw, and shows its traceback |
| 2 | was given something that it refuses; nothing was started |
| 3 | left something undone: cells failed, the disk or the store failed, what computes died |
| 128 + n | was ended by signal n (130 SIGINT, 143 SIGTERM, 129 SIGHUP); run it again to resume |
"""

OK, UNFORESEEN, USAGE, SOME_FAILED = 0, 1, 2, 3

EXIT_CODES = (
    "Exit codes: 0 every cell is there; 2 bad input (nothing was started); 3 some cells failed "
    "(the table still comes, with its n), the disk is full, or what computes died; 130/143/129 "
    "interrupted by SIGINT/SIGTERM/SIGHUP (run the same command to resume)."
)

# By name: a ledger is read where neither Ray nor the cores are installed.
_CODES = {
    "ConfigError": USAGE,
    "DataError": USAGE,
    "LedgerError": USAGE,
    "ClusterError": USAGE,
    "ClusterLost": SOME_FAILED,
    "LateCommit": SOME_FAILED,
    "StoreError": SOME_FAILED,
}


def code_of(error: BaseException) -> int:
    """The code of a command that `error` ends; a subclass has its nearest ancestor's."""
    if (number := getattr(error, "number", None)) and type(error).__name__ == "Interrupted":
        return of_signal(number)
    known = (_CODES[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _CODES)
    return next(known, UNFORESEEN)


def of_signal(number: int) -> int:
    """The code of a command that signal `number` ends."""
    return 128 + number


def verdict(*, there: int, wanted: int) -> int:
    """The code of a run that came to its end with `there` of the `wanted` cells."""
    return OK if there == wanted else SOME_FAILED
