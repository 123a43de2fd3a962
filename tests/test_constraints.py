"""The versions that `make` installs."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"


def pinned_here() -> dict[str, str]:
    """Which Pythons the pins ask for that are installed here, by package."""
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    found = {}
    for pin in (Requirement(line) for line in lines if line and not line.startswith("#")):
        try:
            package = metadata(pin.name)
        except PackageNotFoundError:
            continue
        if (pin.marker is None or pin.marker.evaluate()) and package["Version"] in pin.specifier:
            found[pin.name] = package["Requires-Python"] or ""
    return found


def test_pins_are_for_every_release_of_a_python():
    """One that asks for 3.11.5 would break `make` on Debian 12, whose Python is 3.11.2."""
    first = f"{sys.version_info.major}.{sys.version_info.minor}.0"
    pins = pinned_here()
    assert {"torch", "numpy"} <= pins.keys()
    assert not {name: s for name, s in pins.items() if not SpecifierSet(s).contains(first)}
