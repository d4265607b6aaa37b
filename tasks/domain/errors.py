"""Everything that can go wrong, as one tree.

OrchardError
├── Retryable                 trying again later may help
│   ├── DatabaseUnavailable
│   ├── StorageUnavailable    includes a full disk
│   ├── Busy                  another run holds this tenant's use case
│   ├── OverBudget            a hard limit was reached; work waits until it is raised, or the month ends
│   └── NotErased             something of a tenant that leaves was found after its removal
└── Permanent                 the same input will fail again
    ├── InvalidDefinition     a tenant, tier or settings file is wrong
    ├── NotFound              unknown tenant, use case, upload, release ...
    ├── UnreadableUpload      the file cannot be parsed
    ├── ContractBroken        the file's columns are not those of the contract
    ├── TooManyBadRows        more rows were quarantined than the use case tolerates
    ├── TooManyFailures       more partitions failed than the use case tolerates
    ├── GateFailed            a release did not load or predict when it was tried
    ├── Superseded            another attempt of the same job has taken its place
    ├── NotAgreed             a run may cost more than the limit, and nobody agreed to that
    ├── Tampered              bytes differ from the recorded digest
    └── NotIsolated           an attack of one tenant on another got through

Whether to retry is a property of the type, never of a message.
"""

from __future__ import annotations


class OrchardError(Exception):
    """An error that a person can act on.

    `message` says what happened; `expected`, `found` and `where` say it in detail; `hint` says what to do
    next. All are plain strings, so that an error pickles and fits into a database row.
    """

    def __init__(self, message: str, *, expected: str = "", found: str = "", where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message, self.expected, self.found, self.where, self.hint = message, expected, found, where, hint

    def __str__(self) -> str:
        parts = [self.message]
        for label in ("where", "expected", "found", "hint"):
            if text := getattr(self, label):
                parts.append(f"{'do next' if label == 'hint' else label}: {text}")
        return "; ".join(parts)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.expected, self.found, self.where, self.hint)


def _rebuild(kind: type[OrchardError], message: str, expected: str, found: str, where: str, hint: str) -> OrchardError:
    return kind(message, expected=expected, found=found, where=where, hint=hint)


class Retryable(OrchardError):
    """Trying again later may help."""


class DatabaseUnavailable(Retryable):
    """The database does not answer."""


class StorageUnavailable(Retryable):
    """The lake cannot be read or written (unreachable, or full)."""


class Busy(Retryable):
    """Another run works on the same tenant's use case."""


class OverBudget(Retryable):
    """A hard limit was reached: work waits until it is raised, or the month ends."""


class NotErased(Retryable):
    """Something of a tenant that leaves was found after its removal."""


class Permanent(OrchardError):
    """The same input will fail again."""


class InvalidDefinition(Permanent):
    """A tenant, tier or settings file is wrong."""


class NotFound(Permanent):
    """A name that nothing answers to."""


class UnreadableUpload(Permanent):
    """The uploaded file cannot be parsed."""


class ContractBroken(Permanent):
    """The uploaded file's columns are not those of the contract."""


class TooManyBadRows(Permanent):
    """More rows were quarantined than the use case tolerates."""


class TooManyFailures(Permanent):
    """More partitions failed than the use case tolerates."""


class GateFailed(Permanent):
    """A release did not load or predict when it was tried."""


class Superseded(Permanent):
    """Another attempt of the same job has taken its place."""


class NotAgreed(Permanent):
    """A run may cost more than the limit, and nobody agreed to that."""


class Tampered(Permanent):
    """Bytes differ from the recorded digest."""


class NotIsolated(Permanent):
    """An attack of one tenant on another got through."""
