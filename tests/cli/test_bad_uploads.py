"""Bad files at the command line: one clear message, exit code 1, and what was there before stays."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests.cli.shop import COLUMNS, history, sales, scoring, tenant_file
from tests.cli.terminal import Terminal

GOOD = history(12, first="2026-03-01", seed=7)
HEADER, FIRST = GOOD.split("\n")[0], GOOD.split("\n")[1]


def parquet() -> bytes:
    buffer = io.BytesIO()
    sales(12).to_parquet(buffer)
    return buffer.getvalue()


def without(column: str) -> str:
    return pd.read_csv(io.StringIO(GOOD)).drop(columns=column).to_csv(index=False)


def cells(column: str, value: object, rows: int = 30) -> str:
    """The good file, with this value in the column's first rows."""
    frame = pd.read_csv(io.StringIO(GOOD)).astype({column: object})
    frame.loc[: rows - 1, column] = value
    return frame.to_csv(index=False)


FILES: dict[str, tuple[bytes | str, str]] = {
    "empty file": ("", "empty"),
    "header only": (f"{HEADER}\n", "no rows"),
    "wrong delimiter": (GOOD.replace(",", "^"), "cannot be split"),
    "truncated gzip": (gzip.compress(GOOD.encode())[:-20], "truncated"),
    "truncated Parquet": (parquet()[:-300], "truncated"),
    "binary named .csv": (bytes(range(256)) * 50, "binary"),
    "undeclared encoding": (GOOD.replace("red", "r\xf6t").encode("latin-1"), "not utf-8"),
    "duplicate header": (GOOD.replace("color", "price", 1), "twice: price"),
    "missing column": (without("price"), "missing column for history: price"),
    "missing target": (without("sales"), "missing column for history: sales"),
    "extra column": (GOOD.replace("color", "colour,color", 1).replace("red", "x,red"), "unknown column: colour"),
    "text in a number column": (cells("price", "cheap"), "30 × price is not a number"),
    "impossible dates": (cells("day", "2026-02-30"), "30 × day is not a date"),
    "all-null target": (cells("sales", None, rows=72), "target is empty in all 72 rows"),
    "10,000 columns": (",".join(f"c{n}" for n in range(10_000)) + "\n" + "1," * 9_999 + "1\n", "10,000 columns"),
}
WITH_ROWS = ("text in a number column", "impossible dates", "all-null target")


@pytest.fixture(scope="module")
def shop(terminal: Terminal, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A tenant whose models serve."""
    folder = tmp_path_factory.mktemp("shop")
    terminal("tenants", "add", tenant_file(folder, "shop")).worked()
    (folder / "january.csv").write_text(history())
    terminal("upload", "shop", "sales", "history", folder / "january.csv").worked()
    return "shop"


def what_serves(orchard: Terminal, tenant: str) -> object:
    """The releases, the models and the finished uploads."""
    done = [row for row in orchard("receipts", tenant, "--json", "--limit", 200).json if row["status"] == "done"]
    return (
        orchard("releases", "list", tenant, "sales", "--json").json,
        orchard("models", tenant, "sales", "--json").json,
        done,
    )


@pytest.mark.parametrize("case", FILES)
def test_a_bad_file_is_rejected_with_a_reason_and_nothing_changes(orchard: Terminal, shop: str, case: str) -> None:
    content, says = FILES[case]
    name = f"{case.replace(' ', '-').replace('.', '')}.csv"
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    before = what_serves(orchard, shop)

    answer = orchard("upload", shop, "sales", "history", name, "--json").failed(1, says, "where", name)
    assert "expected  " in answer.err or "do next  " in answer.err
    [upload] = answer.json
    assert upload["status"] == "rejected"
    assert says in upload["error"]
    assert upload["dataset_version"] is None
    assert len(answer.err) < 3000

    assert what_serves(orchard, shop) == before
    accounts = orchard("receipts", shop, "sales", "--json", "--limit", 200).json
    assert sum(says in (account["error"] or "") for account in accounts) >= 2  # the upload and its run
    kept = orchard("quarantine", shop, "sales", "--upload", upload["upload_id"], "--json").worked().json
    assert bool(kept) is (case in WITH_ROWS)
    # the same file again is the same upload: the answer is the same
    again = orchard("upload", shop, "sales", "history", name, "--json").failed(1, says)
    assert again.json == [upload]


def test_the_latest_quarantine_is_shown_although_its_upload_was_rejected(orchard: Terminal, shop: str) -> None:
    Path("bad.csv").write_text(cells("price", "dear"))
    orchard("upload", shop, "sales", "history", "bad.csv").failed(1, "price is not a number")
    rows = orchard("quarantine", shop, "sales", "--json", "--limit", 5).worked().json
    assert len(rows) == 5
    assert all("price is not a number" in row["rule"] and "dear" in row["row"] for row in rows)


def test_a_line_of_200_megabytes_is_refused(orchard: Terminal, shop: str) -> None:
    Path("long.csv").write_bytes(HEADER.encode() + b"\n" + b"1" * 190_000_000)
    orchard("upload", shop, "sales", "history", "long.csv").failed(1, "line is longer than", "long.csv")
    Path("long.csv.gz").write_bytes(gzip.compress(HEADER.encode() + b"\n" + b"1" * 200_000_000, 1))
    orchard("upload", shop, "sales", "history", "long.csv.gz").failed(1, "line is longer than", "long.csv.gz")


def test_a_file_above_the_limit_of_the_tier_is_not_even_stored(orchard: Terminal) -> None:
    orchard("tenants", "add", tenant_file(Path(), "small", tier="free")).worked()
    with Path("big.csv").open("wb") as file:
        file.truncate(200_000_001)
    orchard("upload", "small", "sales", "history", "big.csv").failed(1, "too large", "at most 200,000,000 bytes")
    assert orchard("receipts", "small", "--json").json == []


def test_duplicate_row_keys_are_accounted_for_and_the_last_one_wins(orchard: Terminal) -> None:
    orchard("tenants", "add", tenant_file(Path(), "twice")).worked()
    Path("twice.csv").write_text(history() + history(5, seed=9).partition("\n")[2])
    [upload] = orchard("upload", "twice", "sales", "history", "twice.csv", "--json").worked().json
    assert upload["status"] == "done"
    counts = [upload[f"rows_{state}"] for state in ("read", "accepted", "quarantined", "duplicate")]
    assert counts == [270, 240, 0, 30]
    assert len(orchard("quarantine", "twice", "sales", "--json", "--limit", 100).json) == 30


def test_a_second_header_in_the_middle_is_a_bad_row_and_the_report_is_drawn(orchard: Terminal) -> None:
    orchard("tenants", "add", tenant_file(Path(), "glued")).worked()
    Path("glued.csv").write_text(history() + history(5, first="2026-03-01"))
    [upload] = orchard("upload", "glued", "sales", "history", "glued.csv", "--json").worked().json
    assert (upload["rows_accepted"], upload["rows_quarantined"]) == (270, 1)


def test_tolerated_bad_rows_go_to_quarantine_and_the_rest_counts(orchard: Terminal) -> None:
    orchard("tenants", "add", tenant_file(Path(), "some")).worked()
    text = history()
    Path("some.csv").write_text(text.replace(text.split("\n")[1], FIRST.replace("2026-03-01", "2026-13-01"), 1))
    answer = orchard("upload", "some", "sales", "history", "some.csv", "--json").worked()
    [upload] = answer.json
    assert (upload["status"], upload["rows_accepted"], upload["rows_quarantined"]) == ("done", 239, 1)
    assert f"some.csv that were set aside: orchard quarantine some sales --upload {upload['upload_id']}" in answer.err
    [row] = orchard("quarantine", "some", "sales", "--json").json
    assert row["line"] == 2
    assert "day is not a date" in row["rule"]


def test_scoring_and_actuals_have_columns_of_their_own(orchard: Terminal, shop: str) -> None:
    Path("open.csv").write_text(scoring())
    orchard("upload", shop, "sales", "actuals", "open.csv").failed(1, "missing column for actuals: sales")
    Path("closed.csv").write_text(scoring().replace("promo", "promotion", 1))
    orchard("upload", shop, "sales", "scoring", "closed.csv").failed(
        1, "missing column for scoring: promo", *COLUMNS[:6]
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("upload", "nobody", "sales", "history", "good.csv"), ("no tenant 'nobody'", "orchard tenants list")),
        (("upload", "shop", "nothing", "history", "good.csv"), ("no use case 'nothing'", "expected  sales")),
        (("upload", "shop", "sales", "histories", "good.csv"), ("histories", "'history', 'scoring', 'actuals'")),
        (("upload", "shop", "sales", "history", "absent.csv"), ("absent.csv", "does not exist")),
        (("upload", "shop", "sales", "history", "."), ("is a directory",)),
        (("upload", "../shop", "sales", "history", "good.csv"), ("no tenant '../shop'",)),
        (("run", "shop", "nothing"), ("no use case 'nothing'",)),
        (("models", "nobody", "sales"), ("no tenant 'nobody'",)),
        (("results", "shop", "nothing"), ("no use case 'nothing'",)),
        (("receipts", "shop", "nothing"), ("no use case 'nothing'",)),
        (("quarantine", "shop", "sales", "--upload", "../../etc/passwd"), ("no upload",)),
        (("releases", "list", "shop", "nothing"), ("no use case 'nothing'",)),
        (("releases", "approve", "shop", "sales"), ("no release waits", "orchard releases list shop sales")),
        (("releases", "rollback", "shop", "sales", "--to", "99"), ("no release 99",)),
        (("tenants", "show", "nobody"), ("no tenant 'nobody'",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_unknown_names_are_wrong_use(
    orchard: Terminal, shop: str, words: tuple[str, ...], says: tuple[str, ...]
) -> None:
    Path("good.csv").write_text(GOOD)
    before = what_serves(orchard, shop)
    orchard(*words).failed(2, *says)
    assert what_serves(orchard, shop) == before


def test_as_a_process_of_its_own(orchard: Terminal, shop: str) -> None:
    Path("empty.csv").write_text("")
    Path("broken.csv").write_text(GOOD.replace("color", "colour", 1))
    orchard.process("upload", shop, "sales", "history", "broken.csv").failed(1, "colour", "do next")
    [upload] = orchard.process("upload", shop, "sales", "scoring", "empty.csv", "--json").failed(1, "empty").json
    assert upload["status"] == "rejected"
    answer = orchard.process("upload", shop, "sales", "history", "absent.csv").failed(2, "absent.csv")
    assert answer.out == ""
