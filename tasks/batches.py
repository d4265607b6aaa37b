"""How partitions travel: in batches of one bucket each, sized so that a run has some two hundred mapped tasks at most.

A batch costs about 40 ms of CPU whatever it holds, half of it in Prefect's server: it holds at least `MIN_ROWS` rows,
and up to `GOOD_ROWS` (two seconds of work) as long as that leaves `ENOUGH` batches to spread over threads: four hundred
partitions of a few hundred rows go in thirty tasks, not in four hundred.
"""

from __future__ import annotations

import pandas as pd

from tasks.domain.run import Batch

MIN_ROWS = 5_000
GOOD_ROWS, ENOUGH = 80_000, 24


def plan_batches(run_id: int, partitions: pd.DataFrame, max_batches: int) -> list[Batch]:
    """Batches over all partitions, numbered from 1, the largest first: then threads end at about the same time.

    `partitions`: one row per partition with `partition`, `bucket`, `rows`. The plan depends on their set alone, not
    on their order.
    """
    if partitions.empty:
        return []
    ordered = partitions.sort_values(["bucket", "partition"])
    total = int(ordered["rows"].sum())
    size = max(MIN_ROWS, min(GOOD_ROWS, total // ENOUGH), -(-total // max_batches))
    found: list[tuple[int, int, tuple[str, ...]]] = []  # rows, bucket, partitions
    names: list[str] = []
    rows = 0
    current: int | None = None

    def close() -> None:
        nonlocal names, rows
        if names and current is not None:
            found.append((rows, current, tuple(names)))
        names, rows = [], 0

    for name, bucket, count in zip(ordered["partition"], ordered["bucket"], ordered["rows"], strict=True):
        if bucket != current or (names and rows + count > size):
            close()
        current = int(bucket)
        names.append(str(name))
        rows += int(count)
    close()
    found.sort(key=lambda batch: -batch[0])
    return [
        Batch(run_id=run_id, number=number, bucket=bucket, partitions=partitions, rows=rows)
        for number, (rows, bucket, partitions) in enumerate(found, start=1)
    ]


def held_bytes(frame: pd.DataFrame) -> int:
    """Bytes of the frame's columns in memory; of texts that are Python objects, their references alone."""
    return int(frame.memory_usage(index=False).sum())
