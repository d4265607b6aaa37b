# make demo   the whole platform on real flights, from nothing
# make test   the test suite, from nothing
.PHONY: demo test test-all check bench bench-platform bench-online bench-isolation bench-metering bench-estimates screenshots lock clean

PYTHON ?= python3
BIN := .venv/bin

# One stamp file says that .venv holds exactly what requirements.lock pins.
.venv/installed: requirements.lock pyproject.toml
	@echo "installing pinned dependencies into .venv ..."
	@start=$$(date +%s); \
	test -x $(BIN)/python || $(PYTHON) -m venv .venv; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' requirements.lock)" && \
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --compile-bytecode requirements.lock && \
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable . && \
	$(BIN)/python -m compileall -q flows tasks deployments infra && \
	touch $@ && echo "installed in $$(( $$(date +%s) - start )) s"

demo: .venv/installed
	@$(BIN)/orchard demo $(ARGS)

test: .venv/installed
	$(BIN)/pytest -n 2 -m "not slow" $(ARGS)

test-all: .venv/installed
	$(BIN)/pytest $(ARGS)

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/installed
	@$(BIN)/python -m tests.benchmarks.run $(ARGS)

# how long an upload takes, how fair turns are, how it grows: on a platform of its own, minutes each
bench-platform: .venv/installed
	@$(BIN)/python -m tests.benchmarks.platform.latency
	@$(BIN)/python -m tests.benchmarks.platform.fairness
	@$(BIN)/python -m tests.benchmarks.platform.scale

# the online API under load, beside MLflow's own server; needs Debian's wrk, or the like
bench-online: .venv/installed
	@$(BIN)/python -m tests.benchmarks.online $(ARGS)

# what isolation costs: the same pipeline with all its layers, and with none
bench-isolation: .venv/installed
	@$(BIN)/python -m tests.benchmarks.isolation $(ARGS)

# what metering costs, as a share of a training run's CPU
bench-metering: .venv/installed
	@$(BIN)/python -m tests.benchmarks.metering $(ARGS)

# how near the estimates of `orchard run --dry-run` come to what the next run really uses: ten tenants, about five minutes
bench-estimates: .venv/installed
	@$(BIN)/python -m tests.benchmarks.estimates $(ARGS)

# pictures of the pages that an operator uses; needs Debian's chromium and chromium-driver, or the like
screenshots: .venv/installed
	@$(BIN)/python -m tests.screenshots $(ARGS)

lock: .venv/installed
	$(BIN)/uv pip compile --quiet --upgrade pyproject.toml --extra dev --universal --python-version 3.11 --no-annotate --no-header --output-file requirements.lock

clean:
	rm -rf .venv .orchard
