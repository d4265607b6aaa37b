"""Symbolic links in the attacker's own folder that lead into the victim's. A lake on S3 has none."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from infra.attacks.attempt import Finding, succeeded, unproven
from infra.attacks.canary import CANARY
from infra.attacks.scene import Scene
from infra.attacks.storage.group import GROUP, kept_out, shut_out
from infra.lake.files import LakeFiles

Plant = Callable[[Path, Path], str]


def _file(folder: Path, victim: Path) -> str:
    (folder / "file").symlink_to(victim)
    return "file"


def _folder(folder: Path, victim: Path) -> str:
    (folder / "folder").symlink_to(victim.parent)
    return f"folder/{victim.name}"


def _relative(folder: Path, victim: Path) -> str:
    (folder / "relative").symlink_to(os.path.relpath(victim, folder))
    return "relative"


def _chain(folder: Path, victim: Path) -> str:
    (folder / "last").symlink_to(victim)
    (folder / "chain").symlink_to("last")
    return "chain"


def _middle(folder: Path, victim: Path) -> str:
    (folder / "middle").symlink_to(victim.parent.parent)
    return f"middle/{victim.parent.name}/{victim.name}"


def _back_and_forth(folder: Path, victim: Path) -> str:
    """Through the root and, so it seems, back."""
    (folder / "root").symlink_to("/")
    return f"root{victim}"


WAYS: dict[str, tuple[str, Plant]] = {
    "file": ("a link to the victim's file", _file),
    "folder": ("a link to the victim's folder", _folder),
    "relative": ("a link that goes up by `..`", _relative),
    "chain": ("a link to a link", _chain),
    "middle": ("a link in the middle of a path", _middle),
    "root": ("a link to the root of the file system", _back_and_forth),
}


@contextmanager
def _planted(scene: Scene, plant: Plant) -> Iterator[str]:
    """The path, within the attacker's folder, of a way through a link."""
    root = scene.my_places.lake.local
    theirs = scene.prey_places.lake.local
    assert root is not None
    assert theirs is not None
    name = f"{CANARY}/links-{scene.mine.token}"
    folder = root / name
    folder.mkdir(parents=True)
    try:
        yield f"{name}/{plant(folder, theirs / scene.prey.path)}"
    finally:
        for entry in folder.iterdir():
            entry.unlink()
        folder.rmdir()


def _read(plant: Plant, scene: Scene) -> Finding:
    with _planted(scene, plant) as path:
        return kept_out(scene, lambda: scene.attacker.files.read(path))


for _name, (_what, _plant) in WAYS.items():
    GROUP.add(f"link-{_name}", f"reads through {_what}", partial(_read, _plant), on="local")


def _list(files: LakeFiles, path: str) -> object:
    return files.list(path.rpartition("/")[0])


ACTS: dict[str, tuple[str, Plant, Callable[[LakeFiles, str], object]]] = {
    "list": ("lists the victim's folder through a link", _folder, _list),
    "write": ("writes through a link to the victim's folder", _folder, lambda files, path: files.write(path, b"mine")),
    "delete": ("removes the victim's file through a link", _folder, lambda files, path: files.delete(path)),
    "take": (
        "moves the victim's file out through a link",
        _folder,
        lambda files, path: files.move(path, f"{CANARY}/taken"),
    ),
    "exists": (
        "asks through a link whether the victim has a file",
        _folder,
        lambda files, path: files.exists(path),
    ),
}


def _act(plant: Plant, act: Callable[[LakeFiles, str], object], scene: Scene) -> Finding:
    with _planted(scene, plant) as path:
        finding = shut_out(lambda: act(scene.attacker.files, path))
    if not scene.unharmed():
        return succeeded("the victim's file was changed or removed; it is put back")
    return finding


for _name, (_what, _plant, _does) in ACTS.items():
    GROUP.add(f"{_name}-link", _what, partial(_act, _plant, _does), on="local")


@GROUP.attack("has its own file removed, where that is a link to the victim's", on="local")
def remove_link(scene: Scene) -> Finding:
    with _planted(scene, _file) as path:
        return kept_out(scene, lambda: scene.attacker.files.delete(path))


@GROUP.attack("has its own file written anew, where that is a link to the victim's", on="local")
def overwrite_link(scene: Scene) -> Finding:
    with _planted(scene, _file) as path:
        return kept_out(scene, lambda: scene.attacker.files.write(path, b"mine"))


@GROUP.attack("opens the victim's file without Orchard, as the user of the system that runs it", on="local")
def same_user(_: Scene) -> Finding:
    return unproven(
        "on a local lake all tenants' runs are one user of the operating system, and no credentials lie between them;"
        " tenants bring no code of their own, and a lake on S3 has a role for each"
    )
