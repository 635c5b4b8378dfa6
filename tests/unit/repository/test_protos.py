"""The contracts: generated code is current, names follow the rules that clients rely on."""

import importlib
from collections.abc import Iterator
from importlib import metadata, resources
from pathlib import Path
from typing import Any, Final

import pytest

from tests.checkout import ROOT

PROTOS: Final = ROOT / "protos"
FILES: Final = sorted(PROTOS.glob("anyclaude/*/v1/*.proto"))
# What pyproject pins: other versions generate other code.
GENERATOR: Final = "1.76.0"


def descriptors() -> Iterator[Any]:
    for file in FILES:
        name = ".".join(file.relative_to(PROTOS).with_suffix("").parts)
        yield importlib.import_module(f"{name}_pb2").DESCRIPTOR


def test_generated_code_is_current(tmp_path: Path) -> None:
    """`make proto` changes nothing."""
    if metadata.version("grpcio-tools") != GENERATOR:
        pytest.skip(f"grpcio-tools {GENERATOR} generates the committed code; `make setup` has it")
    from grpc_tools import protoc

    include = resources.files("grpc_tools") / "_proto"
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    arguments = ["protoc", f"-I{PROTOS}", f"-I{include}", *outputs, *map(str, FILES)]
    assert protoc.main(arguments) == 0
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.py*"))
    assert len(made) == 3 * len(FILES)
    stale = [path for path in made if (tmp_path / path).read_text() != (PROTOS / path).read_text()]
    assert stale == []


def test_a_package_is_its_folder() -> None:
    """`anyclaude/control/v1/control.proto` holds `anyclaude.control.v1`."""
    for file in descriptors():
        assert file.package == str(Path(file.name).parent).replace("/", ".")


def test_services_and_calls_are_named_by_rule() -> None:
    """Services end in Service; every call has a request and a response of its own name."""
    seen: list[str] = []
    for file in descriptors():
        for service in file.services_by_name.values():
            assert service.name.endswith("Service")
            for method in service.methods:
                assert method.input_type.name == f"{method.name}Request"
                assert method.output_type.name == f"{method.name}Response"
                seen += [method.input_type.full_name, method.output_type.full_name]
    assert len(seen) == len(set(seen))


def test_enums_begin_unspecified_and_carry_their_name() -> None:
    """Every enum has an UNSPECIFIED zero, which means that a field was not set."""
    for file in descriptors():
        for enum in file.enum_types_by_name.values():
            prefix = "".join(f"_{c}" if c.isupper() else c.upper() for c in enum.name).lstrip("_")
            assert enum.values[0].name == f"{prefix}_UNSPECIFIED"
            assert enum.values[0].number == 0
            assert all(value.name.startswith(f"{prefix}_") for value in enum.values)


def test_fields_are_snake_case() -> None:
    """Field names are snake_case, since they are keys of `--json`."""
    for file in descriptors():
        for message in file.message_types_by_name.values():
            for field in message.fields:
                assert field.name == field.name.lower()
