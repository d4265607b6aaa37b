"""What a step may ask of its space: a few typed protocols. `infra/` implements them, tests run against those.

A `Space` opens one tenant's storage, registry names and database rows, and nothing else. It is small, frozen, pickles,
and connects on first use. Frames are pandas unless said otherwise; versions are Delta versions of the use case's table.

The use case's table has the contract's columns, but for dropped ones, and these of its own:
`_bucket` int32 (hash of the partition keys; the table is partitioned by it), `_partition` (canonical partition name),
`_upload` int64 (sequence number of the upload that last wrote the row), `_labelled` int64 (sequence number of the
upload that brought its target, null while there is none).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

import pandas as pd
import pyarrow as pa

from tasks.domain.budget import Standing
from tasks.domain.contract import ColumnType
from tasks.domain.names import Purpose, Stage
from tasks.domain.run import Batch, Release, Run, Upload
from tasks.domain.tenant import Tenant, TierPolicy
from tasks.domain.use_case import UseCase
from tasks.personal import Pseudonyms
from tasks.scorer import Scorer

ARROW_TYPES = {
    ColumnType.INTEGER: pa.int64(),
    ColumnType.NUMBER: pa.float64(),
    ColumnType.STRING: pa.string(),
    ColumnType.BOOLEAN: pa.bool_(),
    ColumnType.DATE: pa.date32(),
    ColumnType.TIMESTAMP: pa.timestamp("us", "UTC"),
}
"""How the columns of a contract are stored."""


class MergeResult(NamedTuple):
    """What a merge did. `version` is the dataset version that now holds the upload."""

    version: int
    accepted: int
    duplicate: int


class Staging(Protocol):
    """Accepted rows of one upload on their way into the table; nothing is visible before `merge`."""

    def append(self, frame: pd.DataFrame) -> None:
        """Adds rows: stored columns of the upload's purpose plus `_line` int64, the row's place in the file."""

    def duplicates(self) -> Iterator[pd.DataFrame]:
        """Rows whose row key comes again later in the file (the last one wins), in frames of bounded size."""

    def unmatched(self) -> Iterator[pd.DataFrame]:
        """Actuals whose row key the table never saw, in frames of bounded size; they are not merged."""

    def merge(self) -> MergeResult:
        """Upserts the rows by row key in one commit that carries the upload's id; a second call finds that commit."""

    def discard(self) -> None:
        """Removes the staged files."""


class Table(Protocol):
    """One use case's Delta table."""

    def version(self) -> int | None:
        """The latest version, or None before the first upload."""

    def oldest(self) -> int | None:
        """The oldest version that can still be read, or None before the first upload."""

    def stage(self, upload: Upload, measured: Iterable[int] = ()) -> Staging:
        """A fresh staging area for this upload; whatever an earlier attempt left there is dropped. `measured` are the
        numbers of earlier actuals: a target that one of them brought is not new when it comes again."""

    def partitions(self, version: int, upload_seq: int | None = None) -> pd.DataFrame:
        """One row per partition, sorted by (bucket, partition): `partition`, `bucket`, `rows`, `labelled` (rows with a
        target), `open` (rows without), `last_upload`, `last_labelled` (highest `_upload`, `_labelled` of its rows; 0 if
        none). With `upload_seq`, only rows that this upload last wrote are counted."""

    def read(
        self,
        version: int,
        bucket: int,
        partitions: Sequence[str] | None = None,
        *,
        labelled: bool | None = None,
        upload_seq: int | None = None,
    ) -> pd.DataFrame:
        """Rows of one bucket at a version, all columns, in no particular order; filters narrow them down."""


UNPARSED = "_unparsed"
"""Column of a frame on its way through validation: the rules that a row's unreadable cells broke (their values are null
in the frame), one per line of text; null where all cells could be read."""


class Validator(Protocol):
    """Checks chunks of one upload against the contract, under one report."""

    def check(self, frame: pd.DataFrame) -> pd.DataFrame:
        """`frame` has the columns of the upload's purpose and `UNPARSED`, and a unique index. One row per broken rule
        and row: `row` (label of the frame's index), `rule` (text for people).
        """

    def report(self) -> str:
        """Renders the Data Docs page over all chunks; returns its path under the tenant's root."""


class Files(Protocol):
    """The tenant's own folder: paths are relative, `/`-separated, and cannot leave it."""

    def put(self, path: str, source: Path) -> None:
        """Copies a local file there; it appears whole or not at all."""

    def write(self, path: str, data: bytes) -> None:
        """Writes bytes; the file appears whole or not at all."""

    def read(self, path: str) -> bytes:
        """The bytes. Raises `NotFound`."""

    def local(self, path: str, scratch: Path | None = None) -> AbstractContextManager[Path]:
        """A local path with the file's content: the file itself where the lake is local, else a copy, in a folder of
        `scratch` where that is given."""

    def exists(self, path: str) -> bool: ...

    def list(self, folder: str) -> list[str]:
        """Paths of the files below a folder, sorted."""

    def delete(self, folder: str) -> None:
        """Removes a folder and all below it; nothing happens where there is none."""

    def url(self, path: str) -> str:
        """The full URL of a path, for people and for other tools."""


class Predictions(Protocol):
    """The lake table of a use case's predictions."""

    def write(self, run: Run, batch: Batch, rows: pa.Table) -> None:
        """Writes a batch's file; readers do not see it yet. Written again, it replaces itself."""

    def publish(self, run: Run, upload: Upload) -> None:
        """Makes all files of the run visible in one commit, in place of earlier rows of the same upload. Does nothing
        when this run is already published."""

    def read(self, partitions: Sequence[str] | None = None) -> pa.Table:
        """Published rows, of some partitions or of all."""


class Records(Protocol):
    """This tenant's rows in the database. Each method is one transaction."""

    def add_upload(
        self, use_case: str, purpose: Purpose, upload_id: str, filename: str, size_bytes: int, content_sha256: str
    ) -> tuple[Upload, bool]:
        """The upload of that identity, and whether it is new."""

    def upload(self, upload_id: str) -> Upload:
        """Raises `NotFound`."""

    def uploads(self, use_case: str | None = None) -> list[Upload]:
        """In the order of arrival."""

    def update_upload(self, upload_id: str, **fields: object) -> Upload: ...

    def lock(self, use_case: str) -> AbstractContextManager[None]:
        """Holds the use case for one run at a time; freed when the process ends, however it ends. Raises `Busy`."""

    def taking_in(self) -> AbstractContextManager[None]:
        """For whoever stores what came in: until the block ends, the tenant neither moves nor leaves. Raises `Busy`."""

    def open_run(
        self,
        stage: Stage,
        use_case: str,
        key: str,
        *,
        upload_id: str | None = None,
        dataset_version: int | None = None,
        release_version: int | None = None,
    ) -> Run:
        """The run of that key: new, or the old one with `attempts` raised and, unless it had finished, running."""

    def finish_run(self, run: Run, receipt: Mapping[str, object]) -> Run: ...

    def fail_run(self, run: Run, error: str) -> Run: ...

    def stop_run(self, run: Run, receipt: Mapping[str, object], why: str) -> Run:
        """Stores the receipt and what this attempt used, and marks the run as stopped: it goes on when it may."""

    def excess(self, use_case: str, run: Run | None = None) -> Standing | None:
        """The budget whose hard limit was reached, if one was: of the use case, of its tenant, of the tenant's share of
        the platform's, or of the run."""

    def run(self, run_id: int) -> Run:
        """Raises `NotFound`."""

    def runs(self, use_case: str | None = None, stage: Stage | None = None) -> list[Run]:
        """Newest first."""

    def plan(self, run: Run, batches: Sequence[Batch], settled: pd.DataFrame | None = None) -> None:
        """Stores the batches of a run and, with them, `PARTITION_MODEL` rows of partitions that need no work (`batch`
        0); does nothing when the run has a plan already."""

    def planned(self, run: Run) -> bool:
        """Whether the run has a plan; one without any batch counts."""

    def batches(self, run: Run, *, pending: bool = False) -> list[Batch]:
        """In order of number; `pending`: only those not finished."""

    def start_batch(self, batch: Batch) -> None:
        """Counts the attempt; from now on this thread's CPU is the batch's."""

    def finish_training_batch(self, batch: Batch, rows: pd.DataFrame, *, bytes_in: int = 0, bytes_out: int = 0) -> None:
        """Stores `PARTITION_MODEL` rows and what the batch used, and marks it as finished, together. `bytes_in` of
        rows were read, `bytes_out` of models written."""

    def leave(self, run: Run, why: str) -> None:
        """Stores `PARTITION_MODEL` rows for the partitions of batches that are not finished: they are left. Finishing
        the batch replaces them."""

    def failed_partitions(self, run: Run) -> int:
        """How many partitions of a training run have failed so far."""

    def retry_failed(self, run: Run) -> None:
        """Opens again the batches in which partitions failed: they are pending, and their rows are gone."""

    def partition_models(self, run: Run, partitions: Sequence[str] | None = None) -> pd.DataFrame:
        """The `PARTITION_MODEL` rows of a training run, sorted by partition; of some partitions, or of all."""

    def finish_scoring_batch(self, batch: Batch, rows: pa.Table, *, bytes_in: int = 0) -> None:
        """Stores `PREDICTION` rows, unseen by readers until `publish_scores`, and what the batch used, and marks it as
        finished, together. `bytes_in` of rows were read."""

    def scored(self, run: Run) -> pd.DataFrame:
        """One row per (partition, answer, fallback) of a scoring run: those, `rows`, and `known` (whether the run's
        release has the partition)."""

    def publish_scores(self, run: Run, receipt: Mapping[str, object]) -> Run:
        """Makes a scoring run's rows the current ones for its upload, and finishes the run, in one transaction."""

    def predictions(self, use_case: str, limit: int | None = None) -> pd.DataFrame:
        """Rows of the view `current_predictions`."""

    def add_release(self, release: Release, verdicts: pd.DataFrame) -> None:
        """Stores a release and its `VERDICT` rows; replaces them when the version is there already."""

    def set_champion(self, use_case: str, version: int) -> None:
        """Marks one release as champion and the earlier champion as retired."""

    def releases(self, use_case: str) -> list[Release]:
        """Newest first."""

    def verdicts(self, use_case: str, version: int) -> pd.DataFrame: ...

    def save_health(self, run: Run, rows: pd.DataFrame) -> None:
        """Stores `HEALTH` rows and finishes the run, in one transaction; replaces those of the same run."""

    def health(self, use_case: str) -> pd.DataFrame:
        """Rows of the view `model_health`."""


PARTITION_MODEL = (
    "partition", "batch", "outcome", "estimator", "rows", "data_hash", "metric", "naive_metric", "holdout_rows",
    "holdout_sum", "naive_sum", "new_rows", "new_metric", "new_champion_metric", "seconds", "reason", "source_run",
    "tenant_wide_metric", "model_bytes",
)  # fmt: skip
"""Columns of a partition in a training run: `metric`, `naive_metric` and `tenant_wide_metric` on the holdout; `*_sum`
their per-row losses summed, so that weighted metrics add up; `new_*` compare candidate and champion on holdout rows
that entered after the champion's dataset version; `reason` why it was rejected, failed or left; `source_run` the run
that fitted it; `model_bytes` of its model's text."""

PREDICTION = (
    "partition", "row_key", "prediction", "label", "probabilities", "baseline", "answer", "fallback", "model_run",
)  # fmt: skip
"""Columns of a prediction: `row_key` text; `prediction` double for regression, `label` and `probabilities` list<double>
for classification, null otherwise; `baseline` list<double> what the naive rule says (a value, or the base rates);
`answer` who answered (own, tenant_wide, naive); `fallback` whether that was for want of a promoted model; `model_run`
int64 the training run that fitted it."""

VERDICT = (
    "partition", "verdict", "reason", "answer", "fallback", "estimator", "source_run", "metric", "naive_metric",
)  # fmt: skip
"""Columns of a partition in a release: `answer` is own, tenant_wide or naive; `fallback` whether that is for want of a
promoted model; `source_run` the training run of its model."""

HEALTH = ("partition", "rows", "metric", "loss_sum", "baseline_sum", "own_rows")
"""Columns of live error per partition: summed per-row losses of predictions and of the naive rule."""


class Registry(Protocol):
    """This tenant's names in the training and production registries."""

    def log_training(
        self,
        use_case: UseCase,
        run: Run,
        bundle: Path,
        *,
        params: Mapping[str, object],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        example: pd.DataFrame,
        artifacts: Mapping[str, Path],
    ) -> str:
        """Logs one MLflow run with one bundle model and registers it as a candidate; returns the model version. A
        second call for the same run returns the first one's version."""

    def fetch_candidate(self, use_case: str, run: Run, into: Path) -> Path:
        """Downloads the bundle folder of a training run."""

    def add_release(
        self, use_case: UseCase, bundle: Path, *, key: str, tags: Mapping[str, str], example: pd.DataFrame
    ) -> tuple[int, str, str]:
        """Puts a self-contained bundle into the production registry: (version, source URL, manifest digest). A second
        call with the same key returns the first one's."""

    def try_release(self, use_case: str, version: int, rows: pd.DataFrame) -> pd.DataFrame:
        """Loads a release through `mlflow.pyfunc` and predicts. Raises `GateFailed`, `Tampered`."""

    def set_alias(self, use_case: str, alias: str, version: int) -> None: ...

    def remove_alias(self, use_case: str, alias: str) -> None: ...

    def find(self, use_case: str, alias: str) -> int | None:
        """The version behind an alias, the entry being found by its tags tenant and use_case."""

    def check_release(self, use_case: str, version: int) -> None:
        """Checks a release's files against its digests. Raises `Tampered`, `NotFound`."""

    def scorer(self, use_case: str, version: int) -> Scorer:
        """The release's scorer, opened once per process."""

    def open_release(self, use_case: str, version: int) -> AbstractContextManager[Path]:
        """A local folder with the release's bundle, checked against its digests. Raises `Tampered`, `NotFound`."""


class Space(Protocol):
    """One tenant's everything."""

    @property
    def tenant(self) -> Tenant: ...
    @property
    def policy(self) -> TierPolicy: ...
    @property
    def files(self) -> Files: ...
    @property
    def records(self) -> Records: ...
    @property
    def registry(self) -> Registry: ...
    @property
    def pseudonyms(self) -> Pseudonyms: ...
    def table(self, use_case: UseCase) -> Table: ...
    def predictions(self, use_case: UseCase) -> Predictions: ...
    def validator(self, use_case: UseCase, upload: Upload) -> Validator: ...
    def scratch(self, name: str) -> AbstractContextManager[Path]:
        """A local folder for one piece of work, removed afterwards."""
