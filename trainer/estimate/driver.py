"""The NVIDIA driver that the image's torch needs: its wheels bring CUDA, and only the driver is the box's own."""

TORCH, CUDA = "2.13", 13  # the release that is pinned, and the CUDA of its wheels on PyPI
MINIMUM_DRIVER = {12: 525, 13: 580}  # https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html


def minimum_driver() -> int:
    """The oldest driver branch that the image's CUDA works with."""
    return MINIMUM_DRIVER[CUDA]
