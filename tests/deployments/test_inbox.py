"""The inbox's watcher: what counts as a complete file, and when it is announced."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.inbox import (
    AGAIN_S,
    MOST_UNDER_WAY,
    SETTLED_S,
    Seen,
    Stamp,
    bucket_listing,
    folder_listing,
    is_candidate,
    look,
    overdue,
    watch,
)
from infra.lake.location import Location
from infra.settings import load_settings

FILE = "acme/demand/history/a.csv"


def looks(*listings: tuple[float, dict[str, Stamp]]) -> list[list[str]]:
    """What each of the looks announces; each is (time, listing)."""
    seen: Seen = {}
    announced = []
    for now, listing in listings:
        paths, seen = look(seen, listing, now)
        announced.append(paths)
    return announced


def test_a_file_is_announced_once_it_has_not_changed_for_a_second() -> None:
    growing, whole = {FILE: Stamp(10, 1.0)}, {FILE: Stamp(20, 2.0)}
    assert looks((0, growing), (1, whole), (1.5, whole), (2, whole), (3, whole)) == [[], [], [], [FILE], []]


def test_a_change_of_time_alone_is_a_change() -> None:
    assert looks((0, {FILE: Stamp(10, 1.0)}), (2, {FILE: Stamp(10, 2.0)})) == [[], []]


def test_what_still_lies_there_after_a_minute_is_announced_again() -> None:
    still = {FILE: Stamp(10, 1.0)}
    assert looks((0, still), (1, still), (60.9, still), (61, still), (62, still), (121, still)) == [
        [], [FILE], [], [FILE], [], [FILE],
    ]  # fmt: skip


def test_names_that_nobody_can_say_are_no_candidates() -> None:
    for name in ("a\nb.csv", "a\\b.csv", "a\x1b.csv", "a／b.csv", "x" * 201, "\udcff.csv"):
        assert not is_candidate(f"acme/demand/history/{name}")
    assert is_candidate("acme/demand/history/Käse 2024.csv")


def test_a_file_that_was_admitted_and_comes_again_is_a_new_one() -> None:
    there = {FILE: Stamp(10, 1.0)}
    assert looks((0, there), (1, there), (2, {}), (3, there), (4, there)) == [[], [FILE], [], [], [FILE]]


def test_a_file_that_is_written_anew_is_announced_anew() -> None:
    old, new = {FILE: Stamp(10, 1.0)}, {FILE: Stamp(11, 9.0)}
    assert looks((0, old), (1, old), (9, new), (10, new)) == [[], [FILE], [], [FILE]]


def test_the_oldest_file_is_announced_first() -> None:
    listing = {"t/u/history/new": Stamp(1, 5.0), "t/u/history/old": Stamp(1, 4.0)}
    assert looks((0, listing), (1, listing))[1] == ["t/u/history/old", "t/u/history/new"]


steps = st.lists(st.tuples(st.floats(0.1, 30), st.sampled_from([None, 1, 2])), min_size=1, max_size=40)


@given(steps)
def test_nothing_is_announced_that_was_not_seen_unchanged_nor_too_often(steps: list[tuple[float, int | None]]) -> None:
    seen: Seen = {}
    now, last, since, before = 0.0, None, 0.0, None
    for pause, size in steps:
        now += pause
        if size != before:
            since, last, before = now, None, size
        announced, seen = look(seen, {} if size is None else {FILE: Stamp(size, 0.0)}, now)
        assert set(seen) == ({FILE} if size is not None else set())
        if announced:
            assert size is not None
            assert now >= since + SETTLED_S  # as the code adds: differences round otherwise
            assert last is None or now >= last + AGAIN_S
            last = now
        elif size is not None:
            assert now < since + SETTLED_S or (last is not None and now < last + AGAIN_S)


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        (FILE, True),
        ("acme/demand/history/a.csv.gz", True),
        ("acme/demand/history/rejected", True),  # a file may be called that
        ("acme/demand/history/.a.csv", False),
        ("acme/.demand/history/a.csv", False),
        ("acme/demand/history/a.csv.part", False),
        ("acme/demand/history/a.csv.TMP", False),
        ("acme/demand/history/a.partial", False),
        ("acme/demand/history/a.crdownload", False),
        ("acme/demand/a.csv", False),
        ("acme/demand/history/deep/a.csv", False),
        ("rejected/acme/demand/a.csv", False),
        ("acme/demand/rejected/a.csv", False),
    ],
)
def test_what_may_be_a_file_to_admit(path: str, is_one: bool) -> None:
    assert is_candidate(path) is is_one


def test_only_real_files_of_the_right_depth_are_listed(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    assert folder_listing(inbox) == {}
    for path in (FILE, "acme/demand/history/.hidden", "acme/loose.csv", f"rejected/{FILE}", f"{FILE}.part"):
        (inbox / path).parent.mkdir(parents=True, exist_ok=True)
        (inbox / path).write_text("12345")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "b.csv").write_text("secret")
    (inbox / "acme/demand/history/link.csv").symlink_to(tmp_path / "secret" / "b.csv")
    (inbox / "acme/demand/scoring").symlink_to(tmp_path / "secret", target_is_directory=True)
    listing = folder_listing(inbox)
    assert set(listing) == {FILE}
    assert listing[FILE].size_bytes == 5


def test_a_folder_that_may_not_be_read_keeps_no_other_waiting() -> None:
    with TemporaryDirectory(prefix="orchard-inbox-") as name:
        inbox = Path(name)
        for path in (FILE, "closed/demand/history/b.csv"):
            (inbox / path).parent.mkdir(parents=True)
            (inbox / path).write_text("12345")
        inbox.chmod(0o755)
        (inbox / "closed").chmod(0o700)
        if os.geteuid() == 0:
            os.seteuid(65534)  # nobody: root may read everything
        else:
            (inbox / "closed").chmod(0)
        try:
            assert set(folder_listing(inbox)) == {FILE}
        finally:
            if os.getuid() == 0:
                os.seteuid(0)
            (inbox / "closed").chmod(0o700)


def test_a_flood_is_announced_as_it_is_admitted_and_keeps_no_other_tenant_waiting() -> None:
    flood = {f"flood/demand/scoring/{n}.csv": Stamp(1, float(n)) for n in range(500)}
    rare = {"rare/demand/scoring/a.csv": Stamp(1, 1000.0)}
    seen: Seen = {}
    announced: list[str] = []
    for second in range(4):  # nothing is admitted
        paths, seen = look(seen, flood | rare, float(second))
        announced += paths
    assert len(announced) == MOST_UNDER_WAY
    assert announced[:2] == ["flood/demand/scoring/0.csv", "rare/demand/scoring/a.csv"]
    left = {path: stamp for path, stamp in flood.items() if path not in announced[:5]}
    paths, seen = look(seen, left, 4.0)
    assert len(paths) == 5  # the one of `rare` and four of the flood were admitted
    assert not set(paths) & set(announced)
    paths, seen = look(seen, left, 61.0)  # those that are stuck do not go before those that are new
    assert not set(paths) & set(announced)


def test_a_bucket_is_swept_for_what_has_lain_there_for_a_minute() -> None:
    listing = {"t/u/history/c": Stamp(1, 39.0), "t/u/history/b": Stamp(1, 40.0), "t/u/history/a": Stamp(1, 41.0)}
    assert overdue(listing, 100.0) == ["t/u/history/c", "t/u/history/b"]


def test_the_watcher_goes_on_when_an_announcement_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import deployments.inbox

    for name in ("LOOK_S", "SETTLED_S", "AGAIN_S"):
        monkeypatch.setattr(deployments.inbox, name, 0.02)  # the waiting is not what is tested
    settings = load_settings(home=tmp_path)
    file = tmp_path / "inbox" / FILE
    file.parent.mkdir(parents=True)
    file.write_text("x")
    stop, calls = threading.Event(), []

    def announce(path: str) -> None:
        calls.append(path)
        if len(calls) == 1:
            raise ConnectionError("Prefect is away")
        stop.set()

    watcher = threading.Thread(target=watch, args=(settings, announce, stop))
    watcher.start()
    watcher.join(timeout=10)
    assert not watcher.is_alive()
    assert calls == [FILE, FILE]


def test_a_bucket_is_swept() -> None:
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        address = {"endpoint_url": f"http://{host}:{port}", "region_name": "us-east-1"}
        client = boto3.client("s3", aws_access_key_id="k", aws_secret_access_key="s", **address)
        client.create_bucket(Bucket="drop")
        for key in (f"inbox/{FILE}", f"inbox/rejected/{FILE}", "inbox/acme/demand/a.csv", f"elsewhere/{FILE}"):
            client.put_object(Bucket="drop", Key=key, Body=b"abc")
        place = Location("s3://drop/inbox", key="k", secret="s", endpoint=address["endpoint_url"], region="us-east-1")
        listing = bucket_listing(place)
    finally:
        server.stop()
    assert list(listing) == [FILE]
    assert listing[FILE].size_bytes == 3
    seen_at = listing[FILE].modified
    assert overdue(listing, seen_at + AGAIN_S - 1) == []
    assert overdue(listing, seen_at + AGAIN_S + 1) == [FILE]
