"""Which seeds a study or a search runs on, from what was typed."""

from collections import Counter

from imaging_core.fields import ConfigError
from sweeps.engine.study import Request, Study

MOST_SEEDS = 10_000
"""More replicates than anybody has use for: a larger count is a seed, or a slip."""
LARGEST_SEED = 2**63 - 1  # the ledger's column of seeds has 64 bits
FEWEST_OF_A_RACE = 6  # the exact test of fewer pairs decides nothing, however large the effect


def seeds_of(study: Study, request: Request) -> tuple[int, ...]:
    """The seeds that are asked for: of a race (`--until decided`) the most that it may use.

    Raises:
        ConfigError: see `parse_seeds`, or a race whose options do not fit.
    """
    if request.until is None:
        if request.most_seeds is not None:
            raise ConfigError("--max-seeds belongs to a race; write --until decided beside it")
        return parse_seeds(request.seeds, study.seeds)
    if request.until != "decided":
        raise ConfigError(f'--until must be decided, got "{request.until}"')
    if request.seeds is not None:
        raise ConfigError(
            f'--until decided chooses the seeds, got --seeds "{request.seeds}"; leave it out, or '
            "write --max-seeds N"
        )
    most = study.most_seeds if request.most_seeds is None else request.most_seeds
    if not FEWEST_OF_A_RACE <= most <= MOST_SEEDS:
        raise ConfigError(
            f"--max-seeds must be from {FEWEST_OF_A_RACE} to {MOST_SEEDS}, got {most}"
        )
    return tuple(range(most))


def parse_seeds(text: str | None, default: int, option: str = "--seeds") -> tuple[int, ...]:
    """`"5"` → seeds 0..4; `"0,1,7"` → these, `"7,"` → this one; None → `default` many.

    Args:
        option: what the user calls it, for the message.

    Raises:
        ConfigError: a count below 1 or above MOST_SEEDS, a seed that is negative, too large or
            there twice, or no number.
    """
    if text is None:
        return tuple(range(default))
    is_list = "," in text
    try:
        numbers = [int(part) for part in text.removesuffix(",").split(",")]
    except ValueError:
        raise ConfigError(
            f'{option} takes a count ("5"), a list ("0,1,7") or one seed ("7,"), got "{text}"'
        ) from None
    if not is_list:
        if numbers[0] < 1:
            raise ConfigError(f"{option} must be a count of at least 1, got {numbers[0]}")
        if numbers[0] > MOST_SEEDS:
            raise ConfigError(
                f"{option} must be a count of at most {MOST_SEEDS}, got {numbers[0]}; for the seed "
                f'of that number alone write "{numbers[0]},"'
            )
        return tuple(range(numbers[0]))
    if duplicates := sorted(n for n, count in Counter(numbers).items() if count > 1):
        raise ConfigError(
            f"{option} lists {', '.join(map(str, duplicates))} more than once; a seed is one "
            "replicate and counts once"
        )
    if min(numbers) < 0:
        raise ConfigError(f"{option} must not be negative, got {min(numbers)}")
    if max(numbers) > LARGEST_SEED:
        raise ConfigError(f"{option} must be at most {LARGEST_SEED}, got {max(numbers)}")
    return tuple(numbers)
