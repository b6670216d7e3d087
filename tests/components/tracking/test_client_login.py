"""Headers with which clients log in, and servers that reject them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from raypath.components.tracking import login as client_login


def test_headers_of_requests_to_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "http://server:5000"
    for name in ("TOKEN", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    assert client_login.headers(uri) == {}
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "env")
    assert client_login.headers(uri) == {"Authorization": "Bearer env"}
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    assert client_login.headers(uri) == {"Authorization": "Bearer env"}
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "word")
    assert client_login.headers(uri) == {"Authorization": "Basic bWU6d29yZA=="}
    client_login.remember(f"{uri}/path", "own")
    assert client_login.headers(uri) == {"Authorization": "Bearer own"}
    assert [client_login.token_for(each) for each in ("http://server", "https://server:5000")] == ["", ""]
    monkeypatch.setattr(client_login.http, "is_foreign", lambda _: True)
    with pytest.raises(ConnectionError, match=r"^the server is another user's$"):
        client_login.headers(uri)
    assert not client_login.is_foreign("http://other:5000"), "it is of the user's own choice"
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "raypath")
    assert client_login.is_foreign("http://other:5000")
    assert client_login.variables("secret") == {
        "MLFLOW_TRACKING_TOKEN": "secret",
        "MLFLOW_TRACKING_USERNAME": "raypath",
        "MLFLOW_TRACKING_PASSWORD": "secret",
        "MLFLOW_TRACKING_AUTH": "",
        "MLFLOW_TRACKING_AWS_SIGV4": "false",
    }


@pytest.mark.parametrize("status", [200, 401, 403, None])
def test_a_login_that_is_rejected(status: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    asked: list[Any] = []

    def send(method: str, url: str, **options: Any) -> Any:
        asked.append((method, url, options))
        if status is None:
            raise ConnectionError
        return client_login.http.Response(status, b"")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_AUTH", raising=False)
    monkeypatch.setattr(client_login.http, "send", send)
    monkeypatch.setattr(client_login, "headers", lambda uri: {"for": uri})
    assert client_login.is_rejected("http://host/") is (status == 401)
    url = "http://host/api/2.0/mlflow/experiments/search?max_results=1"
    assert asked == [("GET", url, {"headers": {"for": "http://host/"}, "timeout": 5.0})]
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "other")
    assert not client_login.is_rejected("http://host")
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "raypath")
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow" / "credentials").touch()
    assert not client_login.is_rejected("http://host")
    assert len(asked) == 1


def test_a_client_of_mlflow_logs_in_by_the_server_of_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking.request_auth import registry

    made: list[Any] = []
    monkeypatch.setattr(client_login, "_installed", False)
    monkeypatch.setattr(client_login, "_tokens", {})
    monkeypatch.setattr(registry._request_auth_provider_registry, "register", made.append)
    monkeypatch.setattr(registry, "fetch_auth", lambda name: lambda request: f"{name} for {request.url}")
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "other")
    client_login.install()
    assert made == [], "there is no token"
    client_login.remember("http://own", "secret")
    for _ in range(2):
        client_login.install()
    [provider] = made
    assert client_login.os.environ["MLFLOW_TRACKING_AUTH"] == provider().get_name() == "raypath"
    login = provider().get_auth()

    def request(url: str) -> Any:
        return SimpleNamespace(url=url, headers={})

    own = request("http://own/api")
    assert login(own) is own
    assert own.headers == {"Authorization": "Bearer secret"}
    assert login(request("http://elsewhere")) == "other for http://elsewhere"
    monkeypatch.setattr(client_login, "is_foreign", lambda url: url == "http://own/api")
    with pytest.raises(ConnectionError, match=r"^the server is another user's$"):
        login(own)
    monkeypatch.setattr(client_login, "_installed", False)
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "raypath")
    client_login.install()
    other = request("http://elsewhere")
    assert made[1]().get_auth()(other) is other, "without another provider the request is sent as it is"
    assert other.headers == {}
