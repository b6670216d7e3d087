"""bfloat16 is taken where the machine multiplies in it, unless it is told not to."""

import pytest
import torch

from raypath.components import ParamsError
from raypath.components.models import bf16 as precision
from raypath.components.models.bf16 import supports_bf16
from raypath.deploy.execution.workflow_loader import load_workflow
from raypath.deploy.launchers import trace


def _cpuinfo(monkeypatch: pytest.MonkeyPatch, tmp_path, text: str) -> None:
    monkeypatch.delenv("RAYPATH_PRECISION")
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(precision, "CPUINFO", tmp_path / "cpuinfo")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512_bf16\nbugs\t: x\n", True),
        ("processor\t: 0\nFeatures\t: fp asimd bf16 i8mm\n", True),
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f\nmodel name\t: bf16\n", False),
        ("", False),
    ],
)
def test_the_processor_decides(monkeypatch: pytest.MonkeyPatch, tmp_path, text: str, wanted: bool) -> None:
    _cpuinfo(monkeypatch, tmp_path, text)
    assert supports_bf16("cpu") is wanted
    monkeypatch.setenv("RAYPATH_PRECISION", "fp32")
    assert supports_bf16("cpu") is False


def test_another_value_of_the_variable_is_an_error_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("FP32", "float32", "bf16"):
        monkeypatch.setenv("RAYPATH_PRECISION", value)
        with pytest.raises(ParamsError, match=f"RAYPATH_PRECISION is '{value}'; wanted fp32 or nothing"):
            trace(load_workflow("text_classification"), {})
    monkeypatch.setenv("RAYPATH_PRECISION", "")
    trace(load_workflow("text_classification"), {})


def test_what_it_says_of_this_machine_is_what_torch_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAYPATH_PRECISION")
    can = torch.cpu.get_capabilities()
    assert supports_bf16("cpu") == any(can.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


@pytest.mark.parametrize(("device", "wanted"), [("cuda", True), ("cuda:1", True), ("cpu", False)])
def test_a_gpu_is_asked_whether_it_multiplies_in_it_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path, device: str, wanted: bool
) -> None:
    _cpuinfo(monkeypatch, tmp_path, "flags\t\t: fpu avx2\n")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: not including_emulation)
    assert supports_bf16(device) is wanted
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert supports_bf16(device) is False
