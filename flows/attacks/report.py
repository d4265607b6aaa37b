"""What came of a proof, for machines and for people: `proof.json` and `index.html` in a folder of its own."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, select_autoescape

from flows.attacks.suite import Proof
from infra.attacks.attempt import Attempt, Outcome
from infra.settings import Settings

ORDER = (Outcome.SUCCEEDED, Outcome.ERROR, Outcome.UNPROVEN, Outcome.DENIED)
"""What is worth reading comes first."""


def write_report(settings: Settings, proof: Proof, folder: Path | None = None) -> Path:
    """Writes both files; returns the page's path. By default below `home/reports/isolation`, named by the time."""
    if folder is None:
        folder = settings.home / "reports" / "isolation" / f"{proof.started_at:%Y%m%dT%H%M%SZ}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "proof.json").write_text(proof.model_dump_json(indent=1), encoding="utf-8")
    page = folder / "index.html"
    page.write_text(_page(proof), encoding="utf-8")
    return page


def grouped(proof: Proof) -> dict[str, list[Attempt]]:
    """The attempts by group, what got through first."""
    groups: dict[str, list[Attempt]] = {}
    for attempt in sorted(proof.attempts, key=lambda each: ORDER.index(each.outcome)):
        groups.setdefault(attempt.group, []).append(attempt)
    names = dict.fromkeys(attempt.group for attempt in proof.attempts)
    return {name: groups[name] for name in names}


def _page(proof: Proof) -> str:
    environment = Environment(autoescape=select_autoescape(default=True))
    template = environment.from_string(files("flows.attacks").joinpath("page.html.j2").read_text(encoding="utf-8"))
    pairs = dict.fromkeys((attempt.attacker, attempt.victim) for attempt in proof.attempts)
    return template.render(proof=proof, groups=grouped(proof), pairs=list(pairs), outcomes=list(ORDER))
