"""Labels in the spelling of each system: whatever tenants and use cases are called, everybody takes them."""

from __future__ import annotations

import re
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.job import JobKind
from tasks.domain.labels import Label, cloud_labels, job_variables, prefect_tags
from tasks.domain.names import TenantId, UseCaseId
from tasks.domain.tenant import Tier

CLOUD_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
"""What a label may be called on AWS, Google Cloud (no slash), Azure (no slash), Docker and Kubernetes alike."""
CLOUD_VALUE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def named(kind: object) -> st.SearchStrategy[str]:
    """Names that fit an identifier's pattern."""
    return st.from_regex(get_args(kind)[1].pattern, fullmatch=True).filter(lambda text: len(text) <= 40)


@given(named(TenantId), named(UseCaseId), st.sampled_from(JobKind), st.sampled_from(Tier))
def test_names_and_values_are_fit_for_every_cloud(tenant: str, use_case: str, kind: JobKind, tier: Tier) -> None:
    labels = {Label.TENANT: tenant, Label.USE_CASE: use_case, Label.STAGE: kind.value, Label.TIER: tier.value}
    spelled = cloud_labels(labels)
    assert len(spelled) == len(Label)
    for name, value in spelled.items():
        assert CLOUD_NAME.fullmatch(name)
        assert CLOUD_VALUE.fullmatch(value)
    variables = job_variables(labels, {"ORCHARD_WORKERS": "2"})
    assert variables == {
        "labels": spelled,
        "env": {
            "ORCHARD_WORKERS": "2",
            "ORCHARD_TENANT": tenant,
            "ORCHARD_USE_CASE": use_case,
            "ORCHARD_STAGE": kind.value,
            "ORCHARD_TIER": tier.value,
        },
    }
    assert dict(tag.split(":", 1) for tag in prefect_tags(labels)) == {label.value: labels[label] for label in Label}
