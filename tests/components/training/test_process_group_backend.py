"""Network interface of a group. tests/components/test_finetune.py shows what ports a group opens, and
tests/chaos/test_network.py that two machines meet.
"""

from __future__ import annotations

import os

import psutil
import pytest

from raypath.components.training.runtime.process_group_backend import GLOO, interface_for, set_gloo_interface


def test_a_card_is_found_by_its_address() -> None:
    for name, each in psutil.net_if_addrs().items():
        assert all(interface_for(one.address) == name for one in each if one.family.name == "AF_INET")
    assert interface_for("127.0.0.1").startswith("lo")
    assert interface_for("203.0.113.9") == ""


def test_a_card_that_somebody_has_chosen_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GLOO, "eth7")
    set_gloo_interface()
    assert os.environ[GLOO] == "eth7"
