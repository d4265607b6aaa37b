"""Budgets: what is one, when a limit is reached, and how the platform's is shared out."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.domain.budget import Budget, Claim, Level, Period, Standing, amount, money, share_out, soft_limit
from tasks.domain.errors import InvalidDefinition


def budget(**changes: object) -> Budget:
    known: dict[str, object] = {"tenant": "acme", "hard": Decimal(12), "soft": Decimal("9.6"), "currency": "EUR"}
    return Budget.model_validate(known | changes)


def standing(spent: str, **changes: object) -> Standing:
    known: dict[str, object] = {"budget": budget(), "limit": Decimal(12), "about": "2026-11", "spent": Decimal(spent)}
    return Standing.model_validate(known | changes)


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, "9.6"), ("75%", "9"), ("0%", "0"), ("100%", "12"), ("3.50", "3.5"), (" 33.5 % ", "4.02")],
)
def test_a_soft_limit_is_a_share_or_an_amount(text: str | None, expected: str) -> None:
    assert soft_limit(text, Decimal(12)) == Decimal(expected)


@pytest.mark.parametrize("text", ["", "much", "-1", "NaN", "inf", "1e-9", "12,50", "1.0000001", "1e25", "sNaN"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(InvalidDefinition):
        amount(text)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"soft": Decimal(13)}, "above the hard one"),
        ({"hard": Decimal(0), "soft": Decimal(0)}, "greater than 0"),
        ({"tenant": None, "use_case": "demand"}, "per month"),
        ({"tenant": None, "period": Period.RUN}, "per month"),
        ({"priority": 1, "period": Period.RUN}, "a priority belongs"),
        ({"priority": 1, "use_case": "demand"}, "a priority belongs"),
        ({"priority": 1, "tenant": None}, "a priority belongs"),
        ({"currency": "euro"}, "currency"),
    ],
)
def test_what_is_no_budget_is_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        budget(**changes)


@pytest.mark.parametrize(
    ("spent", "level"),
    [
        ("0", None),
        ("9.599999", None),
        ("9.6", Level.SOFT),
        ("11.99", Level.SOFT),
        ("12", Level.HARD),
        ("40", Level.HARD),
    ],
)
def test_a_limit_is_reached_when_so_much_is_spent(spent: str, level: Level | None) -> None:
    assert standing(spent).level is level


def test_the_message_says_how_much_and_what_mends_it() -> None:
    assert standing("12.404").message == (
        "over budget: 12.40 of 12.00 EUR this month; do next: raise it with orchard budgets set acme --hard AMOUNT"
    )
    of_run = standing("0.0345678", budget=budget(use_case="demand", period=Period.RUN), about="run 7")
    assert (
        "0.034568 of 12.00 EUR in run 7; do next: raise it with orchard budgets set acme demand --per run"
        in of_run.message
    )
    share = standing("12", budget=budget(tenant=None), tenant="acme")
    assert (
        "acme's share of the platform's budget; do next: raise it with orchard budgets set --platform" in share.message
    )


def test_money_is_shown_to_the_cent() -> None:
    assert [money(Decimal(each)) for each in ("0", "1", "12.345", "0.005", "1234567.891", "0.0000004")] == [
        "0.00", "1.00", "12.35", "0.005", "1234567.89", "0.00"
    ]  # fmt: skip


def test_the_highest_priority_gets_what_it_needs() -> None:
    claims = [
        Claim("low", Decimal(10), 0, Decimal(0)),
        Claim("also-low", Decimal(0), 0, Decimal(50)),
        Claim("middle", Decimal(5), 3, Decimal(15)),
        Claim("high", Decimal(20), 9, Decimal(40)),
    ]
    # 100 less 35 that are spent: 65 for `high`; it needs 40 of them: 25 for `middle`; 15 of those: 10 for the others.
    expected = {"high": 85, "middle": 30, "low": 20, "also-low": 10}
    assert share_out(Decimal(100), claims) == {name: Decimal(limit) for name, limit in expected.items()}


def test_who_needs_all_leaves_the_others_what_they_have_spent() -> None:
    claims = [Claim("high", Decimal(1), 1, Decimal(1000)), Claim("low", Decimal(2), 0, Decimal(0))]
    assert share_out(Decimal(10), claims) == {"high": Decimal(8), "low": Decimal(2)}


claims = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 9), st.integers(0, 50)), max_size=6, unique_by=lambda each: each[1]
).map(
    lambda found: [Claim(f"t{place}", Decimal(each[0]), each[1], Decimal(each[2])) for place, each in enumerate(found)]
)


@given(claims, st.integers(1, 300))
def test_shares_keep_the_platform_within_its_limit(known: list[Claim], hard: int) -> None:
    limits = share_out(Decimal(hard), known)
    spent = {each.tenant: each.spent for each in known}
    assert limits.keys() == spent.keys()
    before = sum(spent.values())
    for each in known:
        # Nobody is told to have spent less than it has, and nobody alone exceeds what is left.
        assert each.spent <= limits[each.tenant] <= each.spent + max(0, hard - before)
    # Each spends as much as it needs and may, all at once.
    together = sum(min(limits[each.tenant], each.spent + each.need) for each in known)
    assert together <= max(hard, before)


@given(claims, st.integers(1, 300))
def test_what_a_high_priority_needs_is_never_given_to_a_lower_one(known: list[Claim], hard: int) -> None:
    limits = share_out(Decimal(hard), known)
    left = max(Decimal(0), hard - sum((each.spent for each in known), Decimal(0)))
    for each in sorted(known, key=lambda claim: -claim.priority):
        assert limits[each.tenant] - each.spent >= min(each.need, left)
        left -= min(each.need, left)
