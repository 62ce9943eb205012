# make setup: .venv with everything. make demo: see it run. make test: what CI runs.
SHELL := /bin/bash
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
SETUP_INPUTS := pyproject.toml setup.py constraints.txt CMakeLists.txt package.xml tools/setup.sh \
	$(wildcard msg/*.msg srv/*.srv action/*.action scripts/*)

# Only this machine, and a domain of its own: a robot on the network hears nothing of it.
ROS_LOCAL := ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST ROS_DOMAIN_ID=$$(( $$$$ % 90 + 10 ))

.PHONY: help setup test demo faults models docs lint clean
help:
	@echo "make setup   create $(VENV) and install everything; nothing to do the second time"
	@echo "make demo    simulated episodes over ROS 2, report in out/demo (ARGS='--help' for options)"
	@echo "make test    ruff and pytest (ARGS='test/test_cli.py -k help' for a part)"
	@echo "make faults  every fault over real processes, table in docs/reliability.md (ARGS='--only gate')"
	@echo "make models  train the encoder and the three bundled models from nothing, in out/models"
	@echo "make docs    the documentation as a site, in out/site"
	@echo "make lint    ruff only"
	@echo "make clean   remove what was built (keeps $(VENV); 'rm -rf $(VENV)' removes that)"

setup: $(STAMP)

$(STAMP): $(SETUP_INPUTS)
	@VENV=$(VENV) tools/setup.sh
	@touch $@

lint: $(STAMP)
	$(BIN)/ruff check

# the tests run even where style fails, so that one run tells everything
test: $(STAMP)
	@style=0; $(BIN)/ruff check --output-format concise || style=$$?; \
	$(ROS_LOCAL) $(BIN)/python -m pytest -q $(ARGS) && exit $$style

demo: $(STAMP)
	$(ROS_LOCAL) $(BIN)/wm-mpc demo $(ARGS)

# half an hour on a quiet machine; the domains are the command's own
faults: $(STAMP)
	ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST $(BIN)/python -m tools.faults \
		--report benchmarks/results/faults.json --docs docs/reliability.md $(ARGS)

# hours; take it up again after an interruption by calling it again
models: $(STAMP)
	WM_MPC=$(BIN)/wm-mpc tools/train_models.sh $(ARGS)

# strictly: a warning is an error
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)

clean:
	rm -rf build install log dist *.egg-info .pytest_cache .ruff_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
