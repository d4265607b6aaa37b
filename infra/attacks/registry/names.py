"""Another tenant's model by a name that the attacker's own registry is given."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from pydantic import ValidationError

from infra.attacks.attempt import Finding, denied, refused, succeeded
from infra.attacks.canary import CANARY_USE_CASE
from infra.attacks.registry.group import ANSWER, ROWS, Models, add, make_bundle
from infra.attacks.scene import Scene
from infra.registry.registry import MlflowRegistry
from tasks.domain.errors import NotFound
from tasks.domain.names import Stage
from tasks.domain.run import Run, RunStatus

NAMES: dict[str, tuple[str, Callable[[Models], str]]] = {
    "whole": ("its whole name in the registry", lambda models: models.prey.name),
    "parent": ("a path that goes up", lambda models: f"../{models.prey.name.replace('.', '/')}"),
    "search": ("a text that ends a search's", lambda models: f"x' OR name = '{models.prey.name}"),
    "alias": ("a name with an alias", lambda models: f"{models.prey.name}@champion"),
}

Use = Callable[[MlflowRegistry, str, Scene], object]


def run_of(key: str) -> Run:
    """A training run of that key."""
    return Run(
        run_id=1,
        key=key,
        use_case="x",
        stage=Stage.TRAINING,
        status=RunStatus.FINISHED,
        started_at=datetime.now(UTC),
    )


def _open(registry: MlflowRegistry, name: str, _: Scene) -> object:
    with registry.open_release(name, 1) as folder:
        return folder


def _fetch(registry: MlflowRegistry, name: str, scene: Scene) -> object:
    return registry.fetch_candidate(name, run_of(scene.prey.marker), scene.folder / "fetched")


def _add(registry: MlflowRegistry, name: str, scene: Scene) -> object:
    forged = CANARY_USE_CASE.model_copy(update={"id": name})  # as if nobody had validated it
    made = make_bundle(scene.folder / "forged", registry.tenant, ANSWER["mine"])
    return registry.add_release(forged, made, key="forged", tags={}, example=ROWS)


USES: dict[str, tuple[str, Use]] = {
    "find": ("looks for the victim's champion", lambda registry, name, _: registry.find(name, "champion")),
    "open": ("opens the victim's release", _open),
    "check": ("has the victim's release checked", lambda registry, name, _: registry.check_release(name, 1)),
    "score": ("predicts with the victim's release", lambda registry, name, _: registry.scorer(name, 1)),
    "try": ("tries the victim's release", lambda registry, name, _: registry.try_release(name, 1, ROWS)),
    "fetch": ("fetches the victim's candidate", _fetch),
    "alias": ("moves the victim's champion", lambda registry, name, _: registry.set_alias(name, "champion", 1)),
    "no-alias": ("removes the victim's champion", lambda registry, name, _: registry.remove_alias(name, "champion")),
    "add": ("adds a release to the victim's", _add),
}


def _named(name: Callable[[Models], str], use: Use, scene: Scene, models: Models) -> Finding:
    finding = refused(lambda: use(scene.attacker.registry, name(models), scene), ValidationError)
    if models.prey.operator.find(scene.use_case.id, "champion") != models.prey.version:
        models.prey.operator.set_alias(scene.use_case.id, "champion", models.prey.version)
        return succeeded("the victim's champion was moved; it is put back")
    return finding


for _name, (_what, _forge) in NAMES.items():
    add(f"name-{_name}", f"opens the victim's release by {_what}", partial(_named, _forge, _open))
for _name, (_what, _use) in USES.items():
    add(f"by-name-{_name}", f"{_what} by its whole name", partial(_named, NAMES["whole"][1], _use))


def _same_version(scene: Scene, models: Models) -> Finding:
    """Both have a model of that name and version: each must get its own."""
    for registry, expected in ((scene.victim.registry, ANSWER["prey"]), (scene.attacker.registry, ANSWER["mine"])):
        version = (models.mine if registry is scene.attacker.registry else models.prey).version
        answers = registry.scorer(scene.use_case.id, version).predict(ROWS)["prediction"].tolist()
        if answers != [expected, expected]:
            return succeeded(f"one of them is answered with {answers}, and not with {expected}")
    return denied("each is answered by its own model, although name and version are the same")


add("same-version", "is answered by the victim's model of the same use case and version", _same_version)


def _candidate(scene: Scene, _: Models) -> Finding:
    into = scene.folder / "candidate"
    run = run_of(scene.prey.marker)
    return refused(lambda: scene.attacker.registry.fetch_candidate(scene.use_case.id, run, into), NotFound)


add("candidate-of-run", "fetches the candidate of a run of the victim's by the run's key", _candidate)
