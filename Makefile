# The front door. `make` lists the targets; everything that they do is in scripts/, playbooks/ and the Python packages.
.DEFAULT_GOAL := help
SHELL := /bin/sh

# Where the system runs, and its ports on this host's loopback. What a machine was started with is remembered until it is removed.
-include .lab/settings.mk
HTTPS_PORT ?= 443
HTTP_PORT ?= 80
PROMETHEUS_PORT ?= 9090
GRAFANA_PORT ?= 3000
export HTTPS_PORT HTTP_PORT PROMETHEUS_PORT GRAFANA_PORT
ports := HTTPS_PORT=$(HTTPS_PORT) HTTP_PORT=$(HTTP_PORT) PROMETHEUS_PORT=$(PROMETHEUS_PORT) GRAFANA_PORT=$(GRAFANA_PORT)

DATA ?= data/tweet_emotions.csv
# The VM has the same name with every provider.
machine := $(if $(filter libvirt virtualbox,$(PROVIDER)),vagrant,lab)
ENVIRONMENT ?= $(machine)

export PATH := $(CURDIR)/.venv/bin:$(PATH)
# A sudo that wants a password is asked for it by Ansible, once a run.
ask_become_pass = $(shell [ "$$(id -u)" = 0 ] || sudo -n true 2>/dev/null || echo --ask-become-pass)
lab_playbook = ansible-playbook -i inventory/lab playbooks/lab.yml $(ask_become_pass)
ssh_machine = ssh -F $(if $(filter lab,$(machine)),.lab/lab,.vagrant)/ssh_config $(machine)
curl_predict = curl --silent --show-error --include --cacert certs/ca.crt -u admin:admin https://localhost:$(HTTPS_PORT)/predict \
	-H 'Content-Type: application/json' -d '{"sentence": "Oh yeah, that was soooo cool!"}'

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  \033[1m%-18s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- the machine ---

.PHONY: start-project run-project build-project stop-project destroy-project provision
start-project: ## Bring the whole system up, in a lab machine on this host or a VM: PROVIDER=lab|libvirt|virtualbox
	@provider=$$(scripts/choose-provider $(PROVIDER)) && $(MAKE) --no-print-directory PROVIDER=$$provider start-machine

run-project: start-project ## The same

build-project: packages .venv/control ## Make what a start needs: packages, .venv, model, the machine's base tree
	@$(MAKE) --no-print-directory --jobs=2 model/artifacts/manifest.json base-tree

provision: ## Run site.yml against ENVIRONMENT (default: the machine that runs)
	ansible-playbook -i inventory/$(ENVIRONMENT) site.yml

stop-project: stop-$(machine) ## Stop the machine; a start brings it back as it was

destroy-project: destroy-$(machine) ## Remove the machine and all that it changed on this host
	rm -rf .lab/lab .lab/settings.mk certs/ca.crt certs/ca.key certs/$(machine).crt

.PHONY: start-machine start-lab stop-lab destroy-lab start-vagrant stop-vagrant destroy-vagrant
start-machine: check-ports
	@mkdir -p .lab && printf '%s ?= %s\n' PROVIDER $(PROVIDER) HTTPS_PORT $(HTTPS_PORT) HTTP_PORT $(HTTP_PORT) PROMETHEUS_PORT $(PROMETHEUS_PORT) GRAFANA_PORT $(GRAFANA_PORT) > .lab/settings.mk
	@$(MAKE) --no-print-directory start-$(machine)
	@scripts/summary $(machine) $(HTTPS_PORT) $(HTTP_PORT) $(PROMETHEUS_PORT) $(GRAFANA_PORT)

start-lab: build-project
	$(lab_playbook) -e lab_machine_state=started
	@$(MAKE) --no-print-directory provision
stop-lab:
	$(lab_playbook) -e lab_machine_state=stopped
destroy-lab:
	@[ ! -x .venv/bin/ansible-playbook ] || $(lab_playbook) -e lab_machine_state=absent

start-vagrant: .venv/control
	@scripts/start-vm $(PROVIDER)
stop-vagrant:
	vagrant halt
destroy-vagrant:
	vagrant destroy --force
	@scripts/libvirt stop

.PHONY: check-host check-ports packages base-tree
check-host:
	@scripts/check-host
check-ports:
	@scripts/check-host $(if $(filter vagrant,$(machine)),--vm) $(ports)
packages:
	@scripts/install-packages
base-tree: # of no use to a machine that is there
	@[ -e .lab/lab/ssh_config ] || $(lab_playbook) -e lab_machine_state=prepared

# --- looking at it ---

.PHONY: ssh status logs test-api test-api-debug
ssh: ## Log in to the machine; CMD="…" runs a command there
	@$(ssh_machine) $(CMD)

status: ## What runs in the machine
	@$(ssh_machine) 'sudo vmlops-api status; systemctl list-units --no-legend --plain "vmlops-*" nginx "prometheus*" "grafana*" mtail'

logs: ## Follow the journal of the system's services in the machine
	@$(ssh_machine) sudo journalctl --follow --lines=50 --unit='vmlops-*' --unit=nginx --unit='prometheus*' --unit='grafana*' --unit=mtail

test-api: ## Ask the running system for a prediction
	@$(curl_predict)

test-api-debug: ## The same from the debug version
	@$(curl_predict) -H 'X-Experiment-Group: debug'

# --- releases ---

.PHONY: deploy rollback
deploy: ## Roll out the model and application as they stand to ENVIRONMENT
	ansible-playbook -i inventory/$(ENVIRONMENT) playbooks/deploy.yml

rollback: ## Go back to the release before
	ansible-playbook -i inventory/$(ENVIRONMENT) playbooks/rollback.yml

.PHONY: verdict
verdict: ## Is v2 fit to become v1? Promote, wait or go back, with the evidence
	@ansible-playbook -i inventory/$(ENVIRONMENT) playbooks/verdict.yml

# --- the model ---

.PHONY: model model-import compare-models bench-model test-public
model: .venv/control ## Train, evaluate and compile; DATA=path for other data
	python -m model --data $(DATA)

model-import: .venv/control ## Serve a fitted pipeline of yours: MODEL=path of a joblib file
	python -m model.importing --model $(or $(MODEL),$(error MODEL is not set: make model-import MODEL=path)) --data $(DATA)

compare-models: .venv/control ## The comparison that the recipe was chosen by, to build/model-comparison.md
	@mkdir -p build
	python -m model.compare --data $(DATA) --output build/model-comparison.md

bench-model: .venv/bench model/artifacts/manifest.json ## What a prediction takes, beside scikit-learn and onnxruntime
	python -m model.bench --data $(DATA) --output docs/model-benchmarks.md

test-public: .venv/test ## What is promised of the public data set: DATA=path
	pytest tests/public --data $(DATA)

model/artifacts/manifest.json: data/tweet_emotions.csv $(wildcard model/*.py) $(wildcard app/engines/*.py) requirements/train.txt | .venv/control
	python -m model --data $(DATA)

# --- checks ---

.PHONY: test test-code test-machines lint unit molecule lifecycle
test: check-host build-project .venv/test build/tools/.fetched ## Check everything; what runs already is not touched
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=recurse test-code test-machines
	@echo "All checks passed."

# A machine mostly waits; its tests and those of the code share the processors well.
test-code:
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory unit
test-machines:
	@$(MAKE) --no-print-directory molecule
	@$(MAKE) --no-print-directory lifecycle

lint: .venv/test ## ruff, mypy, yamllint, ansible-lint
	ruff check .
	ruff format --check .
	mypy app model release plugins roles tests
	yamllint --strict .
	ansible-lint --offline

.PHONY: variables
variables: .venv/test ## Make docs/variables.md anew from the roles' argument specs
	python -m tests.variables > docs/variables.md

.PHONY: dashboards
dashboards: .venv/test ## Make Grafana's dashboards anew from tests/dashboards.py
	python -m tests.dashboards

unit: .venv/test build/tools/.fetched ## Unit tests and rendered templates, without a machine
	pytest

molecule: .venv/test model/artifacts/manifest.json ## The roles on a throw-away machine
	molecule test

lifecycle: .venv/test ## What a lab machine changes on this host is taken back
	pytest tests/lab

.PHONY: test-faults test-browser fuzz bench-api
test-faults: .venv/test ## Break the running lab machine under load: replicas, floods, TLS
	@scripts/install-packages testssl:testssl.sh
	pytest tests/faults

test-browser: .venv/browser build/tools/.fetched ## The page in headless Chromium
	@scripts/install-packages chromium
	pytest tests/browser

.PHONY: box test-vm
box: .venv/control ## Build a Vagrant box for libvirt from this distribution's packages
	@scripts/libvirt install
	@scripts/make-box

test-vm: .venv/test ## The acceptance tests on a VM, before and after a reboot (half an hour where it is emulated); KEEP=1
	@scripts/test-vm $(or $(filter libvirt virtualbox,$(PROVIDER)),libvirt)

fuzz: .venv/test ## 100,000 odd bodies against the API, in one process
	FUZZ=100000 pytest tests/unit/app/test_fuzz.py

bench-api: .venv/test model/artifacts/manifest.json ## What a replica costs: metrics, memory, start
	python -m tests.load.bench_api

# --- measurements ---

.PHONY: bench profile
bench: check-host .venv/control model/artifacts/manifest.json ## Measure the whole stack beside others, on a machine of its own; QUICK=1
	@scripts/install-packages wrk
	@ASK_BECOME_PASS="$(ask_become_pass)" python -m tests.load.bench $(if $(QUICK),--quick) $(if $(KEEP),--keep)

profile: check-host .venv/control model/artifacts/manifest.json ## Where a request's time goes, to docs/profile.md
	@scripts/install-packages wrk
	@ASK_BECOME_PASS="$(ask_become_pass)" python -m tests.load.bench.profile $(if $(KEEP),--keep)

# --- dependencies ---

# Each may be constrained by those before it.
locks := bootstrap api train control sklearn test bench browser bench-profile bench-reference bench-bentoml bench-litserve bench-mlserver

.PHONY: locks
locks: .venv/control ## Make the hashed requirements files anew from their .in files; UPGRADE=1 takes newer versions
	@cd requirements && for name in $(locks); do echo "$$name.txt"; uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-header --no-emit-index-url $(if $(UPGRADE),--upgrade) $$name.in --output-file $$name.txt || exit 1; done

# --- made files ---

.venv/control: requirements/bootstrap.txt requirements/control.txt requirements/train.txt
	@scripts/make-venv requirements/control.txt requirements/train.txt
	@touch $@

.venv/test: requirements/test.txt requirements/api.txt .venv/control
	@scripts/make-venv requirements/control.txt requirements/train.txt requirements/api.txt requirements/test.txt
	@touch $@

.venv/bench: requirements/bench.txt .venv/test
	@scripts/make-venv requirements/bench.txt
	@touch $@

.venv/browser: requirements/browser.txt .venv/test
	@scripts/make-venv requirements/browser.txt
	@touch $@

build/tools/.fetched: scripts/fetch-tools | packages
	@scripts/fetch-tools
	@touch $@

.PHONY: clean
clean: ## Remove what was built, but neither machines nor certificates
	rm -rf build model/artifacts model/report .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
