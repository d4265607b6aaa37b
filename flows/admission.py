"""Files that arrived by themselves: read, hashed, recorded, and waiting for their turn."""

from __future__ import annotations

from prefect import flow, get_run_logger

from flows.auditing import witness
from flows.dispatch import dispatch
from flows.operations import hand_in
from flows.space import open_space
from infra.inbox import open_inbox, place_of
from infra.settings import load_settings
from tasks.domain.errors import Permanent


@flow(name="admission", flow_run_name="admission {path}", persist_result=False)
def admit_file(path: str) -> str | None:
    """Admits one file of the inbox. Triggered by the event `orchard.upload.received`.

    The same content is one upload, however often its event comes; a file that is gone was admitted by an earlier event.
    A file that cannot be admitted moves to `rejected/`, with the reason beside it; where it could hold personal data,
    only the reason is kept. Returns the upload's id.

    Args:
        path: the file's place below the inbox, `tenant/use_case/purpose/name`.
    """
    settings, log = load_settings(), get_run_logger()
    inbox, told, stamp = open_inbox(settings), witness("inbox", settings), None
    try:
        with inbox.local(path) as (place, file, stamp):
            if file is None:
                log.info("%s is not in the inbox any more: an earlier event led to its admission", path)
                return None
            upload, new = hand_in(open_space(place.tenant), place.use_case, place.purpose, file, "inbox", told)
    except Permanent as error:
        log.warning("%s is refused: %s", path, error)
        inbox.refuse(path, str(error), stamp, keep=not _personal(path))
        return None
    inbox.remove(path, stamp)
    log.info("%s is upload %s%s", path, upload.upload_id, "" if new else ", known before")
    dispatch(settings)
    return upload.upload_id


def _personal(path: str) -> bool:
    """Whether a file of the inbox belongs to a use case with personal columns."""
    try:
        place = place_of(path)
        return bool(open_space(place.tenant).tenant.use_case(place.use_case).contract.personal)
    except Permanent:  # no tenant's, or no use case's
        return False
