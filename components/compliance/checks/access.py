"""Checks of access: files, encryption, transport, API keys."""

from __future__ import annotations

from raypath.components.compliance.checks.data import NO_ENDPOINT
from raypath.components.compliance.evidence import Evidence
from raypath.components.compliance.outcome import Answer, met, not_applicable, not_met, partly, unknown
from raypath.components.compliance.profile import Profile
from raypath.components.data.wording import plural


def store_encrypted(evidence: Evidence, profile: Profile) -> Answer:
    """Answer whether what is stored is encrypted, by Raypath or by the disk."""
    store = evidence.store
    if store.encrypted:
        return met(store.encryption)
    if store.encrypted is False:
        return partly(store.encryption, "raypath encryption init")
    return unknown(store.encryption, "raypath encryption init")


def files_private(evidence: Evidence, profile: Profile) -> Answer:
    """Answer whether other users of the machine are kept from the files."""
    store = evidence.store
    if not store.open_files:
        return met(f"files of {store.place} are readable by their owner only")
    others = f" and {len(store.open_files) - 1} more" if len(store.open_files) > 1 else ""
    return not_met(f"{store.open_files[0]}{others} can be read by other users", f"chmod -R go= {store.place}")


def transport_encrypted(evidence: Evidence, profile: Profile) -> Answer:
    """Answer whether requests from other machines travel over TLS."""
    if evidence.listener and not evidence.listener_tls:
        return not_met(f"endpoints listen at {evidence.listener} without TLS", "raypath up --listen ADDRESS --tls FILE")
    clusters = [run for run in evidence.served if run.cluster]
    if clusters:
        return unknown(f"the endpoint {clusters[-1].endpoint} is on a cluster, whose ingress is not seen from here")
    if evidence.listener:
        return met(f"endpoints listen at {evidence.listener}, with TLS alone")
    if not evidence.served:
        return not_applicable(NO_ENDPOINT)
    return met("endpoints listen on 127.0.0.1 only; `raypath up --listen` serves other machines over TLS alone")


def keys_required(evidence: Evidence, profile: Profile) -> Answer:
    """Answer whether every request needs an API key or a token."""
    if not evidence.served:
        return not_applicable(NO_ENDPOINT)
    open_ones = [run for run in evidence.served if run.settings.get("serve.open")]
    if open_ones:
        last = open_ones[-1]
        what = f"serve.open is on in run {last.id}: the endpoint {last.endpoint} needs no key"
        return not_met(what, f"raypath run {last.workflow} -s serve.open=false")
    issuers = f" and {plural(evidence.issuers, 'trusted issuer')}" if evidence.issuers else ""
    return met(f"endpoints need a key; there are {plural(len(evidence.keys), 'active key')}{issuers}")


def keys_limited(evidence: Evidence, profile: Profile) -> Answer:
    """Answer whether keys expire, and the scope admin is rare."""
    if not evidence.served and not evidence.keys:
        return not_applicable("there are no API keys")
    admins = [key.name for key in evidence.keys if "admin" in key.scopes]
    forever = [key.name for key in evidence.keys if key.expires is None]
    if len(admins) > 1 and len(admins) == len(evidence.keys):
        return not_met(f"all {len(admins)} keys have the scope admin", "raypath keys create NAME --scopes predict")
    if forever:
        what = f"{len(forever)} of {plural(len(evidence.keys), 'active key')} without an expiry, such as {forever[0]}"
        return partly(what, f"raypath keys create {forever[0]} --expires 365d, then raypath keys revoke the old one")
    return met(f"{plural(len(evidence.keys), 'active key')}, each with scopes and an expiry; {len(admins)} with admin")
