"""A small run that keeps its fits in a store, for the tests: whole, killed, or by two processes.

`python stored.py kill FOLDER` kills the run at some of its operations on files in turn, and prints
what came of it; `python stored.py pair FOLDER` lets two processes share the run.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fitting.files import write_json
from regressor.distributed import Group
from regressor.store.fit_store import ALONE, FitStore, create_store, open_store
from regressor.store.fits import Origin, StoredFits
from regressor.store.identity import DatasetIdentity, StoreIdentity

IDENTITY = StoreIdentity(
    body_sha256="b" * 64,
    datasets=(
        DatasetIdentity(name="a", num_rows=5, sha256="1" * 64),
        DatasetIdentity(name="b", num_rows=3, sha256="2" * 64),
    ),
)
STEPS, SAVE_EVERY, OFFERED = 4, 2, 2


def random_fits(rng, count, **changes):
    """Sound fits of a loop; costs of few values, so that there are ties."""
    columns = {
        "params": rng.normal(size=(count, 85)),
        "joint_std_mm": rng.uniform(5, 200, (count, 24)),
        "cost": rng.integers(1, 30, count),
        "error_px": rng.integers(1, 30, count),
        "focal": np.full(count, 500.0),
        "epoch": rng.integers(0, 4, count),
        "origin": np.full(count, Origin.LOOP),
    }
    return StoredFits(**columns | changes)


def offers(step, rank=0):
    """(data set, rows, fits) of a step; rows come twice now and then."""
    rng = np.random.default_rng((step, rank))
    for dataset in IDENTITY.datasets:
        rows = rng.integers(0, dataset.num_rows, OFFERED)
        yield dataset.name, rows, random_fits(rng, OFFERED)


def content(store: FitStore) -> StoredFits:
    """Everything in a store."""
    parts = [store.read(d.name, np.arange(d.num_rows)) for d in store.identity.datasets]
    return StoredFits.concatenate(parts)


def digest(fits: StoredFits) -> str:
    """Of every bit of some fits."""
    return hashlib.sha256(b"".join(column.tobytes() for column in vars(fits).values())).hexdigest()


def run(folder: Path, group: Group = ALONE) -> dict[int, str]:
    """Go on from the checkpoint, if there is one, to the end; digests at the checkpoints."""
    last, place = folder / "last.json", folder / "store"
    done = 0
    if last.is_file():
        done = json.loads(last.read_text())["step"]
        store = open_store(place, IDENTITY, step=done)
    else:
        if group.is_first:
            create_store(place, IDENTITY, offers(0), overwrite=True)
        group.any(False)
        store = open_store(place, IDENTITY)
    digests = {}
    for step in range(done + 1, STEPS + 1):
        for dataset, rows, fits in offers(step, group.rank):
            store.update(dataset, rows, fits)
        if step % SAVE_EVERY == 0:
            store.save(step, group)
            if group.is_first:
                write_json(last, {"step": step})
            digests[step] = digest(content(store))
            store.commit(group)
    return digests


# --- Killing ------------------------------------------------------------------------------------


class Stream:
    """A file whose writes are operations that `Operations` counts."""

    def __init__(self, stream, count):
        self._stream, self._count = stream, count

    def write(self, content):
        self._count(lambda: self._stream.write(memoryview(content)[: len(content) // 2]))
        return self._stream.write(content)

    def truncate(self, size):
        self._count()
        return self._stream.truncate(size)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._stream.close()

    def __getattr__(self, name):
        return getattr(self._stream, name)


class Killed(BaseException):
    """Stands for the end of the process: nothing that changes a file happens any more."""


def _no_sync(descriptor):
    """In place of `os.fsync`."""


class Operations:
    """Counts operations that change files; one of them does something else instead."""

    def __init__(self, at: int | None = None, action=lambda: None) -> None:
        self.count, self._at, self._action = 0, at, action
        self.removing = False  # whether it was a file's removal that something else was done for
        self.is_dead = False

    def __call__(self, half=None):
        """Before an operation: and once more where it might be done by half."""
        if self.is_dead:
            raise Killed
        if self._at == self.count:
            self._action()
        self.count += 1
        if half is None:
            return
        if self._at == self.count:
            half()
            self._action()
        self.count += 1

    def die(self):
        """An action: as if the process were killed, in a process that lives on."""
        self.is_dead = True
        raise Killed

    def patch(self, setattr_) -> None:
        """Let the operations of Python's files count."""
        opened = Path.open

        def open_counted(path, mode="r", *args, **kwargs):
            writes = mode != "r" and "rb" not in mode.replace("r+b", "")
            if writes:
                self()
            stream = opened(path, mode, *args, **kwargs)
            return Stream(stream, self) if writes else stream

        setattr_(Path, "open", open_counted)
        for name in ("replace", "unlink", "mkdir"):
            setattr_(os, name, self._counted(getattr(os, name)))
        # What a killed process wrote is there, synced or not; this way the test takes seconds
        setattr_(os, "fsync", self._counted(_no_sync))

    def _counted(self, function):
        @functools.wraps(function)
        def counted(*args, **kwargs):
            self.removing |= self._at == self.count and function.__name__ == "unlink"
            self()
            return function(*args, **kwargs)

        return counted


def killed_by_system(folder: Path, at: int | None) -> dict[str, object] | None:
    """Run in a process of its own, which is killed at an operation; or what `run_counted` gave."""
    child = os.fork()
    if child == 0:
        operations = Operations(at, lambda: os.kill(os.getpid(), signal.SIGKILL))
        (folder / "end").write_text(json.dumps(run_counted(folder, operations)))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return None if os.WIFSIGNALED(status) else json.loads((folder / "end").read_text())


def killed_in_thought(folder: Path, at: int | None) -> dict[str, object] | None:
    """The same in this process, some ten times as fast."""
    operations = Operations(at)
    operations._action = operations.die
    try:
        return run_counted(folder, operations)
    except Killed:
        return None


def run_counted(folder: Path, operations: Operations) -> dict[str, object]:
    with pytest.MonkeyPatch.context() as patch:
        operations.patch(patch.setattr)
        digests = run(folder)
    return {"count": operations.count, "digests": list(digests.items())}


def kill_everywhere(root: Path, run_killed, every: int = 1) -> dict[str, object]:
    """Kill the run at its operations and go on; what differs from the whole run."""
    (root / "whole").mkdir()
    whole = run_killed(root / "whole", None)
    expected = dict(whole["digests"])
    wrong, resumed_at = [], set()
    for at in range(0, whole["count"], every):
        folder = root / str(at)
        folder.mkdir()
        if run_killed(folder, at) is not None:
            wrong.append(f"operation {at}: was not killed")
        step = 0
        if (folder / "last.json").is_file():
            step = json.loads((folder / "last.json").read_text())["step"]
            found = digest(content(open_store(folder / "store", IDENTITY, step=step)))
            if found != expected[step]:
                wrong.append(f"operation {at}: step {step} came back otherwise")
        resumed_at.add(step)
        if at % 3 and every == 1:
            continue  # going on takes long
        later = run(folder)
        if later != {s: text for s, text in expected.items() if s > step}:
            wrong.append(f"operation {at}: from step {step} it went on otherwise")
        left = [p.name for p in (folder / "store").rglob("*") if p.suffix in (".tmp", ".npz")]
        if left and later:
            wrong.append(f"operation {at}: {left} left")
    return {"operations": whole["count"], "wrong": wrong, "resumed_at": sorted(resumed_at)}


# --- Two processes ------------------------------------------------------------------------------


def run_pair(root: Path) -> None:
    """Two processes share a run; what each has in the end goes to `RANK.npz`."""
    import torch.distributed as dist

    def work(rank):
        dist.init_process_group(
            "gloo", init_method=f"file://{root / 'meeting'}", rank=rank, world_size=2
        )
        group = Group(rank=rank, size=2)
        digests = run(root, group)
        store = open_store(root / "store", IDENTITY, step=STEPS)
        np.savez(root / f"{rank}.npz", **vars(content(store)))
        (root / f"{rank}.json").write_text(json.dumps(digests))
        dist.destroy_process_group()

    children = []
    for rank in range(2):
        children.append(os.fork())
        if children[-1] == 0:
            work(rank)
            os._exit(0)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    assert statuses == [0, 0], statuses


if __name__ == "__main__":
    if sys.argv[1] == "kill":
        with pytest.MonkeyPatch.context() as patch:
            Operations().patch(patch.setattr)
            print(json.dumps(kill_everywhere(Path(sys.argv[2]), killed_by_system, every=20)))
    else:
        run_pair(Path(sys.argv[2]))
