"""What ``doctor`` found: a line for each check."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import NoReturn

from attrs import define

from .failures import message_of, said_by
from .output import Output
from .printing import printable


class StepFailedError(Exception):
    """A check failed, and those after it make no sense."""


@define
class Findings:
    """Prints a line for each check as soon as it is done."""

    output: Output
    failed: int = 0

    def ok(self, check: str, found: str) -> None:
        """Print that a check found nothing wrong."""
        self._print("ok", check, found, "")

    def fail(self, check: str, found: object, advice: str) -> None:
        """Print what is wrong, and what to do about it."""
        self.failed += 1
        said = str(found)
        if isinstance(found, Exception):
            said = said_by(found) if advice else message_of(found)
        self._print("FAIL", check, said, advice)

    def stop(self, check: str, found: object, advice: str) -> NoReturn:
        """The same, where the checks after it make no sense. Raises StepFailedError."""
        self.fail(check, found, advice)
        raise StepFailedError

    @contextmanager
    def needed(self, check: str, advice: Mapping[type[Exception], str]) -> Generator[None]:
        """``stop`` if this block raises one of the errors for which there is ``advice``."""
        try:
            yield
        except tuple(advice) as error:
            self.stop(check, error, next(each for kind, each in advice.items() if isinstance(error, kind)))

    def note(self, check: str, found: str) -> None:
        """Print what is worth knowing and no failure: an answer, or a matter of taste."""
        self._print("note", check, found, "")

    def skip(self, check: str, why: str) -> None:
        """Print that a check was not made."""
        self._print("skip", check, why, "")

    def _print(self, result: str, check: str, found: str, advice: str) -> None:
        members = {"check": check, "result": result.lower(), "found": found} | ({"do": advice} if advice else {})
        self.output.done(f"{result:<4}  {check}: {printable(found)}{f'. {advice}' if advice else ''}", **members)
