# make demo   the whole platform on real flights, from nothing
# make test   the test suite, from nothing
.PHONY: demo test test-all check bench lock clean

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
	$(BIN)/pytest -m "not slow" $(ARGS)

test-all: .venv/installed
	$(BIN)/pytest $(ARGS)

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/installed
	@$(BIN)/python -m tests.benchmarks.run $(ARGS)

lock: .venv/installed
	$(BIN)/uv pip compile --quiet --upgrade pyproject.toml --extra dev --universal --python-version 3.11 --no-annotate --no-header --output-file requirements.lock

clean:
	rm -rf .venv .orchard
