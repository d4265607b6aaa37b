"""What objects of a tenant are tagged with on S3."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

from tasks.domain.labels import Label, cloud_labels
from tasks.domain.names import is_use_case_id


@dataclass(frozen=True)
class Tagging:
    """Labels of one tenant's objects; those below a use case's folders have the use case's too.

    Attributes:
        root: URL of the tenant's folder.
        use_case_at: which name of a path below it is the use case: 1 in `uploads/demand/x`, 0 in `demand/1/model`.
    """

    labels: tuple[tuple[Label, str], ...]
    root: str
    use_case_at: int

    def of(self, url: str) -> str:
        """The tags of the object at that URL, as the header of a request has them."""
        folders = url.removeprefix(f"{self.root}/").split("/")[:-1]
        labels = dict(self.labels)
        if len(folders) > self.use_case_at and is_use_case_id(folders[self.use_case_at]):
            labels[Label.USE_CASE] = folders[self.use_case_at]
        return urlencode(cloud_labels(labels))
