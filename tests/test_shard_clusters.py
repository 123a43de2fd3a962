"""Runs in shards on real clusters of processes, one of which is killed at its work."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest
from sharded import NUM_PEOPLE, files_of, go, make_config

SIZE = 2
PACKAGES = {"dask": "distributed", "ray": "ray"}


@pytest.mark.filterwarnings("default")  # of the clusters' own
@pytest.mark.parametrize("backend", PACKAGES)
def test_nothing_is_lost_with_a_worker(backend, benchmark, tmp_path, monkeypatch):
    """The same bits as on one core, though a worker is killed after the second shard."""
    if importlib.util.find_spec(PACKAGES[backend]) is None:
        pytest.skip(f"{PACKAGES[backend]} is not installed")
    clusters = benchmark("clusters")
    for name, value in clusters.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    config = make_config(tmp_path)
    killer = clusters.run_killed(config, SIZE, backend, workers=2, kills=1)
    assert len(killer.killed) == 1
    assert killer.shards == -(-NUM_PEOPLE // SIZE)
    go(replace(config, output=tmp_path / "alone"), SIZE)
    assert files_of(config.output) == files_of(tmp_path / "alone")
