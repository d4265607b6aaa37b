"""A lake in a folder, with one use case's table: what ingestion writes to, without database and flows."""

from __future__ import annotations

import datetime as dt
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from infra.lake.files import LakeFiles
from infra.lake.location import Location
from infra.lake.table import UseCaseTable
from infra.validation import ExpectationsValidator
from tasks.domain.names import Purpose, upload_id
from tasks.domain.run import Upload, UploadStatus
from tasks.domain.use_case import UseCase
from tasks.ingestion.ingest import Ingested, ingest
from tasks.ingestion.quarantine import quarantine_path
from tasks.personal import Pseudonyms

PSEUDONYMS = Pseudonyms(bytes(range(32)))


def make_upload(seq: int, purpose: Purpose = Purpose.HISTORY, filename: str = "sales.csv") -> Upload:
    digest = hashlib.sha256(str(seq).encode()).hexdigest()
    return Upload(
        upload_id=upload_id("acme", "sales", purpose, digest),
        use_case="sales",
        purpose=purpose,
        seq=seq,
        filename=filename,
        size_bytes=1,
        content_sha256=digest,
        status=UploadStatus.RECEIVED,
        received_at=dt.datetime(2026, 11, 1, tzinfo=dt.UTC),
    )


@dataclass
class Lake:
    folder: Path
    use_case: UseCase

    @property
    def location(self) -> Location:
        return Location((self.folder / "lake").as_uri())

    @property
    def files(self) -> LakeFiles:
        return LakeFiles(self.location)

    @property
    def table(self) -> UseCaseTable:
        return UseCaseTable(self.location.child("tables", "sales"), self.use_case, self.folder / "scratch")

    def ingest(
        self, content: bytes | str, seq: int = 1, purpose: Purpose = Purpose.HISTORY, measured: Sequence[int] = ()
    ) -> Ingested:
        """Ingests a file with this content, as the upload number `seq`; `measured` are earlier actuals."""
        path = self.folder / f"upload-{seq}"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        upload = make_upload(seq, purpose)
        staging = self.table.stage(upload, measured)
        try:
            validator = ExpectationsValidator(self.use_case, upload, self.files)
            return ingest(path, self.use_case, upload, validator, staging, self.files, PSEUDONYMS)
        finally:
            staging.discard()

    def rows(self, version: int | None = None) -> pd.DataFrame:
        """All rows of a version, sorted by row key."""
        version = self.table.version() if version is None else version
        assert version is not None
        buckets = self.table.partitions(version)["bucket"]
        frame = pd.concat([self.table.read(version, int(bucket)) for bucket in sorted({0, *buckets})])
        return frame.sort_values(list(self.use_case.contract.row_key), ignore_index=True)

    def quarantined(self, seq: int, purpose: Purpose = Purpose.HISTORY) -> pd.DataFrame:
        """What quarantine holds of an upload."""
        data = self.files.read(quarantine_path("sales", make_upload(seq, purpose).upload_id))
        return pq.read_table(io.BytesIO(data)).to_pandas()
