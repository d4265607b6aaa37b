"""Every client that Orchard opens a lake by, led to the victim's folder with the attacker's credentials: what a space
would be whose own checks had all failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from infra.attacks.attempt import Finding, denied, succeeded, unproven
from infra.attacks.scene import Scene
from infra.attacks.storage.group import GROUP, NO_ROLES, is_refusal
from infra.lake.files import LakeFiles
from infra.lake.location import Location

Use = Callable[[Location, str], object]
"""Uses a place that is not its own; the text is the path of the planted file below it."""

ROWS = pa.table({"x": [1]})


def _open_table(place: Location, _: str) -> object:
    from deltalake import DeltaTable

    return DeltaTable(place.child("tables").url, storage_options=place.delta_options()).version()


def _write_table(place: Location, path: str) -> object:
    from deltalake import write_deltalake

    return write_deltalake(place.child(f"{path}.table").url, ROWS, storage_options=place.delta_options())


USES: dict[str, tuple[str, Use]] = {
    "files-read": ("reads by LakeFiles", lambda place, path: LakeFiles(place).read(path)),
    "files-write": ("writes by LakeFiles", lambda place, path: LakeFiles(place).write(path, b"mine")),
    "files-delete": ("removes by LakeFiles", lambda place, path: LakeFiles(place).delete(path)),
    "files-move": ("moves by LakeFiles", lambda place, path: LakeFiles(place).move(path, f"{path}.sent")),
    "fsspec-read": ("reads by s3fs", lambda place, path: place.filesystem().cat_file(f"{place.root}/{path}")),
    "fsspec-write": ("writes by s3fs", lambda place, path: place.filesystem().pipe_file(f"{place.root}/{path}", b"x")),
    "fsspec-copy": (
        "copies by s3fs",
        lambda place, path: place.filesystem().cp_file(f"{place.root}/{path}", f"{place.root}/{path}.sent"),
    ),
    "fsspec-touch": ("makes a file by s3fs", lambda place, path: place.filesystem().touch(f"{place.root}/{path}.sent")),
    "arrow-read": ("reads by pyarrow", lambda place, path: place.arrow().open_input_file(path).read()),
    "arrow-write": (
        "writes by pyarrow",
        lambda place, path: pq.write_table(ROWS, f"{path}.sent", filesystem=place.arrow()),
    ),
    "arrow-delete": ("removes by pyarrow", lambda place, path: place.arrow().delete_file(path)),
    "arrow-copy": ("copies by pyarrow", lambda place, path: place.arrow().copy_file(path, f"{path}.sent")),
    "delta-open": ("opens a Delta table", _open_table),
    "delta-write": ("makes a Delta table", _write_table),
}  # fmt: skip


def _used(use: Use, scene: Scene) -> Finding:
    if scene.attacker.location.role is None:
        return unproven(NO_ROLES)
    theirs = scene.prey_places.lake
    stolen = replace(theirs, role=scene.attacker.location.role)
    try:
        use(stolen, scene.prey.path)
        why = "the store did it"
    except Exception as error:  # libraries have errors of their own; the store's words are what counts
        if not is_refusal(error):
            raise
        return denied(f"{type(error).__name__}: {error}") if scene.unharmed() else succeeded("the file was changed")
    LakeFiles(theirs).delete(f"{scene.prey.path}.sent")
    LakeFiles(theirs).delete(f"{scene.prey.path}.table")
    scene.unharmed()
    return succeeded(why)


for _name, (_what, _use) in USES.items():
    GROUP.add(f"client-{_name}", f"{_what} in the victim's folder, with its own role", partial(_used, _use), on="s3")


@GROUP.attack("reads artifacts of the victim's with its own role", on="s3")
def client_artifacts(scene: Scene) -> Finding:
    if scene.attacker.location.role is None:
        return unproven(NO_ROLES)
    findings = []
    for place in (scene.prey_places.training_artifacts, scene.prey_places.production_artifacts):
        stolen = replace(place, role=scene.attacker.location.role)
        try:
            LakeFiles(stolen).read(scene.prey.path)
        except Exception as error:
            if not is_refusal(error):
                raise
            findings.append(f"{type(error).__name__}: {error}")
            continue
        return succeeded(f"it reads {place.prefix}")
    return denied(findings[-1])


@GROUP.attack("opens its own place by credentials that are kept for everybody", on="s3")
def client_shared(scene: Scene) -> Finding:
    """fsspec keeps filesystems by their arguments; one that is made without credentials has those of whoever came
    first."""
    import fsspec

    mine = scene.attacker.location
    client = {"endpoint_url": mine.endpoint, "region_name": mine.region}
    scene.victim.files.read(scene.prey.path)
    bare = fsspec.filesystem("s3", client_kwargs={name: value for name, value in client.items() if value})
    try:
        bare.cat_file(f"{scene.prey_places.lake.root}/{scene.prey.path}")
    except Exception as error:  # no credentials at all is as good as wrong ones
        if not is_refusal(error) and "credentials" not in str(error).lower():
            raise
        return denied(f"{type(error).__name__}: {error}")
    finally:
        type(bare).clear_instance_cache()
    return succeeded("a filesystem without credentials opens the victim's file")
