.DEFAULT_GOAL := help
PYTEST = .venv/bin/python -m pytest
MATERIAL = .real

.PHONY: help setup setup-dev run test coverage lint format proto demo fresh bench first-tokens rivals guard faults soak conformance fuzz models real calls upstreams clients

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install the service into .venv
	@deploy/setup

setup-dev: ## Install what tests, lint and benchmarks need as well
	@deploy/setup dev

run: setup ## Start the service in the foreground
	@exec .venv/bin/anyclauded

# Four files at a time, also on two cores: many tests wait, and on a busy machine four get more of it.
TEST_PROCESSES = 4

test: setup-dev ## Run the whole test suite (TEST_PROCESSES=...)
	$(PYTEST) -n "$(TEST_PROCESSES)" --dist loadfile --no-loadscope-reorder

coverage: setup-dev ## Run the unit tests and show which lines they reach
	.venv/bin/python -m coverage run -m pytest tests/unit
	.venv/bin/python -m coverage report --skip-covered --skip-empty

lint: setup-dev ## Check format, rules and types
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy

format: setup-dev ## Format the code and fix what can be fixed
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

proto: setup-dev ## Generate the gRPC code again
	.venv/bin/python -m grpc_tools.protoc -Iprotos --python_out=protos --pyi_out=protos \
		--grpc_python_out=protos protos/anyclaude/*/v1/*.proto

demo: setup-dev ## Train the embedded demo model again
	.venv/bin/python -m tools.demo_model.build

fresh: setup-dev ## Install the wheel with packages of the registry, its service, and ask it
	ANYCLAUDE_TEST_FRESH=1 $(PYTEST) -v tests/integration/cli/test_wheel.py

bench: setup-dev ## Measure reuse, restart, the warm path and the commands
	.venv/bin/python -m benchmarks.warm_path
	.venv/bin/python -m benchmarks.prefix_cache
	.venv/bin/python -m benchmarks.restart
	.venv/bin/python -m benchmarks.verbs

first-tokens: setup-dev ## Measure what a cache saves, and write the table and pictures of README.md (MATERIAL=...)
	tests/upstreams/install .upstreams openblas
	.venv/bin/python -m tests.real.material $(MATERIAL) smollm2
	.venv/bin/python -m benchmarks.first_tokens $(MATERIAL) --write README.md

rivals: setup-dev ## Measure other local servers beside this one, and write docs/performance.md
	-tests/upstreams/install .upstreams
	.venv/bin/python -m benchmarks.rivals --write docs/performance.md

guard: setup-dev ## Fail if reuse, restart or decoding together have regressed
	.venv/bin/python -m benchmarks.guard

faults: setup-dev ## Kill processes under load, and write the table of docs/reliability.md (KILLS=..., SEED=...)
	.venv/bin/python -m benchmarks.faults --kills $(or $(KILLS),200) --seed $(or $(SEED),1) --write docs/reliability.md

soak: setup-dev ## Watch memory under load and faults, and write it into docs/reliability.md (MINUTES=..., SEED=...)
	.venv/bin/python -m benchmarks.soak --minutes $(or $(MINUTES),30) --seed $(or $(SEED),1) --write docs/reliability.md

conformance: setup-dev ## Test an endpoint against the Messages API (BASE_URL=...)
	$(PYTEST) tests/conformance -q --base-url="$(BASE_URL)" --api-key="$(API_KEY)" \
		--model="$(MODEL)" --server="$(SERVER)" --table="$(TABLE)"

fuzz: setup-dev ## Send malformed requests (COUNT=..., BASE_URL=..., SEED=...)
	.venv/bin/python -m tests.conformance.fuzz --count="$(COUNT)" --base-url="$(BASE_URL)" --seed="$(SEED)"

models: setup-dev ## Write docs/models.md from the chat templates of real models (MATERIAL=...)
	.venv/bin/python -m tests.real.material $(MATERIAL) templates tokenizers
	.venv/bin/python -m tests.real.table $(MATERIAL) --write docs/models.md

real: setup-dev ## Compare answers of real models with and without their caches (MATERIAL=...)
	.venv/bin/python -m tests.real.material $(MATERIAL) smollm2 gemma3 tokenizers
	.venv/bin/python -m pip install --quiet --no-deps gguf==0.19.0
	ANYCLAUDE_TEST_MATERIAL="$(abspath $(MATERIAL))" \
		$(PYTEST) -v tests/real/test_smollm2.py tests/real/test_gemma3.py

calls: setup-dev ## Have a model that writes at random call tools (COUNT=...)
	.venv/bin/python -m benchmarks.constrained_calls $(COUNT)

upstreams: setup-dev ## Test the relay against real llama.cpp and vllm-mlx servers
	tests/upstreams/install .upstreams
	$(PYTEST) tests/upstreams -q --page=docs/upstreams.md

clients: setup-dev ## Run SDKs and frameworks against the service, and write the table of docs/clients.md
	tests/clients/install .clients
	.venv/bin/python -m tests.clients.run .clients --write docs/clients.md
