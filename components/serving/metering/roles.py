"""Scopes and roles of API keys and tokens, and what each role may do. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

Scope = Literal["predict", "embed", "chat", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
CLIENT_SCOPES: tuple[Scope, ...] = ("predict", "embed", "chat")
"""Scopes of a key for which neither scopes nor a role are named."""
Role = Literal["viewer", "operator", "admin"]
ROLE_NAMES: tuple[Role, ...] = get_args(Role)
"""Roles, each with the permissions of those before it and more."""

READ, CONTROL, ADMIN = "read", "control", "admin"
"""Permissions besides the scopes of clients: to see status, models, usage and metrics; to promote, roll back and run;
to manage keys, tenants, the audit log, exports, and to forget."""
PERMISSIONS: Mapping[Role, frozenset[str]] = {
    "viewer": frozenset({READ}),
    "operator": frozenset({READ, *CLIENT_SCOPES, CONTROL}),
    "admin": frozenset({READ, *CLIENT_SCOPES, CONTROL, ADMIN}),
}
"""What each role may do: the one table for keys, tokens and accounts of the command line."""


def role_scopes(role: Role | None) -> tuple[Scope, ...]:
    """Return the scopes of a role; of no role, those of a client."""
    return CLIENT_SCOPES if role is None else tuple(scope for scope in SCOPES if scope in PERMISSIONS[role])


def granted(role: Role | None, scopes: tuple[Scope, ...], service: str) -> frozenset[str]:
    """Return the permissions of a key at a service.

    With a role they are the role's, of the clients' scopes those that the key has. A key without a role, such as one of
    an earlier Raypath, has its scopes; it may read at a service that requires one of them.

    service: scope that the routes of the service require.
    """
    if role is None:
        return frozenset(scopes) | ({READ} if service in scopes else set())
    return PERMISSIONS[role] - (set(CLIENT_SCOPES) - set(scopes))
