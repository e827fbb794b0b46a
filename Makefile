# Every target calls one tool. `make help` lists them.
PYTHON ?= python3
RUN := .venv/bin/python -m
unexport PYTHONPATH PYTHONHOME # the packages of the user's other projects are not ours
# Programs and tests start hundreds of processes: without cached bytecode each compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE
export MYPYPATH := $(subst $() ,:,$(wildcard libs/*/src services/*/src tools/*/src))

TARGETS := help install up test test-fast test-clients test-servers test-gateways test-cluster bench bench-protocols bench-gateways check format generate lock upgrade new-service reset pin-images kind-up kind-down
.PHONY: $(TARGETS)
# Checked before any target runs. A rule would run after `up` in `make up docs`, and never for the folder docs/.
UNKNOWN := $(filter-out $(TARGETS),$(MAKECMDGOALS))
$(foreach goal,$(UNKNOWN),$(error there is no target `$(goal)`; try $(or $(shell $(PYTHON) tools/nearest_target.py $(goal) $(TARGETS)),`make help`)))

help:  ## List the targets and the settings
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p; s/^#: ?//p' Makefile | expand -t 25

install:  ## Install requirements.lock into .venv (every target does this first)
	@$(PYTHON) tools/bootstrap.py

up: install  ## Run the whole mesh on this machine until Ctrl-C
	@exec $(RUN) localmesh

test: install  ## Run the tests (only some: ARGS="-k orders")
	@exec $(RUN) pytest $(ARGS)

test-fast: install  ## Run the unit and contract tests (about a minute)
	@exec $(RUN) pytest -n logical -m "unit or contract" $(ARGS)

test-clients: install  ## Test clients of other makers: Node.js, a page, buf curl, grpcurl, curl, Connect's conformance suite
	@exec $(RUN) pytest -n0 tests/clients $(ARGS)

test-servers: install  ## Test the edge on uvicorn, Hypercorn and Granian, over HTTP/2 and TLS
	@exec $(RUN) pytest -n0 tests/servers $(ARGS)

test-gateways: install  ## Test the gateways of `make up GATEWAY=…`, each with its real program, which this installs
	@exec $(RUN) pytest -n0 tests/gateways $(ARGS)

test-cluster: install  ## Test the mesh on the cluster of `make kind-up`, with load and faults
	@exec $(RUN) pytest -n0 -p no:randomly tests/cluster $(ARGS)

check: install  ## Check the format, the style, the types and the protos
	@.venv/bin/ruff format --check && .venv/bin/ruff check && .venv/bin/mypy && .venv/bin/python tools/protos.py lint

format: install  ## Format the code and apply automatic corrections
	@.venv/bin/ruff format && .venv/bin/ruff check --fix

generate: install  ## Generate the protobuf code, the lists of services and the docs
	@exec $(RUN) tools.generate

lock: install  ## Lock new dependencies without upgrading others
	@exec .venv/bin/python tools/lock.py

upgrade: install  ## Lock the newest versions that the projects allow
	@exec .venv/bin/python tools/lock.py upgrade

new-service: install  ## Add a gRPC service: NAME=reviews, and DATABASE=yes if it owns one
	@exec .venv/bin/python tools/new_service.py $(if $(filter yes,$(DATABASE)),--database) "$(NAME)"

reset: install  ## Delete the state of `make up`
	@exec $(RUN) localmesh reset

bench: install  ## Compare the CPU of a request with other ways to do its work: QUICK=1, FULL=1, BASE=commit, WRITE=1
	@exec $(RUN) bench.compare $(if $(QUICK),--quick) $(if $(FULL),--full) $(if $(WRITE),--write) $(if $(BASE),--base "$(BASE)")

bench-protocols: install  ## Compare the CPU of a call of the edge in each protocol
	@exec $(RUN) bench.protocols

bench-gateways: install  ## Compare servers and gateways: requests, p99, CPU and memory of the same calls, and a page in Chromium
	@$(RUN) bench.gateways && exec $(RUN) bench.browser

pin-images: install  ## Pin the images of production by digest: BUILDS=builds.json of `skaffold build`
	@exec $(RUN) tools.pin_images "$(BUILDS)"

kind-up: install  ## Run the mesh on a Kubernetes cluster of kind, or roll out a change
	@exec $(RUN) localmesh.kind up

kind-down: install  ## Delete that cluster
	@exec $(RUN) localmesh.kind down

#:
#: Settings of `make up`, from .env, the environment, or as `make up EDGE_PORT=8090`:
#:   EDGE_PORT       REST API                        8080
#:   EDGE_GRPC_PORT  the same API over gRPC          50050
#:   NAME_PORT       gRPC port of service NAME; its pyproject.toml has the default
#:   TRACES_PORT     trace pages and query API       16686
#:   OTLP_PORT       OpenTelemetry receiver, gRPC    4317
#:   STATE_DIR       databases and logs              .localmesh
#:   RELOAD          1 to restart a service when its sources change
#:   WITHOUT         services to leave out, as NAME or NAME,NAME: you start them
#:   GATEWAY         a program in front of the edge: nginx, traefik, envoy
#:   GATEWAY_PORT    its HTTPS port                  8443
#:   GATEWAY_HOSTS   the host names that Traefik serves, instead of any
#:   GATEWAY_TLS_CERT  its certificate, instead of one made for localhost
#:   GATEWAY_TLS_KEY  the private key of that certificate
#:   JAEGER_BIN      a Jaeger v2 program to run instead of tracebox
#:   PYTHON          the Python for .venv            python3
#: `make kind-up` takes EDGE_PORT, EDGE_GRPC_PORT, TRACES_PORT and
#:   KIND_NODE_IMAGE  the image of the cluster's node, instead of kind's default
