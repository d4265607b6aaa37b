"""The inbox: what is in it is taken out only once it was admitted."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.inbox import Inbox
from infra.lake.files import LakeFiles
from infra.lake.location import Location
from tasks.domain.errors import InvalidDefinition
from tasks.domain.names import Purpose

PATH = "acme/sales/history/day.csv"


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    found = Inbox(LakeFiles(Location(tmp_path.as_uri())))
    found.files.write(PATH, b"first")
    return found


def test_an_admitted_file_is_taken_out(inbox: Inbox) -> None:
    with inbox.local(PATH) as (place, file, stamp):
        assert place == ("acme", "sales", Purpose.HISTORY)
        assert file is not None
        assert file.read_bytes() == b"first"
    inbox.remove(PATH, stamp)
    assert not inbox.files.exists(PATH)
    with inbox.local(PATH) as (_, file, stamp):
        assert (file, stamp) == (None, None)


def test_a_file_that_came_in_its_place_stays(inbox: Inbox) -> None:
    with inbox.local(PATH) as (_, _, stamp):
        inbox.files.write(PATH, b"other")  # of the same size
    inbox.remove(PATH, stamp)
    assert inbox.files.read(PATH) == b"other"


def test_a_file_that_came_in_the_place_of_a_refused_one_stays(inbox: Inbox) -> None:
    with inbox.local(PATH) as (_, _, stamp):
        inbox.files.write(PATH, b"other")
    inbox.refuse(PATH, "the first was too large", stamp)
    assert inbox.files.read(PATH) == b"other"
    with inbox.local(PATH) as (_, _, stamp):
        pass
    inbox.refuse(PATH, "so is this", stamp)
    assert not inbox.files.exists(PATH)
    assert inbox.files.read(f"rejected/{PATH}") == b"other"
    assert inbox.files.read(f"rejected/{PATH}.txt") == b"so is this\n"


@pytest.mark.parametrize(
    "path", ["acme/sales/history/", "acme/sales/x/a.csv", "../sales/history/a.csv", "a.csv", "A/b/history/c"]
)
def test_what_is_no_place_is_refused(inbox: Inbox, path: str) -> None:
    with pytest.raises(InvalidDefinition), inbox.local(path):
        pass
