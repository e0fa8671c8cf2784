"""Drivers, builds and cards that are not here, as texts."""

import pytest

from vlm_crash.doctor.cuda_builds import driver_line, fitting_build, has_kernels, kernels_line
from vlm_crash.doctor.machine import kernel_driver, parse_driver

TITAN, PASCAL, BLACKWELL = (7, 5), (6, 1), (12, 0)
CU130 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]


@pytest.mark.parametrize(
    ("driver", "torch", "cuda", "cards", "status", "said"),
    [
        ("580.65.06", "2.14.1+cu130", "13.0", [TITAN], "ok", ""),
        ("595.10", "2.14.1", "13.2", [TITAN], "ok", ""),
        ("570.86.10", "2.14.1+cu130", "13.0", [TITAN], "problem", "torch==2.14.1+cu126 torchvision==0.29.1+cu126"),
        ("525.60.13", "2.14.1+cu130", "13.0", [TITAN], "problem", "-i https://download.pytorch.org/whl/cu126"),
        ("570.86.10", "2.11.0+cu130", "13.0", [TITAN], "problem", "torch==2.11.0+cu128"),
        # The last torch with wheels for CUDA 12 is 2.14; for CUDA 12 and Blackwell, 2.11.
        ("570.86.10", "2.15.0+cu132", "13.2", [TITAN], "problem", "'torch==2.14.*' 'torchvision==0.29.*'"),
        ("570.86.10", "2.14.1+cu130", "13.0", [BLACKWELL], "problem", "'torch==2.11.*' 'torchvision==0.26.*'"),
        ("570.86.10", "2.14.1+cu126", "12.6", [TITAN], "ok", ""),
        ("470.57.02", "2.14.1+cu126", "12.6", [TITAN], "problem", "update the driver to 525 or newer"),
        ("470.57.02", "2.14.1+cu130", "13.0", [TITAN], "problem", "update the driver to 580 or newer"),
        ("580.65.06", "2.14.1+cpu", None, [TITAN], "problem", "torch==2.14.1+cu132"),
        ("what?", "2.14.1+cu130", "13.0", [TITAN], "warning", ""),
    ],
)
def test_driver(driver, torch, cuda, cards, status, said):
    line = driver_line(driver, torch, "0.29.1+x" if "2.14" in torch else "0.26.0", cuda, cards)
    assert line.status == status
    assert said in line.remedy
    assert status != "problem" or (driver in line.text and line.remedy)


def test_no_command_where_no_build_fits():
    assert fitting_build("470.57.02", "2.14.1", "0.29.1", [TITAN]) is None
    line = driver_line("470.57.02", "2.14.1+cu130", "0.29.1", "13.0", [TITAN])
    assert line.remedy == "update the driver to 580 or newer"


def test_a_card_that_the_build_has_no_code_for():
    line = kernels_line(PASCAL, CU130, "580.65.06", "2.14.1+cu130", "0.29.1")
    assert line.status == "problem"
    assert "no code for compute capability 6.1" in line.text
    assert "torch==2.14.1+cu126" in line.remedy
    assert kernels_line(TITAN, CU130, "580.65.06", "2.14.1+cu130", "0.29.1").status == "ok"


def test_architectures():
    assert has_kernels((9, 0), ["sm_90a"])
    assert not has_kernels((9, 0), [])
    assert not has_kernels((7, 5), ["sm_80", "compute_80"])


def test_what_nvidia_smi_says():
    two = "NVIDIA TITAN RTX, 570.86.10, 7.5, 24576\nNVIDIA H100, 80GB HBM3, 570.86.10, 9.0, 81559\n"
    driver = parse_driver(two)
    assert driver is not None and driver.version == "570.86.10"
    assert driver.cards == (("NVIDIA TITAN RTX", (7, 5), 24576), ("NVIDIA H100, 80GB HBM3", (9, 0), 81559))
    assert parse_driver("No devices were found") is None
    assert parse_driver("GPU, 570.1, [N/A], [N/A]") is None


def test_what_the_kernel_says(tmp_path):
    place = tmp_path / "version"
    open_one = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (x)\n"
    place.write_text(f"{open_one}GCC version: 12.2.0\n")
    assert kernel_driver(place) == "580.65.06"
    place.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.57.02  Tue Jul 13 16:14:05 UTC 2021\n")
    assert kernel_driver(place) == "470.57.02"
    assert kernel_driver(tmp_path / "none") is None
