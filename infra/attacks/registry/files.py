"""Files of models that are not what they seem: sources that point elsewhere, bundles and code that were changed."""

from __future__ import annotations

import json
import marshal
import pickle
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from urllib.parse import urlsplit

from infra.attacks.attempt import Finding, denied, succeeded
from infra.attacks.canary import CANARY_USE_CASE
from infra.attacks.registry.group import ANSWER, ROWS, Models, add, forged_version, make_bundle, release
from infra.attacks.registry.names import run_of
from infra.attacks.scene import Scene
from infra.attacks.storage.group import is_refusal
from infra.lake.files import LakeFiles
from infra.registry.model import BUNDLE, code_digest
from infra.registry.registry import MlflowRegistry
from infra.registry.store import client
from tasks import bundle
from tasks.domain.errors import Permanent
from tasks.scorer import Scorer

Source = Callable[[Scene, Models], str]


def _child(models: Models, way: str) -> str:
    """A source that begins in the attacker's folder and leaves it."""
    mine = models.mine.operator.production_artifacts.url
    theirs = urlsplit(models.prey.source).path
    return f"{mine}/{way * (mine.count('/') + 1)}{theirs.lstrip('/')}"


SOURCES: dict[str, tuple[str, Source]] = {
    "victims": ("is the victim's release", lambda _, models: models.prey.source),
    "parent": ("goes up from its own folder to the victim's release", lambda _, models: _child(models, "../")),
    "percent": ("goes up in percent codes", lambda _, models: _child(models, "%2e%2e/")),
    "model": ("is the victim's model by name", lambda _, models: f"models:/{models.prey.name}/1"),
    "run": ("is an artifact of the victim's run", lambda _, models: f"runs:/{models.prey.run}/model"),
    "bare": ("is a path without a scheme", lambda _, models: urlsplit(models.prey.source).path),
    "host": ("is on another host", lambda *_: "http://127.0.0.1:9/model"),
    "neighbour": (
        "is in a folder whose name begins as its own",
        lambda _, models: f"{models.mine.operator.production_artifacts.url}-x/model",
    ),
}

Use = Callable[[MlflowRegistry, int, Scene], str]


def _open(registry: MlflowRegistry, version: int, scene: Scene) -> str:
    with registry.open_release(scene.use_case.id, version) as folder:
        return (folder / "bundle.json").read_text()


def _score(registry: MlflowRegistry, version: int, scene: Scene) -> str:
    scorer = registry.scorer(scene.use_case.id, version)
    return str(scorer.about) + str(scorer.predict(ROWS).to_dict())


def _try(registry: MlflowRegistry, version: int, scene: Scene) -> str:
    return str(registry.try_release(scene.use_case.id, version, ROWS).to_dict())


def _fetch(registry: MlflowRegistry, _: int, scene: Scene) -> str:
    folder = registry.fetch_candidate(
        scene.use_case.id, run_of(f"forged-{scene.mine.marker}"), scene.folder / "fetched"
    )
    return (folder / "bundle.json").read_text()


USES: dict[str, tuple[str, Use]] = {
    "open": ("opened", _open),
    "score": ("predicted with", _score),
    "try": ("tried", _try),
    "fetch": ("fetched for promotion", _fetch),
}


def _pointed(source: Source, use: Use, scene: Scene, models: Models) -> Finding:
    with forged_version(scene, models, source(scene, models)) as version:
        try:
            found = use(scene.attacker.registry, version, scene)
        except Exception as error:  # whatever the libraries below raise is looked at
            if not is_refusal(error):
                raise
            return denied(f"{type(error).__name__}: {error}")
    return succeeded(f"the victim's model was read: {len(found)} characters")


for _name, (_what, _source) in SOURCES.items():
    add(f"source-{_name}", f"has a release of its own opened whose source {_what}", partial(_pointed, _source, _open))
for _name, (_done, _use) in list(USES.items())[1:]:
    add(f"source-{_name}", f"has the victim's files {_done} as its own", partial(_pointed, SOURCES["victims"][1], _use))


def _linked(scene: Scene, models: Models) -> Finding:
    """The source is in the attacker's own folder, and a link to the victim's release."""
    mine, theirs = models.mine.operator.production_artifacts, urlsplit(models.prey.source).path
    assert mine.local is not None
    link = mine.local / scene.use_case.id / "linked"
    link.symlink_to(theirs)
    try:
        return _pointed(lambda *_: f"{mine.url}/{scene.use_case.id}/linked", _open, scene, models)
    finally:
        link.unlink()


add("source-link", "has a release of its own opened whose folder is a link to the victim's", _linked, on="local")

Spoil = Callable[[LakeFiles, str, Scene], None]
"""Changes a release's files; `model` is where its model lies among the attacker's artifacts."""


def _flip(files: LakeFiles, model: str, _: Scene) -> None:
    path = f"{model}/{BUNDLE}/models/tenant-wide.parquet"
    files.write(path, files.read(path)[:-1] + b"x")


def _add(files: LakeFiles, model: str, _: Scene) -> None:
    files.write(f"{model}/{BUNDLE}/models/mine.parquet", b"x")


def _reseal(files: LakeFiles, model: str, scene: Scene) -> None:
    """Another bundle, whole and consistent, in the place of the one that was released."""
    made = make_bundle(scene.folder / "resealed", scene.attacker.tenant.id, ANSWER["prey"])
    for path in made.rglob("*"):
        if path.is_file():
            files.put(f"{model}/{BUNDLE}/{path.relative_to(made).as_posix()}", path)


def _code(files: LakeFiles, model: str, scene: Scene) -> None:
    path = next(path for path in files.list(model) if path.endswith("orchard_model.py"))
    files.write(path, files.read(path) + f"\nopen({str(scene.folder / 'ran')!r}, 'w').close()\n".encode())


def _pickle(files: LakeFiles, model: str, scene: Scene) -> None:
    """The model as MLflow would keep it without `models from code`: a pickle that is loaded."""
    path = f"{model}/MLmodel"
    text = re.sub(r"( +)model_code_path: .*", r"\1python_model: python_model.pkl", files.read(path).decode())
    files.write(path, re.sub(r"loader_module: .*", "loader_module: mlflow.pyfunc.model", text).encode())
    files.write(f"{model}/python_model.pkl", pickle.dumps(Trap(scene.folder / "ran")))


def _loader(files: LakeFiles, model: str, scene: Scene) -> None:
    """A flavour whose loader is a module beside the model."""
    path = f"{model}/MLmodel"
    text = re.sub(r"loader_module: .*", "loader_module: trap", files.read(path).decode())
    files.write(path, text.replace("code: null", "code: code").encode())
    body = f"open({str(scene.folder / 'ran')!r}, 'w').close()\ndef _load_pyfunc(path): return None\n"
    files.write(f"{model}/code/trap.py", body.encode())


def _compiled(files: LakeFiles, model: str, scene: Scene) -> None:
    """Python takes compiled code for that of a source, by the time and size that it says it has."""
    path = next(path for path in files.list(model) if path.endswith("orchard_model.py"))
    body = compile(f"open({str(scene.folder / 'ran')!r}, 'w').close()", "orchard_model.py", "exec")
    with files.local(path) as source:
        facts = source.stat()
    head = MAGIC_NUMBER + b"\0\0\0\0" + int(facts.st_mtime).to_bytes(4, "little") + facts.st_size.to_bytes(4, "little")
    files.write(f"{model}/__pycache__/orchard_model.{sys.implementation.cache_tag}.pyc", head + marshal.dumps(body))


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


SPOILS: dict[str, tuple[str, Spoil]] = {
    "byte": ("whose models differ in a byte", _flip),
    "file": ("that has a file more", _add),
    "resealed": ("that was exchanged for another, whole one", _reseal),
    "code": ("whose code was changed", _code),
    "pickle": ("that holds a pickle", _pickle),
    "loader": ("that brings a loader of its own", _loader),
    "compiled": ("that brings its code compiled", _compiled),
}
CODE = ("code", "pickle", "loader", "compiled")


@contextmanager
def _spoilt(spoil: Spoil, forged: bool, scene: Scene, models: Models) -> Iterator[int]:
    """A release of the attacker's whose files are changed after it was released; `forged`: its digests too, which the
    attacker's own login may write."""
    registry = models.mine.operator
    key = f"spoilt-{len(scene.kept)}-{scene.mine.marker}"[:90]
    scene.kept[key] = True
    made = make_bundle(scene.folder / key, registry.tenant, ANSWER["mine"])
    version, source, _ = release(registry, scene, made, key)
    files = LakeFiles(registry.production_artifacts)
    spoil(files, source.removeprefix(f"{registry.production_artifacts.url}/"), scene)
    if forged:
        with registry.production.opened(source) as folder:
            digest = code_digest(folder)
        mine = client(scene.attacker.registry.production_uri)
        mine.set_model_version_tag(models.mine.name, str(version), "code_digest", digest)
    (scene.folder / "ran").unlink(missing_ok=True)
    yield version


def _tampered(spoil: Spoil, forged: bool, scene: Scene, models: Models) -> Finding:
    with _spoilt(spoil, forged, scene, models) as version:
        why = "nothing was said"
        for use in (_try, _open):
            try:
                use(scene.attacker.registry, version, scene)
            except Exception as error:  # what matters is what ran
                if (scene.folder / "ran").exists():
                    break
                if not is_refusal(error):
                    raise
                why = f"{type(error).__name__}: {error}"
                continue
            if use is _try:
                return succeeded("the changed release was loaded and used")
    if (scene.folder / "ran").exists():
        return succeeded("code that came with the release was run")
    return denied(why)


for _name, (_what, _spoil) in SPOILS.items():
    add(f"tampered-{_name}", f"has a release used {_what}", partial(_tampered, _spoil, False))
for _name in CODE:
    _what, _spoil = SPOILS[_name]
    add(f"forged-{_name}", f"has a release used {_what}, and its digest with it", partial(_tampered, _spoil, True))


def _planted(scene: Scene, models: Models) -> Finding:
    """A release under the key that a promotion is going to use: whoever comes first would have made it."""
    key = f"planted-{scene.mine.marker}"[:90]
    registry, use_case = scene.attacker.registry, scene.use_case
    made = make_bundle(scene.folder / key, registry.tenant, ANSWER["mine"])
    version, source, _ = release(registry, scene, made, key)
    files = LakeFiles(registry.production_artifacts)
    _code(files, source.removeprefix(f"{registry.production_artifacts.url}/"), scene)
    with registry.production.opened(source) as folder:
        digest = code_digest(folder)
    client(registry.production_uri).set_model_version_tag(models.mine.name, str(version), "code_digest", digest)
    (scene.folder / "ran").unlink(missing_ok=True)
    number, _, _ = registry.add_release(use_case, made, key=key, tags={}, example=ROWS)
    registry.try_release(use_case.id, number, ROWS)
    if (scene.folder / "ran").exists():
        return succeeded("the promotion has run code that was planted under its key")
    return denied("the promotion has written its own release instead")


add("planted-release", "plants a release under the key of a promotion to come", _planted)


def _model_bytes(estimator: str, scene: Scene, _: Models) -> Finding:
    """A model in a bundle is bytes: those of a pickle must stay bytes."""
    ran = scene.folder / "ran"
    ran.unlink(missing_ok=True)
    trap = {
        "estimator": estimator,
        "model": pickle.dumps(Trap(ran)),
        "spec": json.dumps({"categories": {"key": ["a"]}}),
    }
    part = scene.folder / f"parts-{estimator}" / "tenant-wide.parquet"
    made = make_bundle(scene.folder / f"pickle-{estimator}", scene.attacker.tenant.id, 1.0)
    row = bundle.read_part(made / "models" / "tenant-wide.parquet")[0]
    bundle.write_part(part, [row | trap])
    why = "it answered without the model"
    try:
        forged = made.with_name(f"forged-{estimator}")
        bundle.assemble(forged, [part], use_case=CANARY_USE_CASE, tenant=scene.attacker.tenant.id)
        Scorer.open(forged).predict(ROWS)
    except Exception as error:  # however it fails, nothing of it may run
        why = f"{type(error).__name__}: {error}"
    return succeeded("the pickle was loaded") if ran.exists() else denied(why)


for _estimator in ("lightgbm", "pickle"):
    add(
        f"pickle-as-{_estimator}",
        f"puts a pickle into a bundle, as a model of the estimator {_estimator}",
        partial(_model_bytes, _estimator),
    )


def _index(scene: Scene, models: Models) -> Finding:
    """A bundle that is whole, and whose index says that its model is a file of the victim's."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with models.prey.operator.production.opened(models.prey.source) as folder:
        theirs = scene.folder / "theirs.parquet"
        theirs.write_bytes((folder / BUNDLE / "models" / "tenant-wide.parquet").read_bytes())
    made = make_bundle(scene.folder / "indexed", scene.attacker.tenant.id, 1.0)
    index = pq.read_table(made / "index.parquet").to_pylist()
    forged = [row | {"file": str(theirs), "row_group": 0, "row": 0, "answer": "own"} for row in index]
    pq.write_table(pa.Table.from_pylist(forged, schema=pq.read_schema(made / "index.parquet")), made / "index.parquet")
    try:
        scorer = Scorer.open(made)
        answers = scorer.predict(ROWS)
    except (Permanent, ValueError) as error:
        return denied(f"{type(error).__name__}: {error}")
    return succeeded(f"it made {len(answers)} predictions with the victim's model")


add("index-elsewhere", "makes a bundle whose index names a model file of the victim's", _index)
