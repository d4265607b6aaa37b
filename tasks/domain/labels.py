"""What jobs, files and cloud resources are labelled with, so that a cloud bill splits as Orchard's own accounts do.

One set of names, in the spelling of each system: Prefect's tags say `tenant:acme`, a process `ORCHARD_TENANT=acme`, and
whatever a cloud bills (containers, pods, buckets, objects, roles, keys) `orchard-tenant: acme`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Label(StrEnum):
    """Names of labels. MLflow's registries and Prefect use them as they are."""

    TENANT = "tenant"
    TIER = "tier"
    USE_CASE = "use_case"
    STAGE = "stage"

    @property
    def cloud(self) -> str:
        """Its name where letters, digits and hyphens are allowed everywhere: AWS, Google Cloud, Azure, Kubernetes."""
        return f"orchard-{self.value.replace('_', '-')}"

    @property
    def variable(self) -> str:
        """Its name among environment variables."""
        return f"ORCHARD_{self.value.upper()}"


Labels = Mapping[Label, str]


def prefect_tags(labels: Labels) -> list[str]:
    """As tags of a run or a deployment: `tenant:acme`."""
    return [f"{label}:{value}" for label, value in labels.items()]


def cloud_labels(labels: Labels) -> dict[str, str]:
    """As labels of containers and pods, and as tags of cloud resources: `orchard-tenant` → `acme`."""
    return {label.cloud: value for label, value in labels.items()}


def job_variables(labels: Labels, environment: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """What a work pool of any type needs to label a run's infrastructure: `env` reaches every process, `labels` become
    those of Docker containers and Kubernetes pods."""
    own = {label.variable: value for label, value in labels.items()}
    return {"env": {**environment, **own}, "labels": cloud_labels(labels)}
