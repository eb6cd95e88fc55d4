# Everything runs from a fresh clone on Debian 12 with Python 3.11: each target sets itself up.
PYTHON ?= python3
UV_VERSION := 0.13.8
BIN := .venv/bin
PACKAGES := libs/common/pitstop_common libs/cli/pitstop_cli services/scheduler/pitstop_scheduler \
            services/sandbox/pitstop_sandbox services/relay/pitstop_relay services/janitor/pitstop_janitor

.PHONY: help setup demo test chaos fuzz check format generate picture images bench clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: .venv/.ready ## .venv with `pitstop` in it

.venv/.ready: uv.lock pyproject.toml $(wildcard libs/*/pyproject.toml services/*/pyproject.toml)
	@PYTHON="$(PYTHON)" UV_VERSION="$(UV_VERSION)" sh tools/setup.sh
	@touch $@

demo: setup ## the main job, told as a timeline (embedded NATS, no Docker)
	@sh tools/packages.sh git openssh-client
	@$(BIN)/python examples/demo.py

DOCKER := docker.io debootstrap iptables iproute2 docker-registry
CLIENTS := openssh-client openssh-sftp-server rsync git putty-tools dropbear-bin curl mosh sshpass

test: setup ## every test
	@sh tools/packages.sh openssh-server iproute2 nftables $(CLIENTS) $(DOCKER)
	@[ "$$(id -u)" != 0 ] || $(BIN)/python tools/debian_image.py --files
	@$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

RUNS ?= 10000
chaos: setup ## kill everything at random while runs go on; RUNS=10000 SEED=7 PARTITIONS=16 CLUSTER=3 (each has a default)
	@$(BIN)/python -m tests.chaos --runs $(RUNS) $(if $(SEED),--seed $(SEED)) \
	    $(if $(PARTITIONS),--partitions $(PARTITIONS)) $(if $(CLUSTER),--cluster)

N ?= 1000000
fuzz: setup ## mutated packets at the relay's door, the link and the channels; N=1000000 SEED=7
	@$(BIN)/python -m tests.fuzz --packets $(N) $(if $(SEED),--seed $(SEED))

check: setup ## format, lint, types, import contracts, generated files
	@$(BIN)/ruff format --check -q . && $(BIN)/ruff check -q .
	@$(BIN)/mypy $(PACKAGES) examples tools tests
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python tools/generate.py check

format: setup ## format and mend what can be mended
	@$(BIN)/ruff format -q . && $(BIN)/ruff check -q --fix .

generate: setup ## write the generated files: schemas, dashboards, diagrams
	@$(BIN)/python tools/generate.py write

picture: setup ## run the demo, and draw docs/*.svg for the README from what it printed
	@sh tools/packages.sh git openssh-client
	@CLICOLOR_FORCE=1 $(BIN)/python examples/demo.py > demo.log
	@$(BIN)/python tools/picture.py demo.log docs

images: setup ## an image for jobs in containers, of Debian packages; needs root and a Docker Engine
	@sh tools/packages.sh debootstrap
	@$(BIN)/python tools/debian_image.py

bench: setup ## measure against peers; prints ratios, writes bench.json
	@sh tools/packages.sh git openssh-client openssh-server $(DOCKER)
	@$(BIN)/python -m tests.bench

clean: ## remove what `make` made
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache bench.json
