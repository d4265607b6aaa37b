"""Paths that look as if they stayed inside the attacker's folder, and do not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import quote

from infra.attacks.attempt import Finding, denied, succeeded
from infra.attacks.canary import CANARY
from infra.attacks.scene import Scene
from infra.attacks.storage.group import GROUP, kept_out, shut_out, way_out
from infra.lake.files import LakeFiles

Trick = Callable[[str, Scene], str]
"""Makes a path of the way out of the attacker's folder that `..` would be."""

TRICKS: dict[str, tuple[str, Trick]] = {
    "parent": ("goes up by `..`", lambda out, _: out),
    "parent-inside": ("goes up by `..` from a folder of its own", lambda out, _: f"{CANARY}/../{out}"),
    "parent-last": ("goes up by a `..` at the end", lambda out, _: f"{out.rpartition('/')[0]}/.."),
    "absolute": ("begins at the root of the lake's system", lambda _, scene: "/" + scene.prey_file.lstrip("/")),
    "url": ("is the victim's URL", lambda _, scene: f"{scene.prey_places.lake.url}/{scene.prey.path}"),
    "double-slash": ("hides a root behind an empty name", lambda _, scene: f"uploads//{scene.prey_file}"),
    "backslash": ("goes up by backslashes", lambda out, _: out.replace("/", "\\")),
    "mixed-slashes": ("mixes slashes and backslashes", lambda out, _: f"uploads\\../{out}"),
    "nul": ("is ended early by a NUL", lambda out, _: f"{out}\0.csv"),
    "newline": ("hides `..` behind a line's end", lambda out, _: f"uploads\n/{out}"),
    "percent": ("has `..` and `/` in percent codes", lambda out, _: quote(out, safe="").replace(".", "%2e")),
    "double-percent": ("has percent codes of percent codes", lambda out, _: quote(quote(out, safe=""))),
    "overlong": ("writes `.` as UTF-8 does not allow", lambda out, _: out.replace(".", "\udcc0\udcae")),
    "fullwidth": ("has full-width dots and slashes", lambda out, _: out.replace(".", "．").replace("/", "／")),
    "division-slash": ("has division slashes", lambda out, _: out.replace("/", "\u2215")),
    "dot-leader": ("has dot leaders for `..`", lambda out, _: out.replace("..", "\u2025")),
    "zero-width": ("hides `..` by a mark without width", lambda out, _: out.replace("..", ".\u200b.")),
    "trailing-space": ("ends `..` with a space that some systems drop", lambda out, _: out.replace("..", ".. ")),
    "more-dots": ("goes up by more dots than two", lambda out, _: out.replace("..", "....")),
    "home": ("begins in a home folder", lambda out, _: f"~/{out}"),
    "wildcard": ("is a pattern", lambda out, scene: out.replace(scene.victim.tenant.id, "*")),
    "capitals": (
        "has capitals",
        lambda out, scene: out.replace(scene.victim.tenant.id, scene.victim.tenant.id.upper()),
    ),
    "variable": ("begins with a variable", lambda _, scene: f"$HOME/../{scene.prey_file}"),
    "long": ("is longer than systems take", lambda out, _: f"{'a/' * 3000}{'../' * 3000}{out}"),
}


def _read(trick: Trick, scene: Scene) -> Finding:
    return kept_out(scene, lambda: scene.attacker.files.read(trick(way_out(scene), scene)))


for _name, (_what, _trick) in TRICKS.items():
    GROUP.add(f"read-{_name}", f"reads a path that {_what}", partial(_read, _trick), quick=_name == "parent")

Act = Callable[[LakeFiles, str, Path], object]

ACTS: dict[str, tuple[str, Act]] = {
    "list": ("lists the victim's folder", lambda files, path, _: files.list(path.rpartition("/")[0])),
    "write": ("writes over the victim's file", lambda files, path, _: files.write(path, b"mine")),
    "put": ("copies a file over the victim's", lambda files, path, source: files.put(path, source)),
    "delete": ("removes the victim's file", lambda files, path, _: files.delete(path)),
    "delete-folder": ("removes the victim's folder", lambda files, path, _: files.delete(path.rpartition("/")[0])),
    "take": ("moves the victim's file to itself", lambda files, path, _: files.move(path, f"{CANARY}/taken")),
    "exists": ("asks whether the victim has a file", lambda files, path, _: files.exists(path)),
    "stamp": ("asks how large and how old the victim's file is", lambda files, path, _: files.stamp(path)),
    "url": ("has the address of the victim's file made", lambda files, path, _: files.url(path)),
}


def _act(act: Act, scene: Scene) -> Finding:
    source = scene.folder / "source.txt"
    source.write_bytes(b"mine")
    finding = shut_out(lambda: act(scene.attacker.files, way_out(scene), source))
    if not scene.unharmed():
        return succeeded("the victim's file was changed or removed; it is put back")
    return finding


for _name, (_what, _does) in ACTS.items():
    GROUP.add(_name, _what, partial(_act, _does), quick=_name in ("list", "write"))


@GROUP.attack("moves a file of its own over the victim's")
def replace(scene: Scene) -> Finding:
    files = scene.attacker.files
    files.write(f"{scene.mine.path}.sent", b"mine")
    return kept_out(scene, lambda: files.move(f"{scene.mine.path}.sent", way_out(scene)))


@GROUP.attack("opens the victim's file as a local one")
def local(scene: Scene) -> Finding:
    def act() -> bytes:
        with scene.attacker.files.local(way_out(scene)) as path:
            return path.read_bytes()

    return kept_out(scene, act)


@GROUP.attack("lists its own folder, and looks for files of others in it", quick=True)
def list_own(scene: Scene) -> Finding:
    found = scene.attacker.files.list(CANARY)
    if scene.mine.path not in found:
        raise LookupError("the attacker does not find its own file")
    foreign = [path for path in found if scene.leaked(path)]
    return (
        succeeded(f"it finds {len(foreign)} of the victim's")
        if foreign
        else denied(f"it finds {len(found)} files, all its own")
    )


@GROUP.attack("reads a file by the path that the victim has it at", quick=True)
def same_path(scene: Scene) -> Finding:
    return kept_out(scene, lambda: scene.attacker.files.read(scene.prey.path))
