"""Settings of one Orchard: from `ORCHARD_*` variables, or from a file that `ORCHARD_SETTINGS_FILE` names.

Every default points below `home` on this machine; each can point at something bigger. Variables win over the file. The
file is TOML with the names below, or, with any other ending, lines of `ORCHARD_NAME=value`. Nested names are joined by
two underscores: `ORCHARD_LAKE_OPTIONS__KEY`.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import tempfile
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

SETTINGS_FILE_VARIABLE = "ORCHARD_SETTINGS_FILE"


class LakeOptions(BaseModel):
    """How to reach an object store; all empty for a local lake or for credentials of the machine's own role."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: SecretStr | None = None
    secret: SecretStr | None = None
    token: SecretStr | None = None
    endpoint_url: str | None = None
    region: str | None = None


def _below_home(*parts: str) -> Any:
    return Field(default_factory=lambda data: f"file://{data['home'].joinpath(*parts)}")


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
    prefect_port: int = Field(default=4200, ge=1, le=65535)
    mlflow_port: int = Field(default=5000, ge=1, le=65535)
    postgres_port: int | None = Field(
        default=None, ge=1, le=65535, description="TCP port of the embedded server; None: Unix socket only"
    )
    secret_key: SecretStr = Field(
        default=SecretStr(""),
        description="all database passwords derive from it; empty: kept in home/secret.key",
    )

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
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InvalidDefinition("the settings do not fit", found=problems, where=path or "ORCHARD_*") from None
    except ValueError as error:
        raise InvalidDefinition("the settings cannot be read", found=str(error), where=path or "ORCHARD_*") from None
    if not settings.secret_key.get_secret_value():
        settings = settings.model_copy(update={"secret_key": SecretStr(_stored_key(settings.home))})
    return settings


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
