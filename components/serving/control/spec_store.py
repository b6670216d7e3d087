"""Specs of deployed endpoints, stored in the Ray cluster: a promotion reads them without starting a replica.

Claims are stored there too: of several replicas, one does what has to be done once.
"""

from __future__ import annotations

import json
import time
from typing import Any

from pydantic import ValidationError

from raypath.components.core.errors import PlatformError
from raypath.components.serving.spec import EndpointSpec

_NAMESPACE, _CLAIMS = b"raypath-specs", b"raypath-claims"


def save_spec(spec: EndpointSpec) -> None:
    """Store the spec of an application; it lives as long as the Ray cluster."""
    _kv()._internal_kv_put(spec.name.encode(), spec.model_dump_json().encode(), namespace=_NAMESPACE)


def load_spec(application: str) -> EndpointSpec | None:
    """Return the spec of the last deployment of an application, None if Raypath did not deploy it.

    Raises PlatformError for a spec that another version of Raypath has stored.
    """
    found = _kv()._internal_kv_get(application.encode(), namespace=_NAMESPACE)
    return parse_spec(application, found) if found else None


def parse_spec(application: str, text: bytes) -> EndpointSpec:
    """Parse a stored spec. Raises PlatformError for one of another version of Raypath."""
    try:
        return EndpointSpec.model_validate_json(text)
    except ValidationError:
        what = f"endpoint {application} was deployed by another version of Raypath"
        raise PlatformError(
            what, fix="run its workflow again, which replaces it, or stop it with `raypath down`"
        ) from None


def claim(work: str, owner: str, seconds: float) -> bool:
    """Claim a piece of work for this long; returns False while another owner has it."""
    kv, key, now = _kv(), work.encode(), time.time()
    mine = json.dumps({"owner": owner, "until": now + seconds}).encode()
    if not kv._internal_kv_put(key, mine, overwrite=False, namespace=_CLAIMS):
        return True
    found = json.loads(kv._internal_kv_get(key, namespace=_CLAIMS) or b"{}")
    if found and found["owner"] != owner and found["until"] > now:
        return False
    kv._internal_kv_put(key, mine, namespace=_CLAIMS)
    return bool(kv._internal_kv_get(key, namespace=_CLAIMS) == mine)


def _kv() -> Any:
    # Ray has no public key-value store: this is the only module that uses its private one.
    from ray.experimental import internal_kv

    return internal_kv
