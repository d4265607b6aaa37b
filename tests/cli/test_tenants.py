"""Onboarding at the command line: once, twice, changed, and with mistakes."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.cli.shop import definition, tenant_file
from tests.cli.terminal import Terminal


def shown(orchard: Terminal, tenant: str) -> object:
    return orchard("tenants", "show", tenant, "--json").worked().json


def test_onboarding_twice_changes_nothing(orchard: Terminal) -> None:
    file = tenant_file(Path(), "once")
    assert "once (standard): onboarded" in orchard("tenants", "add", file).worked().out
    before = shown(orchard, "once")
    again = orchard("tenants", "add", file).worked()
    assert again.out.strip() == "once (standard): unchanged"
    assert shown(orchard, "once") == before
    assert [row["tenant"] for row in orchard("tenants", "list", "--json").json].count("once") == 1


def test_what_is_shown_can_be_onboarded_again(orchard: Terminal) -> None:
    orchard("tenants", "add", tenant_file(Path(), "echo")).worked()
    Path("shown.yaml").write_text(orchard("tenants", "show", "echo").worked().out)
    assert "unchanged" in orchard("tenants", "add", "shown.yaml").worked().out


def test_a_changed_file_shows_its_changes_and_asks(orchard: Terminal) -> None:
    orchard("tenants", "add", tenant_file(Path(), "moves")).worked()
    before = shown(orchard, "moves")
    changed = tenant_file(Path(), "moves", tier="premium", gate={"min_gain": 0.02})
    for answers in ("n\n", ""):  # no, and nobody there to ask
        refused = orchard("tenants", "add", changed, answers=answers).failed(1)
        assert "tier: standard → premium" in refused.out
        assert "sales.gate.min_gain: 0.0 → 0.02" in refused.out
        assert shown(orchard, "moves") == before
    agreed = orchard("tenants", "add", changed, answers="y\n").worked()
    assert "moves (premium): changed" in agreed.out
    assert shown(orchard, "moves") != before
    back = orchard("tenants", "add", tenant_file(Path(), "moves"), "--yes").worked()
    assert "tier: premium → standard" in back.out
    assert shown(orchard, "moves") == before


def test_what_stored_rows_are_laid_out_by_cannot_change(orchard: Terminal) -> None:
    orchard("tenants", "add", tenant_file(Path(), "fixed")).worked()
    before = shown(orchard, "fixed")
    changed = tenant_file(Path(), "fixed", partition_by=["store"])
    orchard("tenants", "add", changed, "--yes").failed(2, "partition_by", "cannot change", "declare a new use case")
    contract = definition("fixed")["use_cases"][0]["contract"] | {"row_key": ["store", "sku"]}
    changed = tenant_file(Path(), "fixed", contract=contract)
    orchard("tenants", "add", changed, "--yes").failed(2, "row_key", "cannot change")
    assert shown(orchard, "fixed") == before


def test_a_use_case_that_was_switched_off_comes_back_as_it_was(orchard: Terminal) -> None:
    spec = definition("returns")
    tenant_file(Path(), "returns")
    orchard("tenants", "add", "returns.yaml").worked()
    other = spec["use_cases"][0] | {"id": "stock"}
    Path("returns.yaml").write_text(yaml.safe_dump(spec | {"use_cases": [other]}))
    orchard("tenants", "add", "returns.yaml", "--yes").worked()
    Path("returns.yaml").write_text(
        yaml.safe_dump(spec | {"use_cases": [spec["use_cases"][0] | {"partition_by": ["store"]}]})
    )
    orchard("tenants", "add", "returns.yaml", "--yes").failed(
        2, "partition_by", "cannot change", "declare a new use case"
    )
    orchard("tenants", "add", tenant_file(Path(), "returns"), "--yes").worked()


def test_a_use_case_that_names_a_missing_column(orchard: Terminal) -> None:
    file = tenant_file(Path(), "astray", features={"numeric": ["price", "weight"]})
    orchard("tenants", "add", file).failed(2, "astray.yaml:", "features names 'weight', which is neither a column")
    orchard("tenants", "show", "astray").failed(2, "no tenant 'astray'")


def test_unknown_fields_are_refused_with_their_lines(orchard: Terminal) -> None:
    text = yaml.safe_dump(definition("typo"), sort_keys=False) + "colour: red\n"
    Path("typo.yaml").write_text(text.replace("target: sales", "targets: sales"))
    answer = orchard("tenants", "add", "typo.yaml").failed(2, "there is no such field", "targets", "colour")
    assert f"typo.yaml:{len(text.splitlines())}: colour" in answer.err


def test_files_that_are_no_definitions(orchard: Terminal) -> None:
    for content in (
        b"",
        b"- a\n- list\n",
        b"a: [1\n",
        bytes(range(256)),
        b"a: &x [1]\nb: *x\n",
        b"!!python/object:os.x {}\n",
    ):
        Path("odd.yaml").write_bytes(content)
        orchard("tenants", "add", "odd.yaml").failed(2, "odd.yaml")
    orchard("tenants", "add", "absent.yaml").failed(2, "no such tenant file", "absent.yaml")
    orchard("tenants", "add", ".").failed(2, "no such tenant file")


def test_of_several_files_none_is_applied_when_one_is_wrong(orchard: Terminal) -> None:
    right = tenant_file(Path(), "right")
    Path("wrong.yaml").write_text("id: wrong\n")
    orchard("tenants", "add", right, "wrong.yaml").failed(2, "wrong.yaml", "name", "tier", "use_cases")
    orchard("tenants", "show", "right").failed(2, "no tenant 'right'")
