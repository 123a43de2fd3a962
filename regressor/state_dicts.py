"""What a message says of state dicts that do not fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor


def some_names(names: Iterable[str]) -> str:
    """How many, and the first few."""
    names = list(names)
    shown = ", ".join(names[:3])
    return f"{len(names)} ({shown}{', ...' if len(names) > 3 else ''})" if names else "none"


def mismatch(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    """What tensors are missing, left over or of another shape; none if all is well."""
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    wrong = [n for n in expected if n in found and found[n].shape != expected[n].shape]
    if not missing and not extra and not wrong:
        return None
    shapes = "".join(
        f"; {n} must be {tuple(expected[n].shape)}, got {tuple(found[n].shape)}" for n in wrong[:1]
    )
    return (
        f"{some_names(missing)} missing, {some_names(extra)} left over, "
        f"{some_names(wrong)} of another shape{shapes}"
    )
