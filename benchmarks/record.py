"""What every committed result says about how it came about."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
_PACKAGES = ("torch", "numpy", "scipy", "opencv-python", "smplx", "roma")


def describe_run(command: str, packages: Sequence[str] = _PACKAGES) -> dict[str, Any]:
    """Command, date, revision, machine and versions, to stand beside a benchmark's numbers."""
    return {
        "command": command,
        "date": utc_now(),
        "revision": _revision(),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
        },
        "python": platform.python_version(),
        "versions": {name: found for name in packages if (found := _version(name))},
    }


def utc_now() -> str:
    """Date and time, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _revision() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=RESULTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "unknown"
