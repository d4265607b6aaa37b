"""What an attack is, and what can come of it.

An attack is denied only by a refusal of the right kind. One whose preparation broke, or that met an error nobody
foresaw, is an `error` and counts against the proof: a closed door that nobody has tried is no proof.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, NamedTuple

from tasks.domain.contract import Frozen

if TYPE_CHECKING:
    from infra.attacks.scene import Scene

SHOWN = 300
"""Characters of a reason, at most."""


class Outcome(StrEnum):
    """What became of an attempt."""

    DENIED = "denied"
    SUCCEEDED = "succeeded"
    UNPROVEN = "unproven"  # it cannot be tried here, or what answers here cannot refuse it
    ERROR = "error"  # it broke before it could be refused


class Finding(NamedTuple):
    """An outcome and its reason."""

    outcome: Outcome
    why: str


class Attempt(Frozen):
    """One attack, as it went."""

    group: str
    name: str
    what: str
    attacker: str
    victim: str
    outcome: Outcome
    why: str
    seconds: float

    @property
    def got_through(self) -> bool:
        """Whether it counts against the proof."""
        return self.outcome in (Outcome.SUCCEEDED, Outcome.ERROR)


Lake = Literal["local", "s3"]

Run = Callable[["Scene"], Finding]


@dataclass(frozen=True)
class Attack:
    """Something that a tenant could try.

    Attributes:
        what: says it in one sentence that goes on from "the attacker".
        quick: whether it is so cheap and telling that it is tried against every tenant.
        once: whether it is the same whoever attacks whom, so that trying it once is enough.
        on: the kind of lake that it is for; None: any.
    """

    group: str
    name: str
    what: str
    run: Run = field(repr=False)
    quick: bool = False
    once: bool = False
    on: Lake | None = None

    def attempt(self, scene: Scene) -> Attempt:
        """Tries it. Whatever it raises is an error: refusals are caught by the attack itself, which knows the right
        ones."""
        started = time.perf_counter()
        try:
            finding = self.run(scene)
        except Exception as error:
            finding = Finding(Outcome.ERROR, f"{type(error).__name__}: {error}")
        return Attempt(
            group=self.group,
            name=self.name,
            what=self.what,
            attacker=scene.attacker.tenant.id,
            victim=scene.victim.tenant.id,
            outcome=finding.outcome,
            why=one_line(_nameless(finding.why, scene)),
            seconds=round(time.perf_counter() - started, 4),
        )


class Group:
    """Attacks of one kind, in the order in which they are defined."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._attacks: dict[str, Attack] = {}

    def __iter__(self) -> Iterator[Attack]:
        return iter(self._attacks.values())

    def attack(
        self, what: str, *, quick: bool = False, once: bool = False, on: Lake | None = None
    ) -> Callable[[Run], Run]:
        """Makes a function an attack, named like it."""

        def register(run: Run) -> Run:
            self.add(run.__name__.strip("_").replace("_", "-"), what, run, quick=quick, once=once, on=on)
            return run

        return register

    def add(
        self, name: str, what: str, run: Run, *, quick: bool = False, once: bool = False, on: Lake | None = None
    ) -> None:
        """Adds one of several that differ in their technique alone."""
        if name in self._attacks:
            raise ValueError(f"there are two attacks {self.name}/{name}")
        self._attacks[name] = Attack(self.name, name, what, run, quick, once, on)


def denied(why: str) -> Finding:
    return Finding(Outcome.DENIED, why)


def succeeded(why: str) -> Finding:
    return Finding(Outcome.SUCCEEDED, why)


def unproven(why: str) -> Finding:
    return Finding(Outcome.UNPROVEN, why)


def refused(act: Callable[[], object], *by: type[Exception], saying: str = "") -> Finding:
    """Denied when the act raises one of these errors with that text; succeeded when it returns."""
    try:
        result = act()
    except by as error:
        if saying not in str(error):
            raise
        return denied(f"{type(error).__name__}: {error}")
    return succeeded(f"it went through, and returned a {type(result).__name__}")


def all_denied(findings: Iterator[Finding]) -> Finding:
    """The first finding that is no denial; the last denial where there is none."""
    finding = None
    for finding in findings:
        if finding.outcome is not Outcome.DENIED:
            return finding
    if finding is None:
        raise ValueError("nothing was tried")
    return finding


def _nameless(text: str, scene: Scene) -> str:
    """The text with the two tenants' ids left out where they name a thing of theirs: who they were is said beside it,
    and can be taken away there when one of them leaves."""
    for who, tenant in (("attacker", scene.attacker.tenant.id), ("victim", scene.victim.tenant.id)):
        named = rf"(?<=[_/.:='\"-]){re.escape(tenant)}(?![A-Za-z0-9-])|(?<![A-Za-z0-9-]){re.escape(tenant)}(?=[/.'\"-])"
        text = re.sub(named, f"<{who}>", text)
    return text


def one_line(text: str) -> str:
    """The text on one line, cut to what a table has room for; control characters are left out."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    words = " ".join(printable.split())
    return words if len(words) <= SHOWN else f"{words[: SHOWN - 1]}…"
