"""The parts of an export. Each may be written again; what is of the right size already is not fetched twice."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from deployments.costs.invoices import own_invoices
from deployments.costs.tables import invoice_csv
from deployments.platform import Platform
from infra.database.audit import Audit
from infra.database.handover import all_use_cases, readable_rows
from infra.lake.handover import current_rows, current_schema, fetch_files
from infra.lake.location import Location
from infra.lake.predictions import TABLE_SCHEMA
from infra.registry.handover import described, releases_of
from infra.space import TenantSpace
from tasks.domain.use_case import UseCase

MODEL = "/model"
DELTA = ("tables/", "predictions/")
SAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Handover:
    """A tenant that is handed over, through its own space."""

    platform: Platform
    space: TenantSpace
    folder: Path

    @property
    def tenant(self) -> str:
        return self.space.tenant.id

    @cached_property
    def use_cases(self) -> list[UseCase]:
        """All of them: what was switched off has data too."""
        return all_use_cases(self.space.records.url, self.tenant)

    def path(self, *names: str) -> Path:
        """A path below the folder, whose parents exist."""
        path = self.folder.joinpath(*names)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write_json(self, value: object, *names: str) -> None:
        text = json.dumps(value, indent=1, ensure_ascii=False, default=str)
        self.path(*names).write_text(text + "\n", encoding="utf-8")


class Part(NamedTuple):
    """One part: its name, the folder below which it writes, and how."""

    name: str
    folder: str
    write: Callable[[Handover], None]


def _definition(its: Handover) -> None:
    spec = its.space.tenant.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    its.path("definition", "tenant.yaml").write_text(
        yaml.safe_dump(spec, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )


def _rows(its: Handover) -> None:
    """With the tenant's own login; what that may not read, the operator's reads."""
    records = its.space.records
    sources = {
        "rows": records.url,
        "rows-shared": records.shared_url or None,
        "access": its.platform.cluster.operator_url,
    }
    for name, url in sources.items():
        if url is None:
            continue
        with readable_rows(url, its.tenant) as tables:
            for rows in tables:
                write_parquet(its.path("data", name, f"{rows.name}.parquet"), rows.schema, _tables(rows.batches()))


def _tables(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.Table]:
    return (pa.Table.from_batches([batch]) for batch in batches)


def _current_rows(its: Handover) -> None:
    for use_case in its.use_cases:
        table = its.space.table(use_case)
        write_parquet(its.path("data", "tables", f"{use_case.id}.parquet"), current_schema(table), current_rows(table))


def _predictions(its: Handover) -> None:
    for use_case in its.use_cases:
        published = its.space.predictions(use_case).uploads()
        write_parquet(its.path("data", "predictions", f"{use_case.id}.parquet"), TABLE_SCHEMA, published)


def _receipts(its: Handover) -> None:
    records = its.space.records
    accounts = {
        use_case.id: {
            "uploads": [upload.model_dump(mode="json") for upload in records.uploads(use_case.id)],
            "runs": [run.model_dump(mode="json") for run in reversed(records.runs(use_case.id))],
        }
        for use_case in its.use_cases
    }
    its.write_json(accounts, "receipts", "receipts.json")


def _files(its: Handover) -> None:
    """All but the Delta tables; uploads under the names that the tenant gave them."""
    uploads = {
        f"uploads/{upload.use_case}/{upload.upload_id}": (
            f"uploads/{upload.use_case}/{upload.purpose}-{upload.seq:06}-{SAFE.sub('_', upload.filename)[-120:]}"
        )
        for upload in its.space.records.uploads()
    }

    def name_of(path: str) -> str | None:
        return None if path.startswith(DELTA) else uploads.get(path, path)

    fetch_files(its.space.location, name_of, its.folder / "files")


def _history(its: Handover) -> None:
    """Only where it is asked for."""
    fetch_files(its.space.location, lambda path: path if path.startswith(DELTA) else None, its.folder / "history")


def _models(its: Handover) -> None:
    """Releases by version; training runs as MLflow keeps their artifacts; what the registries say of both."""
    registry = its.space.registry
    fetch_files(registry.training_artifacts, lambda path: path, its.folder / "models" / "training")
    for use_case, version, source in releases_of(registry):
        place = _place(registry.production_artifacts, source)
        fetch_files(place, lambda path: path, its.folder / "models" / "releases" / use_case / str(version))
    its.write_json(described(registry), "models", "registry.json")


def _place(root: Location, source: str) -> Location:
    """A release's model folder, with the credentials of the folder that it is in."""
    inside = source.removeprefix(root.url).strip("/")
    return root.child(*inside.split("/"))


def _audit(its: Handover) -> None:
    entries = Audit(its.platform.cluster).own_entries(its.tenant)
    its.write_json(entries[::-1], "audit", "audit.json")


def _invoices(its: Handover) -> None:
    for invoice in own_invoices(its.platform.cluster, its.tenant):
        its.write_json(invoice.model_dump(mode="json"), "invoices", f"{invoice.number}.json")
        its.path("invoices", f"{invoice.number}.csv").write_text(invoice_csv(invoice), encoding="utf-8")


PARTS = (
    Part("definition", "definition", _definition),
    Part("rows of the database", "data", _rows),
    Part("current rows", "data", _current_rows),
    Part("predictions", "data", _predictions),
    Part("receipts", "receipts", _receipts),
    Part("uploads, quarantine, reports", "files", _files),
    Part("history", "history", _history),
    Part("models", "models", _models),
    Part("invoices", "invoices", _invoices),
    Part("audit", "audit", _audit),
)


def write_parquet(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """A Parquet file that appears whole."""
    partial = path.with_name(f".{path.name}.partial")
    with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for table in tables:
            if len(table):
                writer.write_table(table.cast(schema))
    partial.replace(path)
