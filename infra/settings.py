"""Settings of one Orchard: from `ORCHARD_*` variables, or from a file that `ORCHARD_SETTINGS_FILE` names.

Every default points below `home` on this machine; each can point at something bigger. Variables win over the file. The
file is TOML with the names below, or, with any other ending, lines of `ORCHARD_NAME=value`. Nested names are joined by
two underscores: `ORCHARD_LAKE_OPTIONS__KEY`.
"""

from __future__ import annotations

import difflib
import hashlib
import hmac
import os
import secrets
import tempfile
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from tasks.domain.errors import InvalidDefinition
from tasks.domain.labels import Label

SETTINGS_FILE_VARIABLE = "ORCHARD_SETTINGS_FILE"


class LakeOptions(BaseModel):
    """How to reach an object store; all empty for a local lake or for credentials of the machine's own role."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: SecretStr | None = None
    secret: SecretStr | None = None
    token: SecretStr | None = None
    endpoint_url: str | None = None
    region: str | None = None


class StorageOptions(BaseModel):
    """How tenants are kept apart where their files are on S3. None of it matters to a local lake."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    roles: bool = Field(
        default=True, description="a role per tenant, which its spaces assume; false: the lake's own login opens it all"
    )
    role_prefix: str = Field(
        default="orchard-tenant-", pattern=r"^[A-Za-z0-9+=,.@_-]{1,24}$", description="the tenant's id follows"
    )
    operator: str | None = Field(
        default=None, description="ARN of the user or role that may assume them; None: whoever onboards"
    )
    administrators: tuple[str, ...] = Field(
        default=(), description="further ARNs that the bucket of a silo admits: Terraform's, for one"
    )
    session_s: int = Field(default=3600, ge=900, le=43_200, description="how long assumed credentials are valid")
    endpoint_url: str | None = Field(
        default=None, description="of IAM, STS and KMS; None: where the lake is; aws: Amazon's own"
    )
    kms_key: str | None = Field(
        default=None, description="ARN of the KMS key of shared buckets; None: the object store's own encryption"
    )
    tags: bool = Field(
        default=True, description="whether objects, buckets, roles and keys are tagged; false: for stores without tags"
    )
    silo_keys: bool = Field(default=True, description="a KMS key of its own for every silo")


def _below_home(*parts: str) -> Any:
    return Field(default_factory=lambda data: f"file://{data['home'].joinpath(*parts)}")


def _beside(lake_url: str, home: Path) -> str:
    """Where silos are unless the settings say so: of a lake on S3, in buckets with the name of the lake's and more."""
    if lake_url.startswith("s3://"):
        return f"s3://{lake_url.removeprefix('s3://').split('/')[0]}-silo"
    return f"file://{home / 'silos'}"


class Settings(BaseSettings):
    """Where everything of one Orchard is. Build it with `load_settings`, which also provides the secret key."""

    model_config = SettingsConfigDict(
        env_prefix="ORCHARD_",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        validate_default=True,
    )

    home: Path = Field(default=Path(".orchard"), description="folder of everything that is written at run time")
    database_url: str | None = Field(
        default=None,
        repr=False,
        description="PostgreSQL URL of the operator's login (CREATEROLE, owner of its database); None: embedded",
    )
    lake_url: str = _below_home("lake")
    lake_options: LakeOptions = LakeOptions()
    storage: StorageOptions = StorageOptions()
    silo_url: str = Field(
        default_factory=lambda data: _beside(data["lake_url"], data["home"]),
        description="where silos are: a folder, or s3://NAME for buckets NAME-<tenant>",
    )
    training_registry_uri: str | None = Field(
        default=None, repr=False, description="None: database mlflow_training of the same cluster"
    )
    production_registry_uri: str | None = Field(
        default=None, repr=False, description="None: database mlflow_production of the same cluster"
    )
    training_artifacts_url: str = _below_home("artifacts", "training")
    production_artifacts_url: str = _below_home("artifacts", "production")
    prefect_api_url: str | None = Field(
        default=None,
        validation_alias=AliasChoices("ORCHARD_PREFECT_API_URL", "PREFECT_API_URL"),
        description="None: a server is started on demand",
    )
    workers: int | None = Field(default=None, ge=1, description="threads of one run; None: one per core")
    host: str = Field(default="127.0.0.1", description="address that the API and Prefect's UI listen on")
    api_port: int = Field(default=8080, ge=1, le=65535)
    api_processes: int = Field(default=1, ge=1, description="of the API; each keeps models of its own in memory")
    verify_onboarding: bool = Field(
        default=True, description="whether a new tenant is attacked, and attacks, to see that it is kept apart"
    )
    serving_memory_mb: int = Field(
        default=1024, ge=16, description="of each API process, for models that answer online"
    )
    trusted_proxies: str | None = Field(
        default=None,
        description="addresses or networks of the proxies before the API, comma-separated: a client's address is what "
        "they say it is (X-Forwarded-For)",
    )
    inbox_url: str = _below_home("inbox")
    tiers_file: Path | None = Field(default=None, description="None: deployments/tiers.yaml")
    ask_above: Decimal | None = Field(
        default=None, ge=0, description="`orchard run` asks before a run that may be charged more than that"
    )
    alert_block: str | None = Field(
        default=None, description="Prefect block that hears of failed runs, such as slack-webhook/ops or webhook/pager"
    )
    prefect_port: int = Field(default=4200, ge=1, le=65535)
    mlflow_port: int = Field(default=5000, ge=1, le=65535)
    postgres_port: int | None = Field(
        default=None, ge=1, le=65535, description="TCP port of the embedded server; None: Unix socket only"
    )
    secret_key: SecretStr = Field(
        default=SecretStr(""),
        description="all database passwords derive from it; empty: kept in home/secret.key",
    )

    @field_validator("prefect_api_url", "database_url", "training_registry_uri", "production_registry_uri")
    @classmethod
    def _set_or_not(cls, url: str | None) -> str | None:
        return url or None  # an empty variable is one that is not set

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        # Workers start in other folders, so a relative home is fixed where the settings are loaded.
        return home.expanduser().resolve()

    def tenant_password(self, tenant: str) -> str:
        """Password of a tenant's database login."""
        return derived_password(self.secret_key, f"database:{tenant}")

    def service_password(self, login: str) -> str:
        """Password of a login of Orchard's own; its prefix keeps it apart from any tenant of that name."""
        return derived_password(self.secret_key, f"service:{login}")

    def prefect_auth(self) -> str:
        """`user:password` of Prefect's server, for its UI and for every client."""
        return f"orchard:{derived_password(self.secret_key, 'prefect')}"

    def hook_secret(self) -> str:
        """What a caller of the webhook for S3 notifications must present."""
        return derived_password(self.secret_key, "hooks")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then variables, then the named file; a stray `.env` of another tool is never read."""
        path = os.environ.get(SETTINGS_FILE_VARIABLE)
        if not path:
            return init_settings, env_settings
        if path.endswith(".toml"):
            return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=Path(path))
        return init_settings, env_settings, DotEnvSettingsSource(settings_cls, env_file=Path(path))


def derived_password(secret_key: SecretStr, label: str) -> str:
    """HMAC-SHA256 of the label under the secret key, in hex. Raises `InvalidDefinition` without a key."""
    key = secret_key.get_secret_value()
    if not key:
        raise InvalidDefinition("the settings hold no secret key", hint="build them with load_settings()")
    return hmac.new(key.encode(), label.encode(), hashlib.sha256).hexdigest()


def load_settings(**overrides: Any) -> Settings:
    """The settings of this process, with the secret key made in `home` if there is none yet.

    Raises `InvalidDefinition` when a variable or the file does not fit.
    """
    path = os.environ.get(SETTINGS_FILE_VARIABLE)
    if path and not Path(path).is_file():
        raise InvalidDefinition("the settings file does not exist", where=SETTINGS_FILE_VARIABLE, found=path)
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        # Inputs stay out of the message: a rejected URL may hold a password.
        causes = [e for e in error.errors() if e["type"] != "default_factory_not_called"]  # a default that needs others
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in causes)
        raise InvalidDefinition("the settings do not fit", found=problems, where=path or "ORCHARD_*") from None
    except ValueError as error:
        raise InvalidDefinition("the settings cannot be read", found=str(error), where=path or "ORCHARD_*") from None
    if not settings.secret_key.get_secret_value():
        try:
            key = _stored_key(settings.home)
        except OSError as error:
            raise InvalidDefinition(
                "this user may not use Orchard's folder",
                expected="a folder of this user's, or one that can be made",
                found=f"{error.strerror}: {error.filename}",
                where=str(settings.home),
                hint="use the user that made it, or set ORCHARD_HOME to another folder",
            ) from None
        settings = settings.model_copy(update={"secret_key": SecretStr(key)})
    return settings


def misspelt(variables: Iterable[str]) -> dict[str, str]:
    """Names of variables that are no settings, but nearly: each with the setting that is probably meant."""
    settings = {f"ORCHARD_{name.upper()}" for name in Settings.model_fields} | {SETTINGS_FILE_VARIABLE}
    known = settings | {label.variable for label in Label}
    ours = {name: name.upper().split("__")[0] for name in sorted(variables) if name.upper().startswith("ORCHARD_")}
    unknown = {name: top for name, top in ours.items() if top not in known}
    near = {name: difflib.get_close_matches(top, settings, n=1, cutoff=0.8) for name, top in unknown.items()}
    return {name: found[0] for name, found in near.items() if found}


def _stored_key(home: Path) -> str:
    """The key in `home/secret.key` (mode 0600), made on first use; of two that make it at once, one wins."""
    path = home / "secret.key"
    if not path.exists():
        home.mkdir(parents=True, exist_ok=True)
        handle, fresh = tempfile.mkstemp(prefix="secret.key-", dir=home)  # mkstemp makes it 0600
        try:
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_hex(32))
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            os.unlink(fresh)
    return path.read_text().strip()
