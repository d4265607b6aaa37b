"""The group of attacks on storage, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable

from infra.attacks.attempt import Finding, Group, denied, succeeded
from infra.attacks.scene import Scene
from tasks.domain.errors import Permanent, StorageUnavailable

GROUP = Group("storage")

NO_ROLES = "by its settings, this Orchard has no roles on S3: its own login opens all of it, and no tenant has any"

CLOSED = ("AccessDenied", "ACCESS_DENIED", "Access Denied", "403 Forbidden", "status: 403", "PermissionError")
"""What an object store's refusal looks like, through each of the libraries that tell of it."""


def way_out(scene: Scene) -> str:
    """From the attacker's folder to the victim's planted file, by `..`."""
    mine, theirs = scene.my_places.lake.root.split("/"), scene.prey_file.split("/")
    while mine and theirs and mine[0] == theirs[0]:
        mine, theirs = mine[1:], theirs[1:]
    return "/".join([".."] * len(mine) + theirs)


def is_refusal(error: BaseException) -> bool:
    """Whether an error is one of ours that nothing will mend, or the store's own no."""
    return isinstance(error, Permanent) or any(sign in f"{type(error).__name__}: {error}" for sign in CLOSED)


def shut_out(act: Callable[[], object]) -> Finding:
    """Denied when the act is refused by us or by the store; succeeded when it returns."""
    try:
        result = act()
    except (OSError, Permanent, StorageUnavailable) as error:
        if not is_refusal(error):
            raise
        return denied(f"{type(error).__name__}: {error}")
    return succeeded(f"it went through, and returned a {type(result).__name__}")


def kept_out(scene: Scene, act: Callable[[], object]) -> Finding:
    """Denied when the act is refused, finds no such file, or returns what is not the victim's; and when the victim's
    planted file is what it was afterwards."""
    try:
        result = act()
        why = "it returned nothing of the victim's"
    except (OSError, Permanent, StorageUnavailable) as error:
        if not is_refusal(error) and not isinstance(error, FileNotFoundError):
            raise
        result, why = None, f"{type(error).__name__}: {error}"
    if scene.leaked(result):
        return succeeded(f"the victim's data was read: {len(str(result))} characters")
    if not scene.unharmed():
        return succeeded(f"the victim's file was changed or removed; it is put back ({why})")
    return denied(why)
