"""How many rows of which partition a file holds: read, and nothing else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd

from tasks.domain.run import Upload
from tasks.domain.use_case import UseCase
from tasks.ingestion.readers import read_chunks
from tasks.ingestion.streams import UploadedFile
from tasks.personal import Pseudonyms, discreetly, without_personal
from tasks.scorer import partition_names


def count_partitions(path: Path, use_case: UseCase, upload: Upload, pseudonyms: Pseudonyms) -> pd.Series:
    """Rows per partition of a file with partition keys; those without a key are not counted. Raises
    `UnreadableUpload`, `ContractBroken`."""
    types = {name: column.type.value for name, column in use_case.contract.columns.items()}
    counts: Counter[str] = Counter()
    source = UploadedFile(path, upload.filename, quotable=not use_case.contract.personal)
    with discreetly(use_case.contract):
        for chunk in read_chunks(source, use_case, upload.purpose):
            keyed = without_personal(chunk.frame[list(use_case.partition_by)].dropna(), use_case.contract, pseudonyms)
            names = partition_names(keyed, use_case.partition_by, types)
            counts.update({str(name): int(rows) for name, rows in names.value_counts().items()})
    return pd.Series(counts, dtype="int64").sort_index()
