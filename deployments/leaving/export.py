"""Handing over all that the platform has of a tenant, in open formats. Cut off, the same call goes on with the parts
that are missing."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from deployments.leaving.parts import PARTS, Handover
from deployments.leaving.readme import readme
from deployments.leaving.spreadsheets import write_csv
from deployments.platform import Platform, Report
from infra.database.audit import Actor, Audit
from infra.lake.location import Location
from infra.settings import Settings
from tasks.domain.contract import Frozen
from tasks.domain.errors import InvalidDefinition

FOLDERS = sorted({part.folder for part in PARTS})
MANIFEST, README, UNFINISHED = "manifest.json", "README.md", ".unfinished.json"


class Course(Frozen):
    """How far an export has come."""

    tenant: str
    started_at: datetime
    done: tuple[str, ...] = ()


class Exported(NamedTuple):
    """What was handed over."""

    tenant: str
    folder: Path
    files: int
    bytes: int


def export(
    platform: Platform,
    tenant_id: str,
    folder: Path,
    by: Actor,
    report: Report = lambda _: None,
    *,
    csv: bool = False,
    history: bool = False,
    force: bool = False,
) -> Exported:
    """Writes all that is the tenant's into a folder, with a README and a manifest that has the digest of every file.

    `csv` adds tables as CSV; `history` the Delta tables as they are, with all versions; `force` makes a complete export
    anew. Raises `NotFound`, and `InvalidDefinition` for a folder that holds something else.
    """
    space = platform.open_space(tenant_id)
    folder = folder.resolve()
    _check_place(platform.settings, folder)
    course = _course(folder, tenant_id, force)
    if course is None:
        _check_complete(folder, csv=csv, history=history)
        return _exported(tenant_id, folder)
    handover = Handover(platform, space, folder)
    for part in PARTS:
        if part.name in course.done or (part.folder == "history" and not history):
            continue
        report(f"exporting {tenant_id}: {part.name}")
        part.write(handover)
        course = course.model_copy(update={"done": (*course.done, part.name)})
        _write(folder / UNFINISHED, course.model_dump_json())
    for table in sorted(folder.glob("data/**/*.parquet")) if csv else ():
        write_csv(table)
    _write(folder / README, readme(space.tenant, history=history, csv=csv))
    report(f"exporting {tenant_id}: digests of all files")
    _write(folder / MANIFEST, json.dumps(_manifest(tenant_id, folder, course, history=history, csv=csv), indent=1))
    (folder / UNFINISHED).unlink()
    exported = _exported(tenant_id, folder)
    audit = Audit(platform.cluster)
    audit.record("tenant.exported", "done", by=by, tenant=tenant_id, files=exported.files, bytes=exported.bytes)
    return exported


def _check_complete(folder: Path, *, csv: bool, history: bool) -> None:
    """Raises `InvalidDefinition` where more is asked for than the export that is there has."""
    known = json.loads((folder / MANIFEST).read_bytes())
    wanted = {"history": history, "csv": csv}
    if lacks := [f"--{name}" for name, asked in wanted.items() if asked and not known.get(name)]:
        raise InvalidDefinition(
            f"the export that is there was made without {' and '.join(lacks)}",
            where=str(folder),
            hint="--force makes it anew",
        )


def check_fresh(settings: Settings, folder: Path) -> None:
    """Raises `InvalidDefinition` for a folder that what is exported before an erasure cannot go into: an earlier
    export, which would be taken for it, may not be all that there is now."""
    _check_place(settings, folder)
    if folder.exists() and any(folder.iterdir()):
        raise InvalidDefinition(
            "the folder is in use: nothing was removed",
            expected="an empty one, for all that there is now",
            where=str(folder),
            hint="name another folder; without --export-first nothing is exported",
        )


def _check_place(settings: Settings, folder: Path) -> None:
    """Below the platform's own folders, an export would be taken for something of the platform's."""
    urls = (settings.lake_url, settings.training_artifacts_url, settings.production_artifacts_url, settings.inbox_url)
    own = [settings.home, *(Location.of(url, settings.lake_options).local for url in urls)]
    if any(place is not None and folder.is_relative_to(place.resolve()) for place in own):
        raise InvalidDefinition("an export cannot go into the platform's own folders", found=str(folder))


def _course(folder: Path, tenant_id: str, force: bool) -> Course | None:
    """How far the folder's export has come; None when it is complete. A folder that was no export's is one now."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / UNFINISHED).is_file():
        course = Course.model_validate_json((folder / UNFINISHED).read_bytes())
        if course.tenant == tenant_id and not force:
            return course
        found = f"an unfinished export of {course.tenant}"
    elif (folder / MANIFEST).is_file():
        known = json.loads((folder / MANIFEST).read_bytes())
        if known.get("tenant") == tenant_id and not force:
            return None
        found = f"an export of {known.get('tenant')}"
    else:
        found = "" if not any(folder.iterdir()) else "other files"
    if found and not (force and found.endswith(f"export of {tenant_id}")):
        raise InvalidDefinition("the folder is in use", expected="an empty one", found=found, where=str(folder))
    if force:
        _clear(folder)
    course = Course(tenant=tenant_id, started_at=datetime.now(UTC))
    _write(folder / UNFINISHED, course.model_dump_json())
    return course


def _clear(folder: Path) -> None:
    """Removes what an export has made, and nothing else."""
    import shutil

    for name in FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (MANIFEST, README, UNFINISHED):
        (folder / name).unlink(missing_ok=True)


def _manifest(tenant_id: str, folder: Path, course: Course, **made_with: bool) -> dict[str, Any]:
    files = []
    own = {path for name in FOLDERS for path in (folder / name).rglob("*") if path.is_file()}
    for path in sorted({folder / README, *own}):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        name = path.relative_to(folder).as_posix()
        files.append({"path": name, "bytes": path.stat().st_size, "sha256": digest})
    return {
        "tenant": tenant_id,
        "started_at": course.started_at.isoformat(),
        "finished_at": datetime.now(UTC).isoformat(),
        "orchard": version("orchard"),
        **made_with,
        "files": files,
    }


def _exported(tenant_id: str, folder: Path) -> Exported:
    files = json.loads((folder / MANIFEST).read_bytes())["files"]
    return Exported(tenant_id, folder, len(files), sum(each["bytes"] for each in files))


def _write(path: Path, content: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(content + "\n", encoding="utf-8")
    partial.replace(path)
