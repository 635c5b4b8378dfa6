.PHONY: setup run test lint proto demo bench conformance fuzz calls upstreams

setup: ; @deploy/setup
run: setup ; @exec .venv/bin/anyclauded
# Two files at a time, since most tests keep one core busy.
test: ; @deploy/setup dev && .venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
lint: ; @deploy/setup dev && .venv/bin/ruff format --check . && .venv/bin/ruff check . && .venv/bin/mypy
proto: ; @deploy/setup dev && .venv/bin/python -m grpc_tools.protoc -Iprotos --python_out=protos --pyi_out=protos --grpc_python_out=protos protos/anyclaude/*/v1/*.proto
demo: ; @deploy/setup dev && .venv/bin/python -m tools.demo_model.build
bench: ; @deploy/setup dev && .venv/bin/python -m benchmarks.warm_path && .venv/bin/python -m benchmarks.prefix_cache && .venv/bin/python -m benchmarks.restart
conformance: ; @deploy/setup dev && .venv/bin/python -m pytest tests/conformance -q --base-url="$(BASE_URL)" --api-key="$(API_KEY)" --model="$(MODEL)" --server="$(SERVER)" --table="$(TABLE)"
fuzz: ; @deploy/setup dev && .venv/bin/python -m tests.conformance.fuzz --count="$(COUNT)" --base-url="$(BASE_URL)" --seed="$(SEED)"
calls: ; @deploy/setup dev && .venv/bin/python -m benchmarks.held_calls $(COUNT)
upstreams: ; @deploy/setup dev && tests/upstreams/install .upstreams && .venv/bin/python -m pytest tests/upstreams -q --page=docs/upstreams.md
