"""Which network card a group takes. That two machines then meet is shown by tests/chaos/test_network.py."""

from __future__ import annotations

import os

import psutil
import pytest

from raypath.components.training.runtime.network_interface import GLOO, card_of, choose_card


def test_a_card_is_found_by_its_address() -> None:
    for name, each in psutil.net_if_addrs().items():
        assert all(card_of(one.address) == name for one in each if one.family.name == "AF_INET")
    assert card_of("127.0.0.1").startswith("lo")
    assert card_of("203.0.113.9") == ""


def test_a_card_that_somebody_has_chosen_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GLOO, "eth7")
    choose_card()
    assert os.environ[GLOO] == "eth7"
