"""What a run was made with, so that its figures can be understood later."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Any


def versions() -> dict[str, Any]:
    """Versions of Python and the libraries that matter, the processor and the thread count."""
    import torch

    packages = ("signbit", "torch", "lightning", "torchmetrics", "numpy", "pillow", "scikit-learn")
    return {
        "python": platform.python_version(),
        **{name: package_version(name) for name in packages},
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "torch_threads": torch.get_num_threads(),
    }


def package_version(name: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
