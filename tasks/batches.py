"""How partitions travel: in batches of one bucket each, sized so that a run has some two hundred mapped tasks at most.

A mapped task costs about 3.5 ms and a few database round trips, so a batch also holds at least `MIN_ROWS` rows: four
hundred partitions of a few hundred rows go in thirty tasks, not in four hundred.
"""

from __future__ import annotations

import pandas as pd

from tasks.domain.run import Batch

MIN_ROWS = 5_000


def plan_batches(run_id: int, partitions: pd.DataFrame, max_batches: int) -> list[Batch]:
    """Batches over all partitions, numbered from 1.

    `partitions`: one row per partition with `partition`, `bucket`, `rows`. The plan depends on their set alone, not
    on their order.
    """
    if partitions.empty:
        return []
    ordered = partitions.sort_values(["bucket", "partition"])
    size = max(MIN_ROWS, -(-int(ordered["rows"].sum()) // max_batches))
    batches: list[Batch] = []
    names: list[str] = []
    rows = 0
    current: int | None = None

    def close() -> None:
        nonlocal names, rows
        if names and current is not None:
            batches.append(
                Batch(run_id=run_id, number=len(batches) + 1, bucket=current, partitions=tuple(names), rows=rows)
            )
        names, rows = [], 0

    for name, bucket, count in zip(ordered["partition"], ordered["bucket"], ordered["rows"], strict=True):
        if bucket != current or (names and rows + count > size):
            close()
        current = int(bucket)
        names.append(str(name))
        rows += int(count)
    close()
    return batches
