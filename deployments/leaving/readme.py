"""The page that explains an export to whoever opens it without knowing the platform."""

from __future__ import annotations

from tasks.domain.tenant import Tenant

ROWS = {
    "`definition/tenant.yaml`": "the tenant and its use cases, as `orchard tenants add` reads them",
    "`data/tables/USE_CASE.parquet`": (
        "the current rows of a use case: the columns of its contract, `_partition` (which model is theirs), `_upload`"
        " and `_labelled` (numbers of the uploads that brought the row and its target)"
    ),
    "`data/predictions/USE_CASE.parquet`": "the published predictions: one row per scored row and upload",
    "`data/rows/TABLE.parquet`": (
        "all rows that the database has of the tenant, table by table, read with its own login: uploads, runs, batches,"
        " models and metrics per partition, releases, verdicts, predictions, live errors, jobs, schedules"
    ),
    "`data/rows-shared/`": "the same from the shared database, where the tenant has a database of its own",
    "`data/access/api_keys.parquet`": "what API keys there were, without what would open anything",
    "`receipts/receipts.json`": "the account of every upload and run, per use case",
    "`files/uploads/USE_CASE/`": "the files as they came: purpose, number, name (odd characters of names are `_`)",
    "`files/quarantine/USE_CASE/`": "rows that were set aside, each with the rule that it broke, per upload",
    "`files/reports/USE_CASE/`": "the validation report (Great Expectations) of each upload: open `index.html`",
    "`files/runs/`": "what training runs keep between their steps",
    "`models/releases/USE_CASE/VERSION/`": (
        "every release as an MLflow model: `mlflow.pyfunc.load_model(folder)` loads it without Orchard;"
        " `artifacts/bundle/models/*.parquet` has one model per row, as LightGBM text or plain numbers"
    ),
    "`models/training/USE_CASE/RUN/artifacts/`": "every training run: its candidates as an MLflow model, plots, tables",
    "`models/registry.json`": "names, versions, aliases, tags, parameters and metrics in both registries",
    "`invoices/`": "every invoice that was issued, as JSON and as CSV",
    "`audit/audit.json`": "who did what to this tenant, when and from where",
}

HISTORY = {
    "`history/tables/`, `history/predictions/`": "the Delta tables as they are, with all versions that are still there"
}

CSV = {
    "`data/**/*.csv`": (
        "the Parquet file of the same name for spreadsheets: lists are JSON, times are UTC. A text that begins with"
        " `=`, `+`, `-`, `@`, a tab or a carriage return has an apostrophe before it, so that no spreadsheet takes it"
        " for a formula; a program that reads the file has to take that away"
    )
}


def readme(tenant: Tenant, *, history: bool, csv: bool) -> str:
    """The page for this tenant's export."""
    rows = ROWS | (HISTORY if history else {}) | (CSV if csv else {})
    lines = [
        f"# All data of {tenant.name} (`{tenant.id}`)",
        "",
        "Exported from Orchard. All files are in open formats: Parquet, JSON, YAML, Markdown, or as they came.",
        "`manifest.json` lists every file with its size and SHA-256.",
        "",
        "| where | what |",
        "|---|---|",
        *(f"| {where} | {what} |" for where, what in rows.items()),
        "",
        "Not here, because they would open something: digests of API keys, the keys of hashed columns, passwords.",
    ]
    return "\n".join(lines)
