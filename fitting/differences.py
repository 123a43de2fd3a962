"""What tells the settings of one run from another's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

_MOST = 60  # characters of a value in a message


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, value before, value now) where two configs differ."""
    for key in {**before, **now}:
        a, b = before.get(key), now.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from differences(a, b, f"{prefix}{key}.")
        elif a != b:
            yield f"{prefix}{key}", a, b


def shown(value: Any) -> str:
    """A setting as a message has it: JSON, cut off where it is long."""
    text = json.dumps(value)
    return text if len(text) <= _MOST else f"{text[: _MOST - 3]}..."
