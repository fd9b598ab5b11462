# The front door. `make` lists the targets; everything that they do is in host/, playbooks/ and the other Python packages.
.DEFAULT_GOAL := help
SHELL := /bin/sh

# What a person sets reaches the programs through the environment, as it stands: neither make nor a shell reads it.
variables := BAKE BOX CMD CPUS DATA ENVIRONMENT FORCE GRAFANA_PORT HTTPS_PORT HTTP_PORT ID INPUT KEEP KEY LABEL MAX_ERRORS MEMORY MODEL NAME ON OUTPUT PROBABILITIES PROMETHEUS_PORT PROVIDER QUICK RELEASE SUITE TARGET TEXT TRUST UPGRADE VERSION
$(foreach name,$(variables),$(if $(filter undefined,$(origin $(name))),,$(eval override export $(name) := $$(value $(name)))))
ifeq ($(origin DATA),undefined)
export DATA := data/tweet_emotions.csv
endif

export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Ansible wants UTF-8, whatever language the terminal speaks and whether or not its locale was generated.
ifneq ($(shell uname),Darwin)
export LC_ALL := C.UTF-8
endif
# The machine of this clone is asked directly, also where everything else goes through a proxy.
comma := ,
direct := localhost,127.0.0.1$(addprefix $(comma),$(or $(no_proxy),$(NO_PROXY)))
export no_proxy := $(direct)
export NO_PROXY := $(direct)
# apt and what Ansible's sudo starts know the proxies' names in small letters only.
ifneq (,$(HTTP_PROXY))
export http_proxy ?= $(value HTTP_PROXY)
endif
ifneq (,$(HTTPS_PROXY))
export https_proxy ?= $(value HTTPS_PROXY)
endif
host := @python3 -m host

# Two things at a time where that is faster; `make -j4` takes four.
ifneq (,$(filter build-project test,$(MAKECMDGOALS)))
ifeq (,$(filter -j%,$(MAKEFLAGS)))
MAKEFLAGS += --jobs=2
endif
endif
# Where sudo asks for a password, the progress of the training would overwrite the question.
ifneq (,$(filter build-project,$(MAKECMDGOALS)))
ifneq (0,$(shell [ "$$(id -u)" = 0 ] || sudo -k -n true 2>/dev/null; echo $$?))
.NOTPARALLEL:
endif
endif
ifneq (,$(filter test,$(MAKECMDGOALS)))
MAKEFLAGS += --output-sync=target
# Another machine that runs would change what the lifecycle's tests look at on this host.
lifecycle: | molecule
# The machine takes longest, so it begins first.
templates unit: | model/artifacts/manifest.json
endif

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  \033[1m%-18s\033[0m %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# --- the machine ---

.PHONY: start-project run-project build-project stop-project destroy-project provision
start-project: ## Bring the whole system up, in a lab machine on this host or a VM: PROVIDER=lab|libvirt|virtualbox, SUITE=trixie
	$(host) start

run-project: start-project ## The same

build-project: base-tree model/artifacts/manifest.json ## Make what a start needs: packages, .venv, model, the machine's base tree

provision: ## Run site.yml against ENVIRONMENT (default: the machine that runs)
	$(host) playbook site.yml

stop-project: ## Stop the machine; a start brings it back as it was
	$(host) stop

destroy-project: ## Remove the machine and all that it changed on this host
	$(host) destroy

.PHONY: cluster stop-cluster destroy-cluster
cluster: ## Bring the system up in five lab machines: gateways that share an address, API hosts, monitoring
	$(host) start-cluster

stop-cluster: ## Stop them; a start brings them back as they were
	$(host) stop-cluster

destroy-cluster: ## Remove them and all that they changed on this host
	$(host) destroy-cluster

.PHONY: check-host packages base-tree
check-host:
	$(host) check
packages:
	$(host) packages
base-tree: packages .venv/control
	$(host) prepare

# --- looking at it ---

.PHONY: ssh status logs test-api test-api-debug
ssh: ## Log in to the machine; CMD="…" runs a command there
	$(host) ssh

status: ## What runs in the machine
	$(host) status

logs: ## Follow the journal of the system's services in the machine
	$(host) logs

test-api: ## Ask the running system for a prediction
	$(host) predict

test-api-debug: ## The same from the debug version
	$(host) predict 'X-Experiment-Group: debug'

# --- releases ---

.PHONY: release releases deploy rollback verdict promote labels forget
release: .venv/control $(if $(MODEL),model-import,model/artifacts/manifest.json) ## Make the release as one file: KEY=your SSH key signs it, MODEL=a joblib file of yours
	$(host) playbook playbooks/release.yml

releases: ## List the releases that every host has and runs
	$(host) releases

deploy: ## Roll out the model and application as they stand to ENVIRONMENT, or RELEASE=file; VERSION=v1|v2 for one of them; BAKE=10m watches it, and it goes back by itself
	$(host) playbook playbooks/deploy.yml

rollback: ## Go back to the release before
	$(host) playbook playbooks/rollback.yml

verdict: ## Is v2 fit to become v1? Promote, wait or go back, with the evidence
	$(host) playbook playbooks/verdict.yml

promote: ## Make v2's release v1's, if the verdict says so; FORCE=1 overrides it; BAKE=10m
	$(host) playbook playbooks/promote.yml

labels: ## The labels that clients sent (vmlops_feedback), with the texts that were kept, to OUTPUT (build/labels.csv), for make model DATA=
	$(host) labels

forget: ## Erase what is kept of a request on every host: ID=its X-Request-ID
	$(host) forget

.PHONY: credentials
credentials: ## Make and show random passwords for what ENVIRONMENT (production) refers to as vault_…password; kept outside git
	$(host) credentials

# --- the model ---

.PHONY: model model-import iris compare-models bench-model bench-training score test-public
model: $(if $(ON)$(filter %.parquet,$(DATA)),.venv/batch,.venv/control) ## Train, evaluate and compile; DATA=path (CSV, Parquet) for other texts, TEXT= and LABEL= name its columns; ON=cluster
	@python -m model.kernel
	python -m model --data "$$DATA" $(if $(TEXT),--text "$$TEXT") $(if $(LABEL),--label "$$LABEL") $(if $(NAME),--name "$$NAME") $(if $(ON),--on "$$ON")

model-import: .venv/import ## Serve a fitted estimator of yours: MODEL=path DATA=csv TARGET=column; TRUST=1 for a pickle
	@[ -n "$$MODEL" ] || { echo "vmlops: MODEL is not set: make model-import MODEL=path" >&2; exit 1; }
	@python -m model.kernel
	@python -m model.importing --model "$$MODEL" $(if $(filter file,$(origin DATA)),,--data "$$DATA") $(if $(TARGET),--target "$$TARGET") \
		$(if $(TEXT),--text "$$TEXT") $(if $(NAME),--name "$$NAME") $(if $(TRUST),--trust)

iris: .venv/import ## Train and import a model of a table to try (examples/iris); make deploy VERSION=v2 serves it beside the texts'
	@python examples/iris/train.py build/iris
	@python -m model.importing --model build/iris/iris.skops --data build/iris/iris.csv --target species

compare-models: $(if $(ON),.venv/batch,.venv/control) ## The comparison that the recipe was chosen by, to build/model-comparison.md; ON=cluster
	@mkdir -p build
	python -m model.compare --data "$$DATA" --output build/model-comparison.md $(if $(ON),--on "$$ON")

bench-model: .venv/import model/artifacts/manifest.json ## What a prediction takes, by every engine, of texts and of tables
	python -m tests.load.bench.model --data "$$DATA" --output docs/model-benchmarks.md

bench-training: .venv/batch ## What make model takes of 40 thousand, 400 thousand and 4 million rows made of DATA=, to docs/training.md (an hour)
	python -m tests.load.bench.training --data "$$DATA"

score: .venv/batch model/artifacts/manifest.json ## Score a file of any size: INPUT=path OUTPUT=path, TEXT=column, PROBABILITIES=1, MAX_ERRORS=n, MODEL=dir; ON=cluster on ENVIRONMENT's workers
	@[ -n "$$INPUT" ] && [ -n "$$OUTPUT" ] || { echo "vmlops: INPUT and OUTPUT must be set: make score INPUT=path OUTPUT=path" >&2; exit 1; }
	@python -m batch --input "$$INPUT" --output "$$OUTPUT" $(if $(MODEL),--model "$$MODEL") $(if $(TEXT),--text "$$TEXT") \
		$(if $(PROBABILITIES),--probabilities) $(if $(MAX_ERRORS),--max-errors "$$MAX_ERRORS") $(if $(ON),--on "$$ON")

test-public: .venv/test ## What is promised of the public data set: DATA=path
	pytest tests/public --data "$$DATA"

model/artifacts/manifest.json: data/tweet_emotions.csv $(wildcard model/*.py) $(wildcard app/engines/*.py) app/engines/kernel.pyx requirements/train.txt | .venv/control
	@python -m model.kernel
	python -m model --data "$$DATA"

# --- checks ---

.PHONY: test lint unit templates molecule lifecycle
# A machine mostly waits; its tests and those of the code share the processors well.
test: check-host lint molecule templates unit lifecycle ## Check everything; what runs already is not touched
	@echo "All checks passed."

lint: .venv/test ## ruff, mypy, yamllint, ansible-lint
	ruff check .
	ruff format --check .
	mypy app batch host model plugins release roles tests
	yamllint --strict .
	ansible-lint --offline

.PHONY: variables
variables: .venv/test ## Make docs/variables.md anew from the roles' argument specs
	python -m tests.variables > docs/variables.md

.PHONY: dashboards
dashboards: .venv/test ## Make Grafana's dashboards anew from tests/dashboards.py
	python -m tests.dashboards

unit: .venv/test build/tools/.fetched ## The API, the model and the tools
	pytest tests/unit

templates: .venv/test build/tools/.fetched ## The roles' templates, rendered and given to the real nginx and promtool
	$(host) packages gpg
	pytest tests/templates

molecule: packages .venv/test model/artifacts/manifest.json ## The roles on a throw-away machine
	molecule test

lifecycle: packages .venv/test ## What a lab machine changes on this host is taken back
	pytest tests/lab

.PHONY: test-servers
test-servers: packages .venv/test base-tree model/artifacts/manifest.json ## README's "Your own servers", done on a machine that is nothing but a server (5 minutes)
	pytest tests/servers

.PHONY: test-workers
test-workers: .venv/test model/artifacts/manifest.json ## make score ON=cluster on three lab machines, while workers, hosts and the scheduler fail; KEEP=1
	$(host) packages
	pytest tests/workers

.PHONY: test-faults test-cluster test-browser test-iris fuzz bench-api
test-faults: .venv/test ## Break the running lab machine under load, process by process; writes docs/faults.md (20 minutes)
	$(host) packages testssl:testssl.sh
	pytest tests/faults

test-cluster: .venv/test ## Break parts of the running cluster under load, and roll out on it
	pytest tests/cluster

test-browser: .venv/browser build/tools/.fetched ## The page in headless Chromium
	$(host) packages chromium
	pytest tests/browser

test-iris: .venv/browser ## The example of a table on the running lab machine; v2 gets its release back
	$(host) packages chromium
	pytest tests/iris

.PHONY: kit test-kit
kit: .venv/control ## One file with all that a site without internet needs, for this distribution's releases; KEY=your SSH key signs it
	$(host) kit

test-kit: .venv/test kit ## Install it where nothing has a network: start, predict, deploy, roll back, train, and make test
	pytest tests/kit

.PHONY: image test-image
image: packages .venv/control model/artifacts/manifest.json ## An image that serves seconds after its first boot: raw, qcow2, vmdk, and a Vagrant box
	$(host) image

test-image: .venv/test image ## Machines made from it: no secret in it, the first prediction, cloud-init, site.yml changes nothing else
	$(host) packages qemu-system-x86_64:qemu-system-x86 xorriso
	pytest tests/image

.PHONY: box test-vm
box: .venv/control ## Build a Vagrant box for libvirt from this distribution's packages
	$(host) box

test-vm: .venv/test ## The acceptance tests on a VM, before and after a reboot (more than half an hour where it is emulated); KEEP=1
	$(host) test-vm

fuzz: .venv/test ## 100,000 odd bodies against the API, in one process
	FUZZ=100000 pytest tests/unit/app/test_fuzz.py

bench-api: .venv/test model/artifacts/manifest.json ## What a replica costs: metrics, memory, start
	python -m tests.load.bench.api

# --- measurements ---

.PHONY: bench profile
bench: check-host .venv/control model/artifacts/manifest.json ## Measure the whole stack beside others, on a machine of its own; QUICK=1
	$(host) packages wrk h2load:nghttp2-client
	@python -m tests.load.bench $(if $(QUICK),--quick) $(if $(KEEP),--keep)

profile: check-host .venv/control model/artifacts/manifest.json ## Where a request's time goes, to docs/profile.md
	$(host) packages wrk
	@python -m tests.load.bench.profile $(if $(KEEP),--keep)

.PHONY: bench-workers
bench-workers: check-host .venv/test model/artifacts/manifest.json ## What scoring beside the API does to its p99, and what more workers give, to docs/scoring.json and docs/scoring.png
	$(host) packages cpulimit
	@python -m tests.load.bench.workers beside $(if $(KEEP),--keep)
	@python -m tests.load.bench.workers scaling

# --- dependencies ---

# Each may be constrained by those before it.
locks := bootstrap api train control import sklearn onnx test batch audit browser bench-profile bench-reference bench-bentoml bench-litserve bench-mlserver

.PHONY: locks
locks: .venv/control ## Make the hashed requirements files anew from their .in files; UPGRADE=1 takes newer versions
	@cd requirements && for name in $(locks); do echo "$$name.txt"; PYTHONPATH=.. python3 -m host uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-header --no-emit-index-url $(if $(UPGRADE),--upgrade) $$name.in --output-file $$name.txt || exit 1; done

.PHONY: audit
audit: .venv/audit ## Known vulnerabilities of what is locked, and licences
	$(host) audit

# --- made files ---

# On a Mac, Vagrant needs no more than this.
.venv/control: requirements/bootstrap.txt requirements/control.txt requirements/train.txt
	$(host) venv requirements/control.txt requirements/train.txt
	@touch $@

.venv/import: requirements/import.txt requirements/api.txt .venv/control
	$(host) venv requirements/control.txt requirements/train.txt requirements/api.txt requirements/import.txt
	@touch $@

.venv/test: requirements/test.txt requirements/batch.txt .venv/import
	$(host) venv requirements/control.txt requirements/train.txt requirements/api.txt requirements/import.txt requirements/batch.txt requirements/test.txt
	@touch $@

.venv/batch: requirements/batch.txt .venv/import
	$(host) venv requirements/control.txt requirements/train.txt requirements/api.txt requirements/import.txt requirements/batch.txt
	@touch $@

.venv/audit: requirements/audit.txt .venv/test
	$(host) venv requirements/audit.txt
	@touch $@

.venv/browser: requirements/browser.txt .venv/test
	$(host) venv requirements/browser.txt
	@touch $@

build/tools/.fetched: host/packages.py
	$(host) tools
	@touch $@

.PHONY: clean
clean: ## Remove what was built, but neither machines nor certificates
	rm -rf build app/engines/kernel.abi3.so model/artifacts model/report .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
