"""Print services, endpoints and registered models."""

from __future__ import annotations

from collections.abc import Sequence

from raypath.deploy.api.results import CertificateStatus, EndpointStatus, ModelVersion, ShardCacheStatus, Status
from raypath.deploy.console.run_report import _headline, console


def show_status(status: Status) -> None:
    """Print the services of a project and its endpoints."""
    for service in status.services:
        since = f"since {service.since:%H:%M}" if service.since else ""
        memory = f"{service.memory_mib} MiB" if service.memory_mib else ""
        console.print(f"{service.name:<8} {service.state:<5} {service.url:<26} {since} {memory}", markup=False)
    if status.public_url:
        console.print(f"{'':<8} {'':<5} {status.public_url:<26} endpoints, for other machines", markup=False)
    for certificate in status.certificates:
        console.print(certificate_line(certificate), markup=False, soft_wrap=True)
    if status.shard_cache is not None:
        console.print(shard_cache_line(status.shard_cache), markup=False)
    for endpoint in status.endpoints:
        for line in endpoint_lines(endpoint):
            console.print(line, markup=False)


def certificate_line(certificate: CertificateStatus) -> str:
    """Describe a certificate of the listener and its end."""
    what = f"{certificate.name}, until {certificate.expires:%Y-%m-%d}" if certificate.expires else certificate.name
    warning = f"; {certificate.state}: {certificate.message}" if certificate.message else ""
    return f"{'tls':<8} {'':<5} {certificate.file:<26} {what}{warning}"


def shard_cache_line(cache: ShardCacheStatus) -> str:
    """Describe the shards on this machine, and how many were removed."""
    line = f"{'shards':<8} {'':<5} {cache.folder}  {cache.shards:,}, {cache.bytes >> 20:,} of {cache.limit >> 20:,} MiB"
    return line + (f"; removed {cache.removed:,} ({cache.removed_bytes >> 20:,} MiB)" if cache.removed else "")


def endpoint_lines(endpoint: EndpointStatus) -> list[str]:
    """An endpoint with its replicas, then a line for each message."""
    if endpoint.status == "scaled to zero":
        return [_line(endpoint.url, endpoint.name, "scaled to zero; the next request starts a replica")]
    versions = " and ".join(map(str, endpoint.versions)) or "unknown"
    count = f"{endpoint.replicas} replica{'s' if endpoint.replicas > 1 else ''}"
    rate = f"{endpoint.requests_per_second:.1f} requests a second"
    lines = [_line(endpoint.url, f"{endpoint.name} version {versions}", f"{count}, {rate}")]
    return lines + [f"  {'status' if m.role == 'main' else m.role:<12} {m.text}" for m in endpoint.messages]


def _line(url: str, what: str, how: str) -> str:
    return f"{'endpoint':<8} {'up':<5} {url:<26} {what}, {how}"


def show_models(models: Sequence[ModelVersion]) -> None:
    """Print registered models with versions, aliases and their main metrics."""
    if not models:
        console.print("no models yet; `raypath run text_classification` registers one")
    for model in models:
        metrics = ", ".join(f"{k} {model.metrics[k]:.4f}" for k in _headline(model.metrics) if k in model.metrics)
        aliases = " ".join(f"@{alias}" for alias in model.aliases)
        console.print(f"{model.name:<20} {model.version:>4}  {aliases:<12} {metrics}", markup=False)
        if model.live:
            console.print(f"{'':<20} {'':>4}  {model.live}", markup=False)
