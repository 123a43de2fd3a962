# The two commands of the README are `make demo` and `make test`; both set up what they need.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint format docs bench soak clean

demo: .venv/ready
	$(BIN)/python tools/make_demo.py demo/pictures
	$(BIN)/fit-cli fit demo/pictures -o demo --overwrite
	$(BIN)/fit-cli evaluate demo demo/pictures/truth.parquet

test: .venv/ready
	$(BIN)/python -m pytest

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The variable keeps Material for MkDocs from advertising its successor
docs: .venv/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: .venv/ready
	$(BIN)/python benchmarks/accuracy.py
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/video.py
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python tools/update_readme.py
	$(BIN)/python tools/update_comparison.py

soak: .venv/ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[fuzz]'
	$(BIN)/python benchmarks/fuzz.py
	$(BIN)/python benchmarks/fuzz_parsers.py
	$(BIN)/python benchmarks/kill.py
	$(BIN)/python benchmarks/clusters.py --backend dask

# A server without libGL cannot load OpenCV's desktop build; its headless twin has the same module.
.venv/ready: setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -c 'import cv2' 2>/dev/null || { \
	  $(BIN)/python -m pip uninstall --quiet --yes opencv-python && \
	  $(BIN)/python -m pip install --quiet --constraint constraints.txt opencv-python-headless; }
	touch $@

clean:
	rm -rf .venv build demo site *.egg-info
