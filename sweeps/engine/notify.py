"""`--notify URL`: one message when a run has ended, however it ended (apprise knows the services).

    --notify json://host/path      --notify mailto://user:password@host      --notify slack://…

A message that does not arrive is one warning line and changes nothing else.
"""

from collections.abc import Callable, Sequence

from imaging_core.fields import ConfigError
from sweeps.exits import OK, SOME_FAILED, USAGE

INSTALL = "pip install 'medrl-sweeps[notify]', or pip install apprise"
WORDS = {
    OK: "every cell is there",
    USAGE: "bad input, nothing was started",
    SOME_FAILED: "some cells failed, or it was cut short",
}


def _service(urls: Sequence[str]):
    try:
        import apprise
    except ImportError:
        raise ConfigError(f"--notify needs the package apprise; {INSTALL}") from None
    service = apprise.Apprise()
    for number, url in enumerate(urls, start=1):
        if not service.add(url):
            scheme = url.partition("://")[0]
            # The rest of a URL may hold a password.
            raise ConfigError(
                f"--notify must be a URL that apprise knows, number {number} is none "
                f'("{scheme}://…"); https://appriseit.com lists them'
            )
    return service


def check(urls: Sequence[str]) -> None:
    """Refuse what could not be told at the end, before anything starts.

    Raises:
        ConfigError: apprise is not installed, or a URL is none of its own.
    """
    if urls:
        _service(urls)


def ending(code: int) -> str:
    """What an exit code means, in a few words."""
    if code > 128:
        return "interrupted; the same command resumes"
    return WORDS.get(code, "it ended with an error")


def tell(
    urls: Sequence[str], study: str, code: int, state: str, warn: Callable[[str], None]
) -> bool:
    """Send that `study` ended with exit code `code`; whether every service took it.

    Args:
        state: what of it is there, in words; may be empty.
        warn: says a line to the user, if a message was not taken.
    """
    if not urls:
        return True
    try:
        service = _service(urls)
        body = f"{ending(code)} (exit code {code})" + (f"; {state}" if state else "")
        sent = bool(service.notify(title=f"{study} has ended", body=body))
        why = "a service did not take it"
    except Exception as error:  # whatever a service of somebody else raises
        sent, why = False, f"{type(error).__name__}: {error}".splitlines()[0]
    if not sent:
        warn(f"the message of the end was not sent ({why}); nothing else is changed by that")
    return sent


def tell_end(urls: Sequence[str], study: str, code: int, count: Callable[[], str] | None) -> None:
    """`tell`, of a run that was started; a warning goes to stderr.

    Args:
        count: says how many cells are committed; None: nothing was started, and nobody is told.
    """
    if not urls or count is None:
        return
    from rich.console import Console
    from rich.markup import escape

    def warn(text: str) -> None:
        Console(stderr=True).print(f"[yellow]warning:[/] {escape(text)}", soft_wrap=True)

    try:
        state = count()
    except Exception:  # of a disk that is gone, say: the end is told all the same
        state = ""
    tell(urls, study, code, state, warn)
