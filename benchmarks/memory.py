"""Peak memory of one fit, in a process of its own: python benchmarks/memory.py PEOPLE DEVICE."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import torch
from cases import CASES, first_people, make_fit
from problems import make_truth, perturb

from fitting.body import load_body
from priors.gmm import load_pose_prior

_POOL = 32  # different people, so that making them needs less memory than fitting them


def peak_gib() -> float:
    """The most physical memory that this process has had, from Linux's /proc, GiB.

    Not `getrusage`: a child's figure there begins with its parent's.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 2**20


def measure_memory(people: int, device: str) -> dict[str, float]:
    """Peaks in GiB "before" the fit, with everything loaded, and after it, by a fresh process."""
    command = [sys.executable, __file__, str(people), device]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # it finds what we found
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout)


def _fit_once(people: int, device: str) -> dict[str, float]:
    body, prior = load_body().to(device), load_pose_prior().to(device)
    truth = make_truth(body, _POOL, seed=0)
    fit = make_fit(CASES[0], body, prior, truth.problem.keypoint_set)
    problem, estimate = first_people(truth.problem, perturb(truth.params, 0), people)
    found = {"people": people, "before": round(peak_gib(), 3)}
    fit(problem, estimate).to("cpu")
    found["peak"] = round(peak_gib(), 3)
    if device.startswith("cuda"):
        found["peak_of_gpu"] = round(torch.cuda.max_memory_allocated() / 2**30, 3)
    return found


if __name__ == "__main__":
    print(json.dumps(_fit_once(int(sys.argv[1]), sys.argv[2])))
