"""A bundle as an MLflow model "from code": `mlflow.pyfunc` loads and predicts with it where Orchard is not
installed.

The model's code is the text of `tasks/scorer.py` and a few lines that hand it to MLflow; its one artifact is
the bundle.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import json
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from tasks import bundle, scorer
from tasks.domain.contract import ColumnType
from tasks.domain.errors import Tampered
from tasks.domain.use_case import UseCase

BUNDLE = "artifacts/bundle"
"""Where the bundle is inside the model's folder."""

REQUIREMENTS = ("mlflow", "numpy", "pandas", "pyarrow", "lightgbm", "scikit-learn")

CODE_FILES = ("MLmodel", "orchard_model.py")

BESIDE = {
    "requirements.txt", "conda.yaml", "python_env.yaml", "input_example.json", "serving_input_example.json",
    "registered_model_meta",
}  # fmt: skip
"""Files that MLflow leaves beside those, and from which nothing is run."""

LOADER = {"loader_module": "mlflow.pyfunc.loaders.code_model", "code": None}
QUIET = {"artifacts", "cloudpickle_version", "env", "model_code_path", "python_version", "streamable"}
"""How MLflow is told to load the code, and what else it is told: any other field could name a pickle or a module."""

_WRAPPER = '''

# --- what MLflow loads ----------------------------------------------------------------------------------

import mlflow.models  # noqa: E402
import mlflow.pyfunc  # noqa: E402


class BundleModel(mlflow.pyfunc.PythonModel):
    """The scorer as `mlflow.pyfunc` wants it; models of partitions are read when their rows come."""

    def load_context(self, context) -> None:
        self.scorer = Scorer.open(context.artifacts["bundle"])

    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:
        return self.scorer.predict(model_input)


mlflow.models.set_model(BundleModel())
'''

# MLflow hands a model from its code file to the caller through a global variable, so two threads that save or
# load at the same time would get each other's model: another tenant's, that is.
_one_at_a_time = threading.Lock()


def save(folder: Path, source: Path, use_case: UseCase, example: pd.DataFrame) -> None:
    """Writes an MLflow model with the bundle `source` into `folder`, which must not exist.

    `example` is any few rows of the use case's table; of its columns, only those that models need are kept.
    MLflow would copy the models twice, so it is given an empty bundle, and the files are then linked or
    copied into their place. Requirements are pinned and not inferred (that would start a process and take
    seconds).
    """
    import mlflow.pyfunc
    from mlflow.models import Model

    with tempfile.TemporaryDirectory() as scratch:
        code = Path(scratch) / CODE_FILES[1]
        code.write_text(own_code())
        empty = Path(scratch) / "bundle"
        empty.mkdir()
        bundle.link_or_copy(source / "bundle.json", empty / "bundle.json")
        with _one_at_a_time:
            mlflow.pyfunc.save_model(
                path=str(folder),
                python_model=str(code),
                artifacts={"bundle": str(empty)},
                signature=signature(use_case),
                input_example=example.head(5)[input_columns(use_case)],
                pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in REQUIREMENTS],
            )
    (folder / BUNDLE / "bundle.json").unlink()
    for path in sorted(source.rglob("*")):
        target = folder / BUNDLE / path.relative_to(source)
        if path.is_dir():
            target.mkdir(exist_ok=True)
        else:
            bundle.link_or_copy(path, target)
    saved = Model.load(str(folder))
    saved.flavors["python_function"]["artifacts"]["bundle"]["uri"] = BUNDLE  # MLflow noted the scratch path
    saved.model_size_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    saved.save(str(folder / "MLmodel"))


def own_code() -> str:
    """The code of every model that this version of Orchard writes."""
    return inspect.getsource(scorer) + _WRAPPER


def foreign_code(folder: Path) -> str | None:
    """What would run, when the model is loaded, that is not ours; None when nothing would. Digests do not tell: whoever
    writes a tenant's files and entries writes those too."""
    try:
        if (folder / CODE_FILES[1]).read_text() != own_code():
            return f"{CODE_FILES[1]} is not this version's"
        described = yaml.safe_load((folder / CODE_FILES[0]).read_text())["flavors"]
        flavor = described["python_function"]
        named = Path(flavor["model_code_path"]).name, flavor["artifacts"]["bundle"]["path"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        return f"{type(error).__name__}: {error}"
    if list(described) != ["python_function"] or named != (CODE_FILES[1], BUNDLE):
        return f"{CODE_FILES[0]} names other files"
    if {name: flavor.get(name) for name in flavor.keys() - QUIET} != LOADER:
        return f"{CODE_FILES[0]} names another loader"
    allowed = {*CODE_FILES, *BESIDE}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and name not in allowed and not name.startswith(f"{BUNDLE}/"):
            return f"{name} does not belong there"
    return None


def code_digest(folder: Path) -> str:
    """sha256 of what decides which code runs when the model is loaded: the code itself, and the description that names
    it."""
    digest = hashlib.sha256()
    for name in CODE_FILES:
        data = (folder / name).read_bytes()
        digest.update(f"{name} {len(data)}\n".encode() + data)
    return digest.hexdigest()


def verify_code(folder: Path, recorded: str | None) -> None:
    """Raises `Tampered` when the model would run other code than it was saved with: MLflow runs whatever is there, and
    would read a pickle if the description named one."""
    try:
        found = code_digest(folder)
    except OSError as error:
        found = str(error)
    if found != recorded:
        raise Tampered(
            "the model's code is not what was written",
            expected=f"sha256 {recorded}",
            found=found,
            where=str(folder),
            hint="restore the folder, or release again",
        )
    if (foreign := foreign_code(folder)) is not None:
        raise Tampered(
            "the model would run code that is not Orchard's",
            expected="what this version writes",
            found=foreign,
            where=str(folder),
            hint="release again",
        )


def load(folder: Path) -> Any:
    """The model of a folder, loaded as any user of MLflow would."""
    import mlflow.pyfunc

    with _one_at_a_time:
        return mlflow.pyfunc.load_model(str(folder), suppress_warnings=True)


def signature(use_case: UseCase) -> Any:
    """Inputs are the contract's columns that a prediction needs, other columns are ignored; outputs are the
    scorer's.

    Only text is declared as such: MLflow would refuse whole numbers where a file happens to have no
    fractions, or floats where an integer column has a gap, and timestamps with a zone altogether. The scorer
    reads them all.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import AnyType, Array

    columns = use_case.contract.columns
    inputs = [
        ColSpec(DataType.string if columns[name].type is ColumnType.STRING else AnyType(), name)
        for name in input_columns(use_case)
    ]
    numbers = Array(DataType.double)
    outputs = [
        ColSpec(DataType.string, "partition"),
        ColSpec(DataType.double, "prediction", required=False),
        ColSpec(DataType.string, "label", required=False),
        ColSpec(numbers, "probabilities", required=False),
        ColSpec(numbers, "baseline"),
        ColSpec(DataType.string, "answer"),
        ColSpec(DataType.boolean, "fallback"),
        ColSpec(DataType.long, "model_run"),
    ]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs))


def input_columns(use_case: UseCase) -> list[str]:
    """Contract columns behind partition keys, features and baseline, in the contract's order."""
    wanted = {*use_case.partition_by, *use_case.features.all}
    if use_case.baseline is not None:
        wanted.add(use_case.baseline)
    for name, derived in reversed(use_case.derived.items()):  # a derived column comes after its sources
        if name in wanted:
            wanted.update(derived.sources)
    return [name for name in use_case.contract.columns if name in wanted]


def unanswered(folder: Path, rows: pd.DataFrame, answers: pd.DataFrame) -> int:
    """Rows without a finite answer, those aside that lack the baseline which a prediction is added to."""
    about = json.loads((folder / BUNDLE / "bundle.json").read_text())
    values = answers["probabilities" if about["classes"] else "prediction"].tolist()
    answered = np.array([np.isfinite(np.asarray(value, dtype=np.float64)).all() for value in values], bool)
    if about["baseline"] is not None:
        answered |= np.isnan(scorer.to_number(scorer.derive(rows, about["derived"])[about["baseline"]]))
    return int((~answered).sum())
