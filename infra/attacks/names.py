"""Names that are taken for the victim's: of a tenant, a use case, a place in the inbox, a secret."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import combinations

from pydantic import TypeAdapter, ValidationError

from infra.attacks.attempt import Finding, Group, all_denied, denied, refused, succeeded
from infra.attacks.scene import Scene
from infra.database.cluster import silo_database, tenant_login
from infra.database.tables import predictions_of
from infra.inbox import place_of
from infra.places import places
from infra.space import open_space
from tasks.domain.errors import InvalidDefinition, NotFound
from tasks.domain.job import JobKind, deployment_name
from tasks.domain.names import SecretName, TenantId, UseCaseId, artifact_key, registered_model_name, secret_block
from tasks.domain.tenant import Isolation, Tenant, Tier, own_pool

GROUP = Group("names")

Trick = Callable[[str], str]

CYRILLIC = str.maketrans("aeopcx", "\u0430\u0435\u043e\u0440\u0441\u0445")

TRICKS: dict[str, tuple[str, Trick]] = {
    "capitals": ("in capitals, which some systems do not tell apart", str.upper),
    "leading-space": ("with a space before it", lambda name: f" {name}"),
    "trailing-space": ("with a space after it, which some systems drop", lambda name: f"{name} "),
    "trailing-newline": ("with a line's end after it, which some patterns overlook", lambda name: f"{name}\n"),
    "trailing-dot": ("with a dot after it, which some systems drop", lambda name: f"{name}."),
    "nul": ("ended early by a NUL", lambda name: f"{name}\0x"),
    "homoglyph": ("with letters that only look the same", lambda name: f"{name.translate(CYRILLIC)}\u0430"),
    "fullwidth": ("in full-width letters", lambda name: "".join(chr(ord(letter) + 0xFEE0) for letter in name)),
    "zero-width": ("with a character without width in it", lambda name: f"{name[0]}\u200b{name[1:]}"),
    "combining": ("with a mark that composes with its letter", lambda name: f"{name}\u0301"),
    "right-to-left": ("written backwards behind a mark that turns it round", lambda name: f"\u202e{name[::-1]}"),
    "parent": ("behind a detour", lambda name: f"x/../{name}"),
    "slash": ("with a folder of its own", lambda name: f"{name}/x"),
    "percent": ("with a percent code", lambda name: f"%{ord(name[0]):x}{name[1:]}"),
    "login": ("as its database login is called", tenant_login),
    "wildcard": ("as a pattern", lambda name: f"{name[:-1]}%"),
    "quote": ("with a quote that ends a text in SQL", lambda name: f"{name}' OR tenant = '{name}"),
    "dot": ("with a use case, as the registry has it", lambda name: f"{name}.demand"),
    "double-hyphen": ("with two hyphens, as artifacts have it", lambda name: f"{name}--demand"),
    "long": ("so long that a database cuts it", lambda name: name + "-" + "x" * 63),
    "empty": ("by saying none", lambda _: ""),
    "template": ("by a template", lambda name: f"{{{{{name}}}}}"),
}


def _tenant(trick: Trick, scene: Scene) -> Finding:
    """Neither onboarded under such a name nor found by it."""
    name = trick(scene.victim.tenant.id)

    def define() -> Tenant:
        fields = scene.attacker.tenant.model_dump(mode="python", by_alias=True) | {"id": name}
        return Tenant.model_validate(fields)

    return all_denied(
        refused(act, *errors)
        for act, errors in (
            (define, (ValidationError,)),
            (lambda: open_space(scene.settings, name), (NotFound, InvalidDefinition)),
        )
    )


for _name, (_what, _trick) in TRICKS.items():
    GROUP.add(f"tenant-{_name}", f"names the victim {_what}", partial(_tenant, _trick), quick=_name == "parent")

USE_CASES: dict[str, tuple[str, Callable[[str, str], str]]] = {
    "dot": ("that makes a name of the registry the victim's", lambda victim, _: f"x.{victim}"),
    "parent": ("that leads out of its folder", lambda victim, _: f"../{victim}/tables/x"),
    "registry": ("that is a whole name in the registry", lambda victim, theirs: f"{victim}.{theirs}"),
    "quote": ("that ends a text in a search", lambda victim, _: f"x' OR name LIKE '{victim}%"),
    "nul": ("that is ended early by a NUL", lambda _, theirs: f"{theirs}\0"),
    "newline": ("with a line's end", lambda _, theirs: f"{theirs}\n"),
    "capitals": ("in capitals", lambda _, theirs: theirs.upper()),
    "absolute": ("that is a path", lambda victim, theirs: f"/tenants/{victim}/tables/{theirs}"),
}


def _use_case(name: Callable[[str, str], str], scene: Scene) -> Finding:
    tried = name(scene.victim.tenant.id, scene.prey.use_case)
    return refused(lambda: TypeAdapter(UseCaseId).validate_python(tried), ValidationError)


for _name, (_what, _use_case_name) in USE_CASES.items():
    GROUP.add(f"use-case-{_name}", f"has a use case {_what}", partial(_use_case, _use_case_name), once=True)

INBOX: dict[str, tuple[str, Callable[[str, str], str]]] = {
    "parent": ("goes up", lambda mine, theirs: f"{mine}/../{theirs}/demand/history/x.csv"),
    "short": ("leaves its tenant out", lambda _, theirs: f"/{theirs}/history/x.csv"),
    "deep": ("has a folder too many", lambda mine, theirs: f"{mine}/{theirs}/demand/history/x.csv"),
    "absolute": ("begins at the root", lambda _, theirs: f"/{theirs}/demand/history/x.csv"),
    "backslash": ("has backslashes", lambda mine, theirs: f"{mine}\\..\\{theirs}/demand/history/x.csv"),
    "nul": ("has a NUL", lambda mine, theirs: f"{mine}/demand/history/x.csv\0/../../{theirs}"),
    "no-name": ("has no file", lambda mine, _: f"{mine}/demand/history/"),
    "dots": ("has a file called ..", lambda mine, _: f"{mine}/demand/history/.."),
    "purpose": ("has another purpose", lambda mine, theirs: f"{mine}/demand/{theirs}/x.csv"),
    "rejected": ("is among those that were refused", lambda _, theirs: f"rejected/{theirs}/demand/history/x.csv"),
}


def _inbox(path: Callable[[str, str], str], scene: Scene) -> Finding:
    return refused(lambda: place_of(path(scene.attacker.tenant.id, scene.victim.tenant.id)), InvalidDefinition)


for _name, (_what, _inbox_path) in INBOX.items():
    GROUP.add(f"inbox-{_name}", f"has a place in the inbox that {_what}", partial(_inbox, _inbox_path))


@GROUP.attack("names a secret so that its block is one of a tenant whose name goes on where its own ends")
def secret_in_the_middle(scene: Scene) -> Finding:
    """`acme` with the secret `eu-warehouse`, and `acme-eu` with the secret `warehouse`."""
    mine = scene.attacker.tenant.id
    theirs, secret = f"{mine}-eu", "warehouse"
    TypeAdapter(TenantId).validate_python(theirs)

    def collide() -> str:
        name = TypeAdapter(SecretName).validate_python(f"eu-{secret}")
        return f"{secret_block(mine, name)}, and that of {theirs} is {secret_block(theirs, secret)}"

    return refused(collide, ValidationError)


def _names_of(scene: Scene, tenant: str) -> dict[str, set[str]]:
    """All that is named after a tenant, by what it is."""
    use_cases = [f"{first}{second}" for first, second in (("a", ""), ("a", "-b"), ("b", "-a"))]
    return {
        "login": {tenant_login(tenant)},
        "database": {silo_database(tenant)},
        "partition of predictions": {predictions_of(tenant)},
        "work pool": {own_pool(tenant), *(f"tier-{tier}" for tier in Tier if tenant == tier)},
        "deployment": {deployment_name(kind, own_pool(tenant)) for kind in JobKind},
        "registered model": {registered_model_name(tenant, use_case) for use_case in use_cases},
        "secret": {secret_block(tenant, secret) for secret in ("a", "b", "ab")},
        "artifact": {artifact_key(tenant, use_case, "receipt") for use_case in use_cases},
        "place": {
            f"{location.url}/"
            for isolation in (Isolation.POOL, Isolation.SILO)
            for location in places(scene.settings, tenant, isolation).all()
        },
    }


@GROUP.attack("finds a name, of anything, that is the victim's too, or a folder inside the victim's", quick=True)
def shared_names(scene: Scene) -> Finding:
    mine, theirs = scene.attacker.tenant.id, scene.victim.tenant.id
    # Ids that begin like another one are where names meet.
    ids = sorted({mine, theirs, f"{mine}-a", f"{mine}-a-b", f"{theirs}-a", f"a-{mine}"})
    named = {tenant: _names_of(scene, tenant) for tenant in ids}
    for one, other in combinations(ids, 2):
        for kind, names in named[one].items():
            if shared := names & named[other][kind]:
                return succeeded(f"{kind} {sorted(shared)[0]!r} is that of {one} and of {other}")
        for place in named[one]["place"]:
            for another in named[other]["place"]:
                if place.startswith(another) or another.startswith(place):
                    return succeeded(f"{place} and {another} lie in one another")
    return denied(
        f"{sum(map(len, named[mine].values()))} names, of {len(named[mine])} kinds, are each one tenant's alone"
    )


@GROUP.attack("has a name cut by the database to that of another", once=True)
def cut_names(_: Scene) -> Finding:
    longest = "x" * 40
    TypeAdapter(TenantId).validate_python(longest)
    for name in (tenant_login(longest), predictions_of(longest), silo_database(longest)):
        if len(name.encode()) > 63:
            return succeeded(f"{name} is longer than the 63 bytes that PostgreSQL keeps")
    return refused(lambda: TypeAdapter(TenantId).validate_python(longest + "x"), ValidationError)
