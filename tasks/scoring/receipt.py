"""What became of the rows of a scoring run."""

from __future__ import annotations

import pandas as pd

from tasks.domain.outcome import ScoringReceipt


def scoring_receipt(scored: pd.DataFrame) -> ScoringReceipt:
    """`scored`: one row per (partition, answer, fallback) with `rows`, as the database counted them."""
    answers = scored.groupby("answer")["rows"].sum()
    return ScoringReceipt(
        rows=int(scored["rows"].sum()),
        own=int(answers.get("own", 0)),
        tenant_wide=int(answers.get("tenant_wide", 0)),
        naive=int(answers.get("naive", 0)),
        fallback=int(scored.loc[scored["fallback"].astype(bool), "rows"].sum()),
        partitions=int(scored["partition"].nunique()),
        unseen_partitions=int(scored.loc[~scored["known"].astype(bool), "partition"].nunique()),
    )
