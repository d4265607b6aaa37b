"""How partitions travel: in batches of one bucket each, sized so that a run has some two hundred mapped tasks at most.

A batch costs about 40 ms of CPU whatever it holds, half of it in Prefect's server: it holds at least `MIN_ROWS` rows,
and up to `GOOD_ROWS` (a second of work) as long as that leaves `ENOUGH` batches to spread over threads: four hundred
partitions of a few hundred rows go in thirty tasks, not in four hundred.
"""

from __future__ import annotations

import pandas as pd

from tasks.domain.run import Batch

MIN_ROWS = 5_000
GOOD_ROWS, ENOUGH = 40_000, 24


def plan_batches(run_id: int, partitions: pd.DataFrame, max_batches: int) -> list[Batch]:
    """Batches over all partitions, numbered from 1.

    `partitions`: one row per partition with `partition`, `bucket`, `rows`. The plan depends on their set alone, not
    on their order.
    """
    if partitions.empty:
        return []
    ordered = partitions.sort_values(["bucket", "partition"])
    total = int(ordered["rows"].sum())
    size = max(MIN_ROWS, min(GOOD_ROWS, total // ENOUGH), -(-total // max_batches))
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
