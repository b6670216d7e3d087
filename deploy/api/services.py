"""Local services: start and stop Ray and MLflow, and report what they serve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from raypath.components.core.errors import RaypathError, UserError
from raypath.components.data.streaming.shard_cache import usage
from raypath.deploy.api.project import home_folder, private_process
from raypath.deploy.api.results import EndpointMessage, EndpointStatus, ServiceStatus, ShardCacheStatus, Status
from raypath.deploy.api.security.certificates import listener_certificates
from raypath.deploy.execution.run_history import load_runs
from raypath.deploy.local import services as local
from raypath.deploy.local import state
from raypath.deploy.local.ray_connection import connection, quiet_serve
from raypath.deploy.store.audit.log import audited
from raypath.deploy.store.object_store import SHARDS

if TYPE_CHECKING:
    from raypath.components.serving.replica.status import ReplicaStatus
    from raypath.deploy.local.haproxy import PublicListener


def up(
    *,
    listen: str = "",
    tls: str | Path | None = None,
    client_ca: str | Path | None = None,
    revoked: str | Path | None = None,
    client_auth: Literal["", "required", "optional"] = "",
    ray_tls: bool = False,
    home: str | Path | None = None,
) -> Status:
    """Start Ray and MLflow on this machine; a second call changes nothing. They live on when this process ends.

    Args:
        listen: ADDRESS:PORT at which other machines reach the endpoints, over TLS; "" for this machine alone.
        tls: PEM file with the certificate and its private key, for `listen`; None for the project's own
            (`raypath tls init`), which is made where there is none.
        client_ca: PEM file with the authorities whose client certificates are accepted (mutual TLS); None for the
            project's own with `client_auth`, else certificates are not asked for.
        revoked: PEM file with their revocation lists; None for the project's own with its authority.
        client_auth: "required" or "optional"; "" is "required" with `client_ca`.
        ray_tls: Encrypt what Ray's processes send each other; each has to have a certificate of the project.
        home: Home folder of the project; default $RAYPATH_HOME, else .raypath here.

    Raises:
        UserError: One of the others without `listen`, an invalid file, or Ray is up and listens elsewhere.
        PlatformError: A service ended while it started.
    """
    if not listen and (tls or client_ca or revoked or client_auth):
        raise UserError("certificates are for other machines", fix="give listen too, such as 0.0.0.0:8443")
    folder = home_folder(home)
    with (
        private_process(),
        audited(folder, "services.up", "", {"listen": listen, "client_auth": client_auth, "ray_tls": ray_tls}),
    ):
        listener = _listener(folder, listen, tls, client_ca, revoked, client_auth) if listen else None
        local.up(folder, listener=listener, ray_tls=ray_tls)
    return status(home=folder)


def _listener(
    home: Path,
    listen: str,
    tls: str | Path | None,
    client_ca: str | Path | None,
    revoked: str | Path | None,
    client_auth: str,
) -> PublicListener:
    """Return the listener, with the project's own files where none are named. Raises UserError."""
    from raypath.deploy.local.haproxy import PublicListener
    from raypath.deploy.local.tls import project

    own = project.ProjectFiles(home)
    if tls is None or (client_auth and client_ca is None):
        project.ensure_server(home)
    if client_auth and client_ca is None:
        client_ca, revoked = own.authority, revoked or own.revoked
    authority, lists = Path(client_ca) if client_ca else None, Path(revoked) if revoked else None
    return PublicListener(listen, Path(tls or own.server), authority, lists, client_auth == "optional")


def down(*, home: str | Path | None = None) -> list[str]:
    """Stop what was started here, endpoints included; returns one line a service, [] where nothing was running.

    Args:
        home: Home folder of the project; default $RAYPATH_HOME, else .raypath here.
    """
    folder = home_folder(home)
    with private_process(), audited(folder, "services.down", ""):
        return local.down(folder)


def status(*, home: str | Path | None = None) -> Status:
    """Return the local services and the endpoints in service. Starts nothing: an endpoint that is scaled to
    zero stays so.

    Args:
        home: Home folder of the project; default $RAYPATH_HOME, else .raypath here.
    """
    folder = home_folder(home)
    services = [
        ServiceStatus(
            name=each.name,
            state=each.state,
            url=each.address,
            pid=each.pid,
            since=each.since,
            memory_mib=each.memory_mib,
            log=str(each.log or ""),
        )
        for each in local.status(folder)
    ]
    with private_process():
        endpoints = _endpoints(folder) if services[0].state == "up" else []
    return Status(
        home=str(folder),
        services=services,
        endpoints=endpoints,
        public_url=state.read(folder).public,
        shard_cache=_shard_cache(folder / SHARDS),
        certificates=listener_certificates(folder),
    )


def _shard_cache(folder: Path) -> ShardCacheStatus | None:
    found = usage(folder)
    if found is None:
        return None
    return ShardCacheStatus(
        folder=str(folder),
        shards=found.shards,
        bytes=found.bytes,
        limit=found.limit,
        removed=found.removed,
        removed_bytes=found.removed_bytes,
    )


def _endpoints(home: Path) -> list[EndpointStatus]:
    """Endpoints that runs of this home have made and that are in service."""
    made = [step.artifact for run in load_runs(home) for step in run.steps if step.artifact and "url" in step.artifact]
    names = {artifact["url"]: artifact["name"] for artifact in made}
    found = (_endpoint(home, url, name) for url, name in names.items())
    return [each for each in found if each is not None]


def _endpoint(home: Path, url: str, name: str) -> EndpointStatus | None:
    # Serve is queried first, through Ray, which starts no replica of an endpoint that is scaled to zero.
    from raypath.components.serving.control import client, proxy
    from raypath.components.serving.replica import status as replicas

    try:
        connection.connect(home)
        with quiet_serve():
            known = proxy.is_running() and replicas.is_deployed(name)
    except RaypathError:
        known = False
    if known:
        return endpoint_status(url, name, replicas.running_replicas(name), replicas.replica_statuses(name))
    # Perhaps one that another Ray serves, such as a RayService.
    found = client.health(url)
    if found is None:
        return None
    return EndpointStatus(
        name=str(found["name"] or name),
        url=url,
        status=str(found["status"]),
        versions=[int(found["version"])],
        replicas=1,
        requests_per_second=0.0,
        messages=[],
    )


def endpoint_status(url: str, name: str, replicas: int, states: Sequence[ReplicaStatus]) -> EndpointStatus:
    """Combine what the replicas of an endpoint report."""
    messages = [message for state in states for message in state.fault_messages()]
    faults = bool(messages)
    furthest = max((each.live_requests for each in states), default=0)
    for each in states:
        # The live test is one for all replicas: what the one says that looked last.
        if each.live_requests == furthest:
            messages += [(role, text) for role in ("canary", "shadow") if (text := getattr(each, role))]
    return EndpointStatus(
        name=name,
        url=url,
        status="scaled to zero" if not replicas else "degraded" if faults else "ok",
        versions=sorted({state.versions[name] for state in states if name in state.versions}),
        replicas=replicas,
        requests_per_second=round(sum(state.requests for state in states), 3),
        messages=[EndpointMessage(role=role, text=text) for role, text in dict.fromkeys(messages)],
    )
