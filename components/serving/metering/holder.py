"""Holders of API keys and tokens: role, tenant, models, limits and prices. Standard library and pydantic only."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from raypath.components.serving.metering.roles import CLIENT_SCOPES, READ, Role, Scope, granted

Count = Annotated[int, Field(ge=0)]
Model = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
"""Name of a registered model."""
TenantName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Price = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class Limits(BaseModel):
    """Tenant, models, limits and prices of the holder of a key or a token."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: TenantName | None = None
    """Tenant that the holder belongs to; None: the home itself."""
    models: tuple[Model, ...] | None = None
    """Names of the models that it may use, of those of its tenant; None for all."""
    requests_per_minute: Count = 0
    """0: no limit."""
    tokens_per_minute: Count = 0
    """Of requests and responses; 0: no limit."""
    quota_requests: Count = 0
    """Per calendar month, UTC; 0: no limit."""
    quota_tokens: Count = 0
    """Per calendar month, UTC; 0: no limit."""
    price_per_request: Price = 0.0
    price_per_1k_tokens: Price = 0.0
    price_per_1k_generated: Price | None = None
    """Of tokens that a language model generates; None takes `price_per_1k_tokens`."""
    price_per_1k_cached: Price | None = None
    """Of tokens of a prompt that come from the prefix cache; None takes `price_per_1k_tokens`."""


class Key(Limits):
    """Stored key. The secret cannot be derived from it."""

    id: str
    name: str = Field(pattern=r"^\w[\w .@+-]{0,63}$")
    """Name of the holder."""
    digest: str = Field(repr=False)
    """HMAC-SHA256 of the secret, in hex; "" for a key without one, which the certificate alone stands for."""
    certificate: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Subject (RFC 4514) or common name of the client certificate that the key is bound to."""
    scopes: tuple[Scope, ...] = CLIENT_SCOPES
    role: Role | None = None
    """None: what the key may do are its scopes."""
    created: AwareDatetime
    expires: AwareDatetime | None = None
    revoked: AwareDatetime | None = None

    @property
    def limited(self) -> bool:
        """True for a key with a rate limit or a quota."""
        return any((self.requests_per_minute, self.tokens_per_minute, self.quota_requests, self.quota_tokens))

    @property
    def is_home_admin(self) -> bool:
        """True for an administrator of the home, who sees every tenant."""
        return self.tenant is None and (self.role == "admin" or (self.role is None and "admin" in self.scopes))

    def status(self, now: float) -> Literal["active", "expired", "revoked"]:
        """Return the status at a Unix time."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires.timestamp() <= now else "active"

    def require(self, permission: str, service: str, what: str = "key") -> None:
        """Raise AccessError 403 unless the holder has a permission. service: scope that the service requires."""
        if permission not in granted(self.role, self.scopes, service):
            asked = service if permission == READ and self.role is None else permission
            role = f"; its role is {self.role}" if self.role else ""
            raise AccessError(403, f"this {what} is not for {asked}{role}", key=self)


class AccessError(Exception):
    """Rejected request: 401 no valid key, 403 missing permission, 429 limit exceeded."""

    def __init__(self, status: int, reason: str, *, key: Key | None = None, retry_after: int = 0) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.key = key
        """The key, if the secret was correct."""
        self.retry_after = retry_after
        """Seconds until a retry; 0 sets no header."""
