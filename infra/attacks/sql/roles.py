"""Becoming somebody else: the victim, the operator, a login that policies do not bind."""

from __future__ import annotations

import re

from infra.attacks.attempt import Finding, denied, succeeded, unproven
from infra.attacks.scene import Scene
from infra.attacks.sql.group import GROUP, forbid, powerless
from infra.attacks.sql.login import PRIVILEGE, UNSUPPORTED, Refusal, say, session, tell

for _name, _what, _statement in (
    ("set-role-victim", "takes on the victim's role", 'SET ROLE "tenant_VICTIM"'),
    ("set-role-operator", "takes on the operator's role", "SET ROLE orchard"),
    ("set-role-all-data", "takes on the predefined role that reads all data", "SET ROLE pg_read_all_data"),
    ("set-session-authorization", "becomes the victim's login", 'SET SESSION AUTHORIZATION "tenant_VICTIM"'),
    ("config-role", "takes on the victim's role by a setting", "SELECT set_config('role', 'tenant_VICTIM', false)"),
    (
        "config-session-authorization",
        "becomes the operator's login by a setting",
        "SELECT set_config('session_authorization', 'orchard', false)",
    ),
    ("grant-operator", "makes itself a member of the operator", "GRANT orchard TO CURRENT_USER"),
    ("grant-victim", "makes itself a member of the victim", 'GRANT "tenant_VICTIM" TO CURRENT_USER'),
    ("grant-all-data", "grants itself all data", "GRANT pg_read_all_data TO CURRENT_USER"),
    (
        "grant-table",
        "grants itself a table that is the operator's alone",
        "GRANT SELECT ON tenant_secrets TO CURRENT_USER; SELECT * FROM tenant_secrets",
    ),
    ("own-bypassrls", "exempts itself from the policies", "ALTER ROLE CURRENT_USER BYPASSRLS"),
    ("own-superuser", "makes itself a superuser", "ALTER ROLE CURRENT_USER SUPERUSER"),
    ("own-createrole", "lets itself make roles", "ALTER ROLE CURRENT_USER CREATEROLE"),
    ("victim-password", "sets the victim's password", "ALTER ROLE \"tenant_VICTIM\" PASSWORD 'x'"),
    (
        "victim-settings",
        "changes what the victim's sessions begin with",
        'ALTER ROLE "tenant_VICTIM" SET role = orchard',
    ),
    ("create-role", "makes a login of its own", 'CREATE ROLE "tenant_isolation-canary" LOGIN SUPERUSER'),
    ("drop-victim", "removes the victim's login", 'DROP ROLE "tenant_VICTIM"'),
    ("reassign-victim", "takes over what the victim owns", 'REASSIGN OWNED BY "tenant_VICTIM" TO CURRENT_USER'),
    ("drop-owned", "removes what the victim owns or was granted", 'DROP OWNED BY "tenant_VICTIM"'),
    (
        "default-privileges",
        "has all tables to come granted to everybody",
        "ALTER DEFAULT PRIVILEGES FOR ROLE orchard GRANT SELECT ON TABLES TO PUBLIC",
    ),
    ("row-security-off", "switches the policies off for its session", "SET row_security = off; SELECT * FROM uploads"),
    (
        "replication-role",
        "switches triggers and foreign keys off",
        "SET session_replication_role = replica",
    ),
):
    forbid(_name, _what, _statement)

forbid(
    "rename-own-login",
    "gives its login a name that policies take for another tenant's",
    'ALTER ROLE "tenant_ATTACKER" RENAME TO "tenant_isolation-canary"',
    PRIVILEGE,
    UNSUPPORTED,  # of the login that a session began with
)

FOR_VICTIM = "SELECT * FROM uploads WHERE tenant = 'VICTIM'"

for _name, _what, _before in (
    ("set-role-group", "reads as the group of all tenants", "SET ROLE orchard_tenants"),
    ("reset-role", "resets its role", "RESET ROLE"),
    ("reset-session-authorization", "resets whose login it is", "RESET SESSION AUTHORIZATION"),
    ("set-role-none", "drops its role", "SET ROLE NONE"),
    ("discard-settings", "forgets all settings of its session", "RESET ALL"),
):
    powerless(_name, _what, f"{_before}; {FOR_VICTIM}", quick=_name == "set-role-group")


@GROUP.attack("sets every variable that a policy reads, and those that policies often read", quick=True)
def set_policy_variables(scene: Scene) -> Finding:
    """Policies are in the catalogue for all to read, so a real attacker would begin there."""
    usual = ["orchard.tenant", "app.tenant", "app.current_tenant", "tenant.id", "my.tenant", "request.jwt.claims"]
    with session(scene.shared_door) as connection:
        policies = tell(connection, "SELECT coalesce(qual, '') || coalesce(with_check, '') FROM pg_policies").rows
        read = {name for (text,) in policies for name in re.findall(r"current_setting\('([^']+)'", text)}
        values = (scene.victim.tenant.id, f"tenant_{scene.victim.tenant.id}")
        for value in values:
            with connection.transaction(force_rollback=True):
                for name in sorted({*usual, *read}):
                    connection.execute("SELECT set_config(%s, %s, false)", (name, value))
                for table in ("uploads", "use_cases", "jobs", "predictions"):
                    seen = connection.execute(
                        f"SELECT count(*) FROM {table} WHERE tenant = %s",  # noqa: S608  # names of ours
                        (scene.victim.tenant.id,),
                    ).fetchone()
                    if seen and seen[0]:
                        return succeeded(f"{seen[0]} rows of {table} after setting {', '.join(sorted(read)) or 'them'}")
    if not policies:
        return unproven("the catalogue shows no policy")
    return denied(f"none of {len(policies)} policies is moved by a variable; they read: {sorted(read) or 'none'}")


@GROUP.attack("becomes the victim in the middle of a session that began as itself")
def authorization_in_options(scene: Scene) -> Finding:
    """Settings that come with the connection are set before anybody looks at them, if the server lets them."""
    import psycopg

    for option in ("role", "session_authorization"):
        try:
            with session(scene.shared_door, options=f"-c {option}=tenant_{scene.victim.tenant.id}") as connection:
                found = say(connection, "SELECT session_user::text, current_user::text")
        except psycopg.OperationalError as error:
            if "permission denied" not in str(error) and "cannot" not in str(error):
                raise
            continue
        if isinstance(found, Refusal):
            continue
        if f"tenant_{scene.victim.tenant.id}" in found.rows[0]:
            return succeeded(f"with the option {option}, the session is {found.rows[0]}")
    return denied(f"{PRIVILEGE}: neither a role nor a login comes with the connection")
