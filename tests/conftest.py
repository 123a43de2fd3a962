"""Fixtures shared by all tests."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

# A busy machine may be slow at any one example
settings.register_profile(
    "busy machines", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busy machines")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real photographs and motion capture that some developers have beside their checkout."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("no folder ../shared with photographs and motion capture beside the checkout")
    return folder


@pytest.fixture(scope="module")
def body(request):
    """The bundled body, in the module's DTYPE or single precision."""
    from fitting.body import load_body

    return load_body(dtype=getattr(request.module, "DTYPE", torch.float32))


@pytest.fixture(scope="module")
def prior(request):
    """The bundled pose prior, in the module's DTYPE or single precision."""
    from priors.gmm import load_pose_prior

    return load_pose_prior(dtype=getattr(request.module, "DTYPE", torch.float32))


@pytest.fixture(scope="module")
def benchmark():
    """Imports a module of the folder benchmarks; on one thread, as others may use the cores."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).resolve().parents[1] / "benchmarks")
        patch.setenv("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)
        yield importlib.import_module
    torch.set_num_threads(threads)


@pytest.fixture
def fit_cli(capsys):
    """Run `fit-cli`; returns exit code, stdout and stderr."""
    from cli.main import main

    def run(*args):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(a) for a in args])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return caught.value.code or 0, out, err

    return run


# --- Web pages, for modules that import `browsing`: without a browser it skips them ---------------


@pytest.fixture(scope="module")
def browser():
    """Chromium."""
    from browsing import chromium

    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(browser):
    """Open a page; what it says or asks of the network fails the test."""
    from browsing import visiting

    with visiting(browser) as (open_page, faults):
        yield open_page
    assert faults == []


@pytest.fixture(scope="module")
def open_once(browser, run):
    """The page of the module's `run`, and its faults."""
    from browsing import visiting

    with visiting(browser) as (open_page, faults):
        yield open_page(run.url), faults


@pytest.fixture
def kept_page(open_once):
    """The page of the module's `run`, as the test before left it: WebGL takes a second to start."""
    page, faults = open_once
    yield page
    assert faults == []
