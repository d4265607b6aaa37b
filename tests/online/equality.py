"""Whether the API answers every row of a demo's November as batch scoring did: `python -m tests.online.equality HOME`.

HOME is where `orchard demo` ran. The rows of every scoring file are sent as they came, a hundred a request; the answers
are compared with `current_predictions`.
"""

from __future__ import annotations

import argparse
import csv
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from fastapi.testclient import TestClient

from deployments.api.app import create_app
from deployments.platform import running_platform
from infra.database.keys import Keys
from infra.database.operator import Operator
from infra.settings import load_settings
from infra.space import TenantSpace
from tasks.domain.access import Role
from tasks.domain.names import Purpose
from tasks.domain.run import Upload
from tasks.domain.use_case import UseCase
from tasks.ingestion.admission import stored_path
from tasks.ingestion.columns import convert
from tasks.online.predict import row_keys_of
from tasks.online.rows import RowReader

AT_ONCE = 100


def rows_of(space: TenantSpace, upload: Upload, wanted: set[str]) -> list[dict[str, str]]:
    """The rows of a stored CSV file, with the columns of the contract."""
    with space.files.local(stored_path(upload.use_case, upload.upload_id)) as path:
        opened = gzip.open if path.read_bytes()[:2] == b"\x1f\x8b" else open
        with opened(path, "rt", encoding="utf-8", newline="") as file:
            return [{name: row[name] for name in row if name in wanted} for row in csv.DictReader(file)]


def answered(client: TestClient, use_case: UseCase, rows: list[dict[str, str]]) -> Iterator[tuple[dict[str, str], Any]]:
    """Rows that fit the contract, each with its answer."""
    for start in range(0, len(rows), AT_ONCE):
        asked = rows[start : start + AT_ONCE]
        while asked:
            answer = client.post(f"/v1/{use_case.id}/predict", json={"rows": asked})
            if answer.status_code == 422:
                bad = {int(each["where"].split(".")[1]) for each in answer.json()["errors"]}
                asked = [row for number, row in enumerate(asked) if number not in bad]
                continue
            assert answer.status_code == 200, answer.text
            yield from zip(asked, answer.json()["rows"], strict=True)
            break


def compare(space: TenantSpace, use_case: UseCase, client: TestClient) -> tuple[int, float]:
    """How many rows were compared, and the largest difference. Each row of either has its counterpart."""
    stored = space.records.predictions(use_case.id).set_index("row_key")
    reader = RowReader(use_case, convert, space.pseudonyms)
    compared, largest = 0, 0.0
    wanted = set(use_case.columns_for(Purpose.SCORING))
    for upload in space.records.uploads(use_case.id):
        if upload.purpose is not Purpose.SCORING:
            continue
        for row, answer in answered(client, use_case, rows_of(space, upload, wanted)):
            [key] = row_keys_of(reader.read([row]), use_case)
            batch = stored.loc[key]
            for name in ("partition", "answer", "fallback", "model_run"):
                assert answer[name] == batch[name], (key, name, answer, batch)
            if use_case.classes:
                assert answer["label"] == batch["label"], key
                gap = np.abs(np.subtract(list(answer["probabilities"].values()), batch["probabilities"])).max()
            else:
                gap = abs(answer["prediction"] - batch["prediction"])
            largest, compared = max(largest, float(gap)), compared + 1
    assert compared == len(stored), (compared, len(stored))
    return compared, largest


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.online.equality", description=__doc__)
    parser.add_argument("home", type=Path)
    settings = load_settings(home=parser.parse_args().home)
    total, largest = 0, 0.0
    app = create_app(settings, dispatch=lambda _: None)
    with running_platform(settings) as platform, TestClient(app) as client:
        for tenant in Operator(platform.cluster).tenants():
            space = platform.open_space(tenant.id)
            key = Keys(platform.cluster).create(tenant.id, "equality", Role.READER)[1]
            client.headers["Authorization"] = f"Bearer {key}"
            for use_case in tenant.use_cases:
                rows, gap = compare(space, use_case, client)
                print(f"{tenant.id} {use_case.id}: {rows:,} rows, largest difference {gap:.1e}")
                total, largest = total + rows, max(largest, gap)
    print(f"{total:,} rows, largest difference {largest:.1e}")
    raise SystemExit(largest > 1e-9)


if __name__ == "__main__":
    main()
