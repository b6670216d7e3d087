"""The base manifests: restricted, without default tokens, closed by default, and all of them listed."""

from pathlib import Path
from typing import Any

import yaml

BASE = Path(__file__).parent.parent.parent / "k8s" / "base"


def _load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((BASE / name).read_text(encoding="utf-8"))
    return found


def test_every_manifest_is_listed() -> None:
    files = {path.name for path in BASE.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(_load("kustomization.yaml")["resources"]) == files


def test_pods_are_restricted_get_no_token_and_no_traffic() -> None:
    namespace = _load("namespace.yaml")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    accounts = list(yaml.safe_load_all((BASE / "service-account.yaml").read_text(encoding="utf-8")))
    assert len(accounts) == 3
    assert all(account["automountServiceAccountToken"] is False for account in accounts)
    policy = _load("network-policy.yaml")["spec"]
    assert policy["podSelector"] == {}
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in policy
    assert [port["port"] for rule in policy["egress"] for port in rule["ports"]] == [53, 53]
