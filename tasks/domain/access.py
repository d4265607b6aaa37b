"""Who may do what through the API: a key has a role, and each role may what the one before it may, and more."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """What a tenant's key may do, from little to much."""

    READER = "reader"  # look: uploads, jobs, results
    UPLOADER = "uploader"  # hand in files, ask for jobs
    ADMIN = "admin"  # what concerns the tenant itself: its audit, its quarantine, approval, keys

    def covers(self, needed: Role) -> bool:
        """Whether who has this role may do what needs that one."""
        roles = list(Role)
        return roles.index(self) >= roles.index(needed)
