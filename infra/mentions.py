"""The ways in which Orchard, Prefect and MLflow write a tenant down, as one pattern that PostgreSQL and Python read
alike.

An id may be a word (`as`, `us`) or another tenant's use case, so the bare word says nothing. What counts is the form:
`tenant:as`, `as.demand`, `tenant_as`, `"tenant": "as"`, a path through its own folder, the name of one of its runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from infra.inbox import REJECTED
from infra.lake.location import Location
from infra.places import places, silo_url
from infra.settings import Settings
from tasks.domain.contract import Frozen
from tasks.domain.names import Purpose
from tasks.domain.tenant import Isolation, Tier

BEFORE, AFTER = r"(?<![A-Za-z0-9_-])", r"(?![A-Za-z0-9_-])"
"""No part of a longer id: `acme` is not in `acme-foods`."""

QUOTE = r"""\\?["']"""
"""Also where a text with quotes is quoted itself."""

COMMANDS = (
    r"orchard (?:models|results|receipts|quarantine|uploads?|run|verify-isolation"
    r"|(?:keys|tenants|releases|audit) [a-z-]+)"
)
KINDS = "pipeline|ingestion|training|promotion|scoring|monitoring|refresh|pull"
DISTINCT_LETTERS = 6
"""A name of so many letters is looked for as it is; a shorter one may be any word, and is looked for as a value."""


class Leaver(Frozen):
    """A tenant as those need to know it who look for it when its own rows are gone.

    Attributes:
        use_cases: ids of all that it ever had, those that are switched off included.
        secrets: names of Prefect's blocks that hold its secrets.
    """

    tenant: str
    name: str
    tier: Tier
    isolation: Isolation
    use_cases: tuple[str, ...]
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mentions:
    """How one tenant is written down.

    Attributes:
        folders: its own folders, as paths and as URLs.
        other_ids, other_names: those of all other tenants, and their use cases' ids among the former's.
    """

    leaver: Leaver
    folders: tuple[str, ...]
    other_ids: frozenset[str]
    other_use_cases: frozenset[str]
    other_names: frozenset[str]

    @cached_property
    def pattern(self) -> str:
        """The regular expression of all forms."""
        return "|".join((*self._forms(), *self._forms_of_name()))

    @cached_property
    def pattern_of_id(self) -> str:
        """The same without its name, which may be a word: what others write of themselves may have it."""
        return "|".join(self._forms())

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self.pattern)

    @cached_property
    def in_logs(self) -> re.Pattern[bytes]:
        """The same for logs and reports, where an id also stands alone: in quotes, in a cell, beside an arrow. One that
        is no word of any language counts wherever it stands."""
        this = re.escape(self.leaver.tenant)
        alone = [rf"{QUOTE}{this}{QUOTE}", f">{this}<", rf"{BEFORE}{this} →", rf"→ {this}{AFTER}"]
        bare = [rf"{BEFORE}{this}{AFTER}"] if self._is_distinct else alone
        return re.compile("|".join([self.pattern, *bare]).encode())

    @property
    def _is_distinct(self) -> bool:
        tenant = self.leaver.tenant
        known = tenant in {*self.other_use_cases, *self.leaver.use_cases}
        return not known and (len(tenant) >= DISTINCT_LETTERS or not tenant.isalpha())

    @property
    def words(self) -> tuple[str, ...]:
        """A text without any of these holds no mention."""
        return (self.leaver.tenant, *self._spellings)

    @property
    def _spellings(self) -> tuple[str, ...]:
        """Its name, and how JSON may write it."""
        return tuple(dict.fromkeys((self.leaver.name, json.dumps(self.leaver.name)[1:-1])))

    def found_in(self, text: str) -> bool:
        """Whether the text names the tenant."""
        return any(word in text for word in self.words) and self._compiled.search(text) is not None

    def owns(self, name: str) -> bool:
        """Whether a name that begins with a tenant's id and a hyphen, such as that of a folder of work or of a block,
        is this tenant's: `acme-foods-pull` is not `acme`'s where there is `acme-foods`."""
        known = [each for each in (self.leaver.tenant, *self.other_ids) if name == each or name.startswith(f"{each}-")]
        return bool(known) and max(known, key=len) == self.leaver.tenant

    def names_path(self, path: str) -> bool:
        """Whether a part of a path is this tenant's: its id, with or without an ending, or a form of it."""
        return any(part.partition(".")[0] == self.leaver.tenant or self.found_in(part) for part in path.split("/"))

    def _forms(self) -> Iterator[str]:
        this = re.escape(self.leaver.tenant)
        yield rf"""tenant(?:_id)?{QUOTE}?(?:[:=.]\s?{QUOTE}?|\s{QUOTE}){this}{AFTER}"""
        yield rf"(?<![A-Za-z0-9])(?:tenant[-_]|predictions_){this}{AFTER}"
        if self.leaver.tenant not in {*self.other_use_cases, *self.leaver.use_cases}:
            yield rf"""(?<![A-Za-z_])id{QUOTE}?[:=]\s?{QUOTE}{this}{QUOTE}"""
        yield rf"{COMMANDS} {this}{AFTER}"
        yield rf"\(tenant(?:, \w+)*\)=\({this}[,)]"  # PostgreSQL, of a key that exists or does not
        yield rf"Failing row contains \({this}[,)]"
        yield rf"{BEFORE}{this} (?:pipeline|ingestion) [0-9a-f]{{8}}{AFTER}"
        yield rf"{BEFORE}{this}--"  # artifacts
        yield rf"runs of tenant {this} alone"
        for folder in self.folders:
            yield re.escape(folder) + AFTER
        if self.leaver.use_cases:
            use_case = f"(?:{'|'.join(map(re.escape, self.leaver.use_cases))})"
            yield rf"{BEFORE}{this}\.{use_case}{AFTER}"
            yield rf"{BEFORE}{this}--?{use_case}-(?:receipt|partitions){AFTER}"
            yield rf"{BEFORE}{this} {use_case} (?:{KINDS}) [0-9]+{AFTER}"
            yield rf"{BEFORE}{this}/{use_case}/(?:{'|'.join(Purpose)})/"
        for secret in self.leaver.secrets:
            yield rf"{BEFORE}{re.escape(secret)}{AFTER}"

    def _forms_of_name(self) -> Iterator[str]:
        if self.leaver.name not in self.other_names:
            name = f"(?:{'|'.join(map(re.escape, self._spellings))})" + "".join(self._longer())
            if sum(letter.isalpha() for letter in self.leaver.name) >= DISTINCT_LETTERS:
                yield rf"(?<!\w){name}(?!\w)"
            else:
                yield rf"(?:name{QUOTE}?[:=]\s?{QUOTE}|## ){name}(?:{QUOTE}|:)"

    def _longer(self) -> Iterator[str]:
        """Conditions that the name is not part of another tenant's: `Acme` is not in `Acme Foods`."""
        for other in self.other_names:
            before, found, after = other.partition(self.leaver.name)
            if found and after:
                yield f"(?!{re.escape(after)})"
            elif found and before:
                yield f"(?<!{re.escape(other)})"


def mentions_of(settings: Settings, leaver: Leaver, others: Sequence[Leaver]) -> Mentions:
    """How that tenant is written down in an Orchard with these settings and these other tenants."""
    return Mentions(
        leaver,
        tuple(dict.fromkeys(_folders(settings, leaver.tenant))),
        frozenset(other.tenant for other in others),
        frozenset(use_case for other in others for use_case in other.use_cases),
        frozenset(other.name for other in others),
    )


def _folders(settings: Settings, tenant: str) -> Iterator[str]:
    """The folders that it has in any isolation: it may have been moved."""
    own = [
        location
        for isolation in (Isolation.POOL, Isolation.SILO)
        for location in places(settings, tenant, isolation).all()
    ]
    silo = Location.of(silo_url(settings, tenant), settings.lake_options)
    inbox = Location.of(settings.inbox_url, settings.lake_options)
    for location in (*own, silo, inbox.child(tenant), inbox.child(REJECTED, tenant)):
        yield location.url
        yield location.root
