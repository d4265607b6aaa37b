"""Personal columns: what is kept in place of what a file says, and errors that quote nothing of it."""

from __future__ import annotations

import hashlib
import hmac
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from tasks.domain.contract import Contract, Personal
from tasks.domain.errors import OrchardError

LENGTH = 32
"""Hex digits: of 128 bits, no two of a tenant's values will ever be the same."""

KEY_BYTES = 32


@dataclass(frozen=True)
class Pseudonyms:
    """One tenant's pseudonyms: HMAC-SHA256 (RFC 2104) under a random key of its own, shortened to 128 bits, in hex.

    The same value has the same pseudonym in all use cases of the tenant, and another one at any other tenant. Without
    the key nobody can make one, or try out which value it stands for. Pickles; its repr hides the key.
    """

    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES:
            raise ValueError(f"a key of pseudonyms has {KEY_BYTES} bytes, this one {len(self.key)}")

    def of(self, value: str) -> str:
        """The pseudonym of one value."""
        return hmac.digest(self.key, value.encode(), "sha256").hex()[:LENGTH]

    def of_all(self, values: pd.Series) -> pd.Series:
        """The pseudonyms of a text column, row by row; missing values stay missing. Each distinct value is hashed
        once."""
        column = pa.array(values, pa.string(), from_pandas=True)
        coded = (column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column).dictionary_encode()
        hashed = self._each(coded.dictionary.to_pylist()).take(coded.indices).to_pandas()
        return pd.Series(hashed.array, index=values.index, name=values.name, dtype="str")

    def _each(self, values: Sequence[str]) -> pa.StringArray:
        """`of` for many: the key's two blocks are hashed once, and no text is made of each, which takes a third of the
        time."""
        block = self.key.ljust(hashlib.sha256().block_size, b"\0")
        start, finish = (hashlib.sha256(bytes(byte ^ pad for byte in block)).copy for pad in (0x36, 0x5C))
        digests = []
        for value in values:
            inner, outer = start(), finish()
            inner.update(value.encode())
            outer.update(inner.digest())
            digests.append(outer.digest()[: LENGTH // 2])
        offsets = np.arange(len(digests) + 1, dtype=np.int32) * LENGTH
        text = b"".join(digests).hex().encode()
        return pa.StringArray.from_buffers(len(digests), pa.py_buffer(offsets), pa.py_buffer(text))


def without_personal(frame: pd.DataFrame, contract: Contract, pseudonyms: Pseudonyms) -> pd.DataFrame:
    """Rows as they may be kept: dropped columns are gone, hashed ones hold pseudonyms. `frame` has columns of the
    contract as a file says them, and perhaps others; it is not changed."""
    if not contract.personal.intersection(frame.columns):
        return frame
    how = {name: contract.columns[name].personal for name in contract.personal.intersection(frame.columns)}
    kept = frame.drop(columns=[name for name, personal in how.items() if personal is Personal.DROP])
    hashed = {name: pseudonyms.of_all(frame[name]) for name, personal in how.items() if personal is Personal.HASH}
    return kept.assign(**hashed)


@contextmanager
def discreetly(contract: Contract) -> Iterator[None]:
    """Work on raw values of a contract with personal columns: an error that leaves the block has nothing of a library's
    text with it, which may quote a cell. Our own errors quote none."""
    if not contract.personal:
        yield
        return
    try:
        yield
    except OrchardError as error:
        raise error from None
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise OrchardError(
            f"this should not have happened: {type(error).__name__}",
            where=f"{Path(last.filename).name}:{last.lineno}",
            hint="its text is withheld, because it may quote personal data; report it with this place",
        ) from None
