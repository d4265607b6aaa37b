"""Links in the attacker's inbox that lead to the victim's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from infra.attacks.attempt import Finding, Group, denied, succeeded, unproven
from infra.attacks.canary import CANARY
from infra.attacks.scene import Scene
from infra.inbox import open_inbox
from tasks.domain.errors import Permanent
from tasks.domain.names import Purpose

GROUP = Group("inbox")

Place = Callable[[Path, str], str]


def _link(folder: Path, target: str) -> str:
    (folder / f".{CANARY}-link.csv").symlink_to(target)
    return f".{CANARY}-link.csv"


def _relative(folder: Path, target: str) -> str:
    (folder / f".{CANARY}-relative.csv").symlink_to(f"../../../../{'/'.join(Path(target).parts[-5:])}")
    return f".{CANARY}-relative.csv"


@contextmanager
def _dropped(scene: Scene) -> Iterator[tuple[Path, Path] | None]:
    """The attacker's folder in the inbox, and a file that lies in the victim's; None where the inbox is a bucket. Names
    begin with a dot, so that the watcher leaves them alone."""
    root = open_inbox(scene.settings).files.location.local
    if root is None:
        yield None
        return
    mine, theirs = (
        root / canary.tenant / canary.use_case / Purpose.HISTORY / f".{canary.marker}"
        for canary in (scene.mine, scene.prey)
    )
    made = [folder for folder in (*reversed(mine.parents), *reversed(theirs.parents)) if not folder.exists()]
    for path in (mine, theirs):
        path.parent.mkdir(parents=True, exist_ok=True)
    theirs.write_bytes(scene.prey.content)
    try:
        yield mine.parent, theirs
    finally:
        theirs.unlink()
        for path in mine.parent.glob(f".{CANARY}-*"):
            path.unlink()
        for folder in reversed(made):
            if not any(folder.iterdir()):
                folder.rmdir()


def _admitted(place: Place, scene: Scene) -> Finding:
    """What admission does with a path of the inbox, up to where it would record an upload."""
    with _dropped(scene) as folders:
        if folders is None:
            return unproven("an inbox in a bucket has no links")
        mine, theirs = folders
        path = f"{scene.attacker.tenant.id}/{scene.mine.use_case}/{Purpose.HISTORY}/{place(mine, str(theirs))}"

        def act() -> str:
            with open_inbox(scene.settings).local(path) as (_, file, _):
                return "nothing" if file is None else file.read_text()

        try:
            found = act()
        except Permanent as error:
            return denied(f"{type(error).__name__}: {error}")
    return succeeded(f"the victim's file, of {len(found)} characters, would become an upload of the attacker's")


for _name, _what, _place in (
    ("link", "puts a link to the victim's file into its own inbox", _link),
    ("relative-link", "puts a link that goes up into its own inbox", _relative),
):
    GROUP.add(_name, _what, partial(_admitted, _place))


@GROUP.attack("puts a link to the victim's folder into its own inbox")
def folder(scene: Scene) -> Finding:
    def place(folder: Path, target: str) -> str:
        (folder / f".{CANARY}-folder").symlink_to(Path(target).parent)
        return f".{CANARY}-folder/{Path(target).name}"

    return _admitted(place, scene)
