"""Definition files: every mistake is named with its line, and nothing that YAML could smuggle in is accepted."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from infra.definitions import MAX_BYTES, load_tenant, parse
from infra.settings import load_settings
from tasks.domain.errors import InvalidDefinition
from tasks.domain.tenant import Tenant, TierPolicy

GOOD = textwrap.dedent("""\
    id: acme
    name: Acme
    tier: standard
    use_cases:
      - id: sales
        kind: regression
        contract:
          columns:
            store: {type: integer}
            day: {type: date}
            price: {type: number, min: 0}
            sales: {type: number}
          row_key: [store, day]
        derived:
          weekday: {as: date_part, from: day, part: weekday}
        partition_by: [store]
        target: sales
        time: day
        features:
          numeric: [price]
          categorical: [weekday]
    """)


def refused(text: str) -> str:
    with pytest.raises(InvalidDefinition) as caught:
        parse(Tenant, text.encode(), "acme.yaml")
    return str(caught.value)


def line_of(text: str, part: str) -> int:
    [number] = [number for number, line in enumerate(text.splitlines(), 1) if part in line]
    return number


def test_a_good_file_is_understood() -> None:
    tenant = parse(Tenant, GOOD.encode(), "acme.yaml")
    assert tenant.use_case("sales").features.all == ("price", "weekday")


MISTAKES = {
    "unknown field": ("tier: standard", "tier: standard\ncolour: red", "colour", "there is no such field"),
    "unknown nested field": (
        "    target: sales",
        "    target: sales\n    goal: sales",
        "goal:",
        "there is no such field",
    ),
    "unknown field of a column": (
        "{type: number, min: 0}",
        "{type: number, minimum: 0}",
        "price:",
        "there is no such field",
    ),
    "wrong type": ("type: integer}", "type: whole}", "store:", "'integer'"),
    "wrong tier": ("tier: standard", "tier: gold", "tier:", "found 'gold'"),
    "bad identifier": ("id: acme", "id: Acme Inc", "id: Acme", "found 'Acme Inc'"),
    "text for a number": ("min: 0}", "min: none}", "price:", "found 'none'"),
    "bound of a text": (
        "day: {type: date}",
        "day: {type: date, min: 3}",
        " day: {",
        "min and max need a numeric column",
    ),
    "unknown transformation": ("as: date_part", "as: python", "weekday: {", "python"),
    "missing column in features": ("numeric: [price]", "numeric: [weight]", "- id: sales", "features names 'weight'"),
    "missing column in partition_by": ("partition_by: [store]", "partition_by: [shop]", "- id: sales", "names 'shop'"),
    "missing column in the row key": (
        "row_key: [store, day]",
        "row_key: [store, hour]",
        "contract:",
        "the column 'hour'",
    ),
    "missing target": ("target: sales", "target: profit", "- id: sales", "target names 'profit'"),
}


@pytest.mark.parametrize(("good", "bad", "at", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_with_its_line(good: str, bad: str, at: str, says: str) -> None:
    text = GOOD.replace(good, bad, 1)
    assert text != GOOD
    message = refused(text)
    assert says in message
    assert f"acme.yaml:{line_of(text, at)}: " in message


def test_all_mistakes_are_named_at_once() -> None:
    text = GOOD.replace("tier: standard", "tier: gold").replace("type: integer}", "type: whole}") + "colour: red\n"
    message = refused(text)
    assert "3 mistakes" in message
    for at in ("tier: gold", "store:", "colour:"):
        assert f"acme.yaml:{line_of(text, at)}: " in message


def test_a_missing_field_is_named_where_it_should_be() -> None:
    text = GOOD.replace("    target: sales\n", "")
    assert f"acme.yaml:{line_of(text, '- id: sales')}: use_cases.0.target: Field required" in refused(text)


def test_two_use_cases_of_one_name() -> None:
    use_case = GOOD[GOOD.index("  - id") :]
    assert "use case 'sales' is declared twice" in refused(GOOD + use_case)


ODD = {
    "alias": ("a: &x [1]\nb: *x\n", "aliases are not allowed", "acme.yaml:2"),
    "billion laughs": ("a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "aliases are not allowed", "acme.yaml:2"),
    "key twice": (GOOD + "id: other\n", "'id' comes twice", f"acme.yaml:{len(GOOD.splitlines()) + 1}"),
    "Python tag": ("!!python/object/apply:os.system [ls]\n", "could not determine a constructor", "acme.yaml:1"),
    "unfinished": ("a: [1\n", "valid YAML", "acme.yaml:2"),
    "tab": ("a:\n\t- b\n", "valid YAML", "acme.yaml:2"),
    "list": ("- a\n", "a mapping of fields", "acme.yaml"),
    "text": ("acme", "a mapping of fields", "acme.yaml"),
    "empty": ("", "a mapping of fields", "acme.yaml"),
    "two documents": ("a: 1\n---\nb: 2\n", "valid YAML", "acme.yaml:2"),
    "control character": ("a: \x07\n", "valid YAML", "acme.yaml"),
    "deeply nested": ("[" * 5000, "valid YAML", "acme.yaml"),
    "huge number": ("a: " + "9" * 5000 + "\n", "valid YAML", "acme.yaml"),
    "mapping as a key": ("{a: 1}: 2\n", "valid YAML", "acme.yaml:1"),
}


@pytest.mark.parametrize(("text", "says", "where"), ODD.values(), ids=ODD)
def test_what_is_no_plain_mapping_is_refused(text: str, says: str, where: str) -> None:
    message = refused(text)
    assert says in message
    assert where in message


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(InvalidDefinition, match="valid YAML"):
        parse(Tenant, b"a: \xff\xfe\xfa", "acme.yaml")


@given(st.one_of(st.text(), st.binary().map(lambda data: data.decode("latin-1"))))
def test_no_text_raises_anything_else(text: str) -> None:
    with pytest.raises(InvalidDefinition):
        parse(Tenant, text.encode("utf-8", "replace"), "acme.yaml")


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(Tenant.model_fields)), VALUES)
def test_no_value_raises_anything_else(field: str, value: Any) -> None:
    content = yaml.safe_load(GOOD) | {field: value}
    try:
        tenant = parse(Tenant, yaml.safe_dump(content).encode(), "acme.yaml")
    except InvalidDefinition:
        return
    assert getattr(tenant, field) == value


def test_files(tmp_path: Path) -> None:
    with pytest.raises(InvalidDefinition, match="no such tenant file"):
        load_tenant(tmp_path / "absent.yaml")
    with pytest.raises(InvalidDefinition, match="no such tenant file"):
        load_tenant(tmp_path)
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(InvalidDefinition, match="too large"):
        load_tenant(large)
    good = tmp_path / "good.yaml"
    good.write_text(GOOD)
    assert load_tenant(good).id == "acme"


def test_other_kinds_are_parsed_alike() -> None:
    with pytest.raises(InvalidDefinition, match=r"tiers\.yaml:2: runs: .*found 0"):
        parse(TierPolicy, b"workers: 1\nruns: 0\nmax_upload_bytes: 5\n", "tiers.yaml")


@pytest.mark.parametrize("made_by_another", [True, False])
def test_a_home_that_is_closed_to_this_user(made_by_another: bool) -> None:
    """`sudo orchard up`, and then without `sudo`."""
    with TemporaryDirectory(prefix="orchard-closed-") as name:
        home = Path(name) / "home"
        if made_by_another:
            load_settings(home=home)
        Path(name).chmod(0o755 if made_by_another else 0o555)
        if os.geteuid() == 0:
            os.seteuid(65534)  # nobody: root may do everything
        elif made_by_another:
            (home / "secret.key").chmod(0)
        try:
            with pytest.raises(InvalidDefinition, match="this user may not use Orchard's folder") as refused:
                load_settings(home=home)
            assert str(home) in str(refused.value)
        finally:
            if os.getuid() == 0:
                os.seteuid(0)
            Path(name).chmod(0o755)
