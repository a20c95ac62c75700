"""``signbit doctor``."""

from __future__ import annotations

import os
import platform
from importlib import metadata, util
from typing import Any

from signbit.cli.console import JsonOption, print_json, print_pairs, stdout
from signbit.errors import SignbitError

_PACKAGES = {
    "torch": "training and compiling: pip install 'signbit[train]'",
    "lightning": "training: pip install 'signbit[train]'",
    "onnxruntime": "comparisons in benchmarks: pip install 'signbit[bench]'",
    "openvino": "comparisons in benchmarks: pip install 'signbit[bench]'",
}


def doctor(json: JsonOption = False) -> None:
    """Say what signbit finds on this machine, and what to do about what is missing."""
    report = examine()
    if json:
        print_json(report)
    else:
        engine = report["engine"]
        pairs = {"python": report["python"], "signbit": report["signbit"] or "not installed"}
        pairs |= {f"engine: {key}": _text(value) for key, value in engine.items()}
        pairs |= {name: version or "absent" for name, version in report["packages"].items()}
        pairs["cores"] = str(report["cores"])
        pairs["SIGNBIT_ISA"] = report["SIGNBIT_ISA"] or "not set"
        print_pairs("signbit doctor", pairs)
        for line in report["advice"] or ["Everything needed is there."]:
            stdout().print(f"- {line}", highlight=False, soft_wrap=True)
    if "error" in report["engine"]:
        raise SystemExit(1)


def examine() -> dict[str, Any]:
    """The facts, ready for JSON; imports neither torch nor openvino, and never raises."""
    advice = []
    try:
        from signbit.runtime import doctor_info

        engine = dict(doctor_info())
    except (SignbitError, ImportError, OSError) as error:
        engine = {"error": str(error)}
        advice.append(
            "The native engine cannot be used: reinstall signbit (pip install --force-reinstall)."
        )
    packages = {name: _version(name) for name in _PACKAGES}
    advice += [
        f"{name} is absent; it is for {purpose}"
        for name, purpose in _PACKAGES.items()
        if packages[name] is None
    ]
    if isa := os.environ.get("SIGNBIT_ISA"):
        advice.append(f"SIGNBIT_ISA={isa} caps the instruction set; unset it for full speed.")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "signbit": _version("signbit"),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "SIGNBIT_ISA": os.environ.get("SIGNBIT_ISA"),
        "engine": engine,
        "packages": packages,
        "advice": advice,
    }


def _version(name: str) -> str | None:
    if name != "signbit" and util.find_spec(name) is None:
        return None
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
