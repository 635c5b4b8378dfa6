"""Three hundred tool schemas as clients, MCP servers and OpenAPI documents send them.

Each case is the schema of one property, and a value that the client would accept for it, so a
grammar must let a model write that value. Some schemas are malformed or contradict themselves; then
any value will do.
"""

import string
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Schema = dict[str, Any]
STRING: Schema = {"type": "string"}
INTEGER: Schema = {"type": "integer"}
DECOMPOSED = "cafe\u0301"


@dataclass(frozen=True)
class OddSchema:
    """One case of the corpus.

    Attributes:
        schema: of the whole input of a tool; its property `name` is required and has the value "A".
        arguments: an input that the tool accepts.
    """

    kind: str
    schema: Any
    arguments: dict[str, Any]


def corpus() -> list[OddSchema]:
    """All cases, in a fixed order."""
    return [*_properties(), *_whole_schemas()]


def _properties() -> Iterator[OddSchema]:
    for kind, cases in _BY_KIND.items():
        for odd, value in cases:
            yield OddSchema(kind, _with_name({"v": odd}), {"name": "A", "v": value})


def _with_name(properties: Schema, **more: Any) -> Schema:
    required = ["name", *more.pop("required", [])]
    listed = {"name": {"enum": ["A"]}, **properties}
    return {"type": "object", "properties": listed, "required": required, **more}


def obj(*required: str, **properties: Any) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required)}


def _nested(depth: int, inner: Schema) -> Schema:
    for _ in range(depth):
        inner = obj("x", x=inner)
    return inner


def _nested_value(depth: int, inner: Any) -> Any:
    for _ in range(depth):
        inner = {"x": inner}
    return inner


def _array(items: Any, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def _pattern(pattern: str, **more: Any) -> Schema:
    return {"type": "string", "pattern": pattern, **more}


_PATTERNS = [
    (_pattern(r"^(\S{1,40}\s?){1,24}$"), "two words"),
    (_pattern(r"^(([a-z]{1,40} ?){1,40}\n?){1,40}$"), "a b"),
    (_pattern(r"^((a{1,50}b{1,50}){1,50}c{1,50}){1,50}$"), "abc"),
    (_pattern(r"^[\w.-]{1,64}@[\w.-]{1,255}\.[a-z]{2,63}$"), "a@b.org"),
    (_pattern(r"^.{1,100000}$"), "x"),
    (_pattern(r"^[a-z]{5000}$", maxLength=1), "x"),
    (_pattern(r"^(?!x)a+$"), "aa"),
    (_pattern(r"^(?=.*\d)[a-z\d]+$"), "a1"),
    (_pattern(r"(?<=a)b"), "ab"),
    (_pattern(r"^(a)\1$"), "aa"),
    (_pattern(r"^(?<n>a)\k<n>$"), "aa"),
    (_pattern(r"^\p{L}+$"), "grüße"),
    (_pattern(r"^\p{Script=Greek}+$"), "αβγ"),
    (_pattern(r"^[^\x00-\x1f]*$"), "a b"),
    (_pattern("("), "x"),
    (_pattern("[a-"), "x"),
    (_pattern("*"), "x"),
    (_pattern(r"\d+"), "room 12"),
    (_pattern(r"^a|b$"), "b"),
    (_pattern(r"^a*$"), ""),
    (_pattern(r"^\/[^\/]+(\/[^\/]+)*$"), "/a/b"),
    (_pattern(r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)$"), "1.20.3"),
    (_pattern(r"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}$"), "01234567-89ab-4def"),
    (_pattern(r"^\$\{[A-Z_]+\}$"), "${HOME}"),
    (_pattern(r"^\"quoted\"$"), '"quoted"'),
    (_pattern(DECOMPOSED), DECOMPOSED),
    (_pattern(r"^\u00e9$"), "é"),
    (_pattern("^a\\s*\nb$"), "a\nb"),
    (_pattern(r"^(a|aa|aaa|aaaa)+$"), "aaa"),
    (_pattern(r"^(.*a){12}.*$"), "a" * 12),
]
_LENGTHS = [
    ({"type": "string", "minLength": 0}, ""),
    ({"type": "string", "maxLength": 10**9}, "x"),
    ({"type": "string", "maxLength": 10**20}, "x"),
    ({"type": "string", "minLength": 10**12}, "x" * 9),
    ({"type": "string", "minLength": -1}, "x"),
    ({"type": "string", "minLength": 5, "maxLength": 2}, "abc"),
    ({"type": "string", "maxLength": 3.0}, "abc"),
    ({"type": "string", "maxLength": 3.5}, "abc"),
    ({"type": "string", "maxLength": "3"}, "abc"),
    ({"type": "string", "maxLength": None, "minLength": None}, "abc"),
    ({"type": "string", "maxLength": True}, "abc"),
    ({"type": "string", "minLength": 1, "maxLength": 50000}, "é" * 3),
    (_array(STRING, maxItems=10**6), ["a"]),
    (_array(STRING, maxItems=10**15), ["a"]),
    (_array(STRING, minItems=10**15), ["a"]),
    (_array(STRING, minItems=3, maxItems=1), ["a"]),
    (_array(STRING, minItems=None, maxItems=None), ["a"]),
    (_array(STRING, minItems="1"), ["a"]),
    (_array(STRING, maxItems=0), []),
    (_array(STRING, minItems=-2), []),
    ({"minLength": 2}, "ab"),
    ({"maxItems": 2}, [1, "x"]),
    (_array(_array(_array(INTEGER, maxItems=1000), maxItems=1000), maxItems=1000), [[[1]]]),
    (obj(a=INTEGER) | {"minProperties": 1}, {"a": 1}),
    (obj(a=INTEGER, b=INTEGER) | {"maxProperties": 1}, {"a": 1}),
]
_NUMBERS = [
    ({"type": "integer", "minimum": 5, "maximum": 1}, 3),
    ({"type": "integer", "minimum": 0, "exclusiveMinimum": True}, 1),
    ({"type": "integer", "maximum": 9, "exclusiveMaximum": False}, 9),
    ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.5),
    ({"type": "number", "minimum": -1.8e308, "maximum": 1.8e308}, 2.5),
    ({"type": "integer", "minimum": -9007199254740991, "maximum": 9007199254740991}, -4),
    ({"type": "integer", "minimum": -(10**40), "maximum": 10**40}, 12),
    ({"type": "integer", "minimum": 10**40}, 12),
    ({"type": "integer", "minimum": 2**63 - 1}, 2**63 - 1),
    ({"type": "number", "multipleOf": 0.01}, 12.34),
    ({"type": "number", "multipleOf": 1e-20}, 0.5),
    ({"type": "number", "multipleOf": 0}, 0.5),
    ({"type": "number", "multipleOf": -2}, 4),
    ({"type": "number", "multipleOf": "2"}, 4),
    ({"type": "integer", "multipleOf": 7, "minimum": 1, "maximum": 10**9}, 14),
    ({"type": "integer", "minimum": "0"}, 1),
    ({"type": "integer", "minimum": None}, 1),
    ({"type": "integer", "minimum": 1.5}, 2),
    ({"type": "integer", "format": "int64", "minimum": 0}, 3),
    ({"type": "number", "format": "double"}, 1.5),
    ({"minimum": 3}, 4),
    ({"type": "integer", "maximum": float("inf")}, 4),
    ({"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 4}, 4),
    ({"type": "number", "minimum": 1, "maximum": 1}, 1),
    ({"type": "number", "const": 1.0}, 1),
]
_TYPES = [
    ({"type": "any"}, "x"),
    ({"type": "float"}, 1.5),
    ({"type": "int"}, 2),
    ({"type": "str"}, "x"),
    ({"type": "bool"}, True),
    ({"type": "dict"}, {"a": 1}),
    ({"type": "list"}, [1]),
    ({"type": "String"}, "x"),
    ({"type": "INTEGER"}, 3),
    ({"type": "file"}, "x"),
    ({"type": "date"}, "x"),
    ({"type": "undefined"}, "x"),
    ({"type": None}, "x"),
    ({"type": 3}, "x"),
    ({"type": {}}, "x"),
    ({"type": []}, "x"),
    ({"type": ["string", None]}, "x"),
    ({"type": ["string", "string"]}, "x"),
    ({"type": ["string", "null"]}, None),
    ({"type": ["string", "number", "boolean", "null", "array", "object"]}, {"a": 1}),
    ({"type": ["integer", "string"]}, "5"),
    ({"type": "null"}, None),
    ({"type": "string", "nullable": True}, None),
    ({"type": "string", "nullable": False}, "x"),
    ({"enum": ["a", "b"], "nullable": True}, None),
    ({"type": ["array", "null"], "items": STRING}, None),
    ({"type": "string", "nullable": "yes"}, "x"),
    ({}, {"any": ["thing"]}),
    (True, "x"),
    (None, "x"),
    (False, "x"),
    ("string", "x"),
    (7, "x"),
    (["string"], "x"),
    ({"description": "no type at all"}, "x"),
]
_ENUMS = [
    ({"enum": []}, "x"),
    ({"enum": None}, "x"),
    ({"enum": "a"}, "x"),
    ({"enum": {"a": 1}}, "x"),
    ({"enum": ["a"]}, "a"),
    ({"enum": [1, "1", 1.5, True, None, [1], {"a": 1}]}, {"a": 1}),
    ({"enum": [1, "1", None]}, 1),
    ({"type": "string", "enum": [1, 2]}, 1),
    ({"type": "integer", "enum": ["a", 2]}, 2),
    ({"type": "string", "enum": ["a", None]}, "a"),
    ({"enum": ["", " ", "\n", "\t"]}, " "),
    ({"enum": ['say "hi"', "back\\slash", "a'b", "</tool_call>", "<|end|>"]}, 'say "hi"'),
    ({"enum": ["</parameter>", "</arg_value>", "a\n</parameter>\nb"]}, "</arg_value>"),
    ({"enum": [f"value {at}" for at in range(2000)]}, "value 1999"),
    ({"enum": [f"value {at}" for at in range(60000)]}, "value 7"),
    ({"enum": ["x" * 2000]}, "x" * 2000),
    ({"enum": [DECOMPOSED, "café"]}, DECOMPOSED),
    ({"enum": ["\u212b", "\u2126", "\u0958", "\u1112\u1161\u11ab"]}, "\u2126"),
    ({"enum": ["🟡", "👩\u200d🚀", "\ufeffx"]}, "👩\u200d🚀"),
    ({"const": "only"}, "only"),
    ({"const": None}, None),
    ({"const": {"a": [1, {"b": None}]}}, {"a": [1, {"b": None}]}),
    ({"const": 1, "enum": [2]}, 1),
    ({"enum": ["a", "a"]}, "a"),
    ({"enum": [True, False]}, False),
    ({"enum": ["true", True]}, True),
    ({"enum": [float("nan"), "a"]}, "a"),
    ({"enum": ["null", None]}, None),
    ({"enum": [[], {}]}, []),
    ({"enum": [-0.0, 0.25]}, 0.25),
]
_UNIONS = [
    ({"anyOf": [STRING, INTEGER]}, 5),
    ({"anyOf": [{"type": "string", "maxLength": 3}, {"type": "null"}]}, None),
    ({"anyOf": []}, "x"),
    ({"anyOf": None}, "x"),
    ({"anyOf": [True]}, "x"),
    ({"anyOf": [{}]}, "x"),
    ({"anyOf": [None, STRING]}, "x"),
    ({"anyOf": {"a": STRING}}, "x"),
    ({"oneOf": [STRING, {"type": "string", "maxLength": 3}]}, "long text"),
    ({"oneOf": [INTEGER, {"type": "number"}]}, 1.5),
    ({"oneOf": [obj("k", k={"const": "a"}), obj("k", k={"const": "b"}, z=INTEGER)]}, {"k": "a"}),
    ({"oneOf": [obj(a=INTEGER), obj(b=INTEGER)], "type": "object"}, {"b": 1}),
    ({"oneOf": [{"required": ["a"]}, {"required": ["b"]}], **obj(a=INTEGER, b=INTEGER)}, {"a": 1}),
    ({"allOf": [STRING]}, "x"),
    ({"allOf": [STRING, INTEGER]}, "x"),
    ({"allOf": [{"pattern": "^a"}, {"pattern": "z$"}], "type": "string"}, "a to z"),
    ({"allOf": [{"minLength": 1}, {"minLength": 2}, {"maxLength": 5}], **STRING}, "abc"),
    ({"allOf": [obj("a", a=INTEGER), obj("b", b=INTEGER)]}, {"a": 1, "b": 2}),
    ({"allOf": [obj(a=INTEGER), {"additionalProperties": False}]}, {}),
    ({"allOf": []}, "x"),
    ({"allOf": [{"anyOf": [obj(**{f"k{a}{b}": STRING}) for b in range(6)]} for a in range(6)]}, {}),
    ({"anyOf": [{"anyOf": [{"anyOf": [INTEGER, STRING]}, {"type": "null"}]}, STRING]}, None),
    ({"anyOf": [_array(STRING), STRING]}, ["a"]),
    ({"anyOf": [_array(obj("a", a=INTEGER)), obj("b", b=STRING)]}, [{"a": 1}]),
    ({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "integer", "maximum": -1}]}, -3),
    ({"anyOf": [STRING], "oneOf": [{"maxLength": 2}, {"minLength": 5}]}, "a"),
    ({"anyOf": [STRING, INTEGER], "type": ["string", "integer"], "minimum": 3}, 7),
    ({"anyOf": [{"enum": ["a"]}, {"enum": ["b"]}, {"const": 3}]}, 3),
    ({"anyOf": [INTEGER, STRING], "default": 3, "title": "T", "description": None}, "x"),
    ({"anyOf": [obj("type", type={"const": t}, **{t: STRING}) for t in "abcde"]}, {"type": "c"}),
]
_NOT_EXPRESSIBLE = [
    ({"not": STRING}, 5),
    ({"not": {}}, 5),
    ({"not": {"enum": ["a"]}, "type": "string"}, "b"),
    ({"not": None}, 5),
    (_array(INTEGER, uniqueItems=True), [1, 2]),
    (_array(INTEGER, uniqueItems="yes"), [1, 2]),
    (_array(INTEGER, contains={"const": 3}, minContains=1), [3]),
    ({**obj(a=INTEGER), "if": {"required": ["a"]}, "then": obj(b=STRING)}, {"b": "x"}),
    ({**obj(a=INTEGER), "if": {}, "else": {"required": ["a"]}}, {"a": 1}),
    ({"if": STRING, "then": {"minLength": 2}}, "ab"),
    ({**obj(a=INTEGER, b=INTEGER), "dependentRequired": {"a": ["b"]}}, {"a": 1, "b": 2}),
    ({**obj(a=INTEGER), "dependentSchemas": {"a": obj("b", b=STRING)}}, {"a": 1, "b": "x"}),
    ({**obj(a=INTEGER), "dependencies": {"a": ["b"]}}, {"a": 1}),
    ({**obj(a=INTEGER), "unevaluatedProperties": False}, {"a": 1}),
    ({**obj(a=INTEGER), "propertyNames": {"pattern": "^[a-z]$"}}, {"a": 1}),
    ({"type": "object", "propertyNames": {"enum": ["a"]}}, {"a": 1}),
    (_array(INTEGER, unevaluatedItems=False), [1]),
    ({"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png"}, "aGk="),
    ({**STRING, "$vocabulary": {}, "x-custom": {"a": [1]}, "unknown": None}, "x"),
    ({**obj(a=INTEGER), "dependentSchemas": None, "then": 3, "else": []}, {"a": 1}),
]  # fmt: skip
_OBJECTS = [
    ({"type": "object"}, {"any": 1}),
    ({"type": "object", "additionalProperties": True}, {"any": [1]}),
    ({"type": "object", "additionalProperties": False}, {}),
    ({"type": "object", "additionalProperties": STRING}, {"a": "x", "b": "y"}),
    ({"type": "object", "additionalProperties": None}, {"a": 1}),
    ({"type": "object", "additionalProperties": "no"}, {"a": 1}),
    ({"type": "object", "additionalProperties": {"type": ["string", "number"]}}, {"a": 1}),
    ({**obj(a=INTEGER), "additionalProperties": STRING}, {"a": 1, "b": "x"}),
    ({**obj(a=INTEGER, b=INTEGER), "additionalProperties": STRING}, {"b": 1, "c": "x", "a": 2}),
    ({"type": "object", "patternProperties": {"^x-": STRING}}, {"x-a": "b"}),
    ({**obj("a", a={"enum": ["A"]}), "patternProperties": {"^a$": STRING}}, {"a": "A"}),
    ({**obj(a=INTEGER), "patternProperties": {"^x": INTEGER}, "additionalProperties": False},
     {"a": 1, "x1": 2}),
    ({"type": "object", "patternProperties": {"(": STRING}}, {"a": "x"}),
    ({"type": "object", "patternProperties": {"^(?!a)": STRING}}, {"b": "x"}),
    ({"type": "object", "patternProperties": None}, {"b": "x"}),
    ({"type": "object", "properties": None}, {"b": 1}),
    ({"type": "object", "properties": []}, {"b": 1}),
    ({"type": "object", "properties": {}}, {}),
    ({"type": "object", "properties": {"a": None}}, {"a": 1}),
    ({"type": "object", "properties": {"a": "string"}}, {"a": 1}),
    ({"type": "object", "properties": {"a": {"type": "string", "required": True}}}, {"a": "x"}),
    ({**obj(a=INTEGER), "required": None}, {"a": 1}),
    ({**obj(a=INTEGER), "required": "a"}, {"a": 1}),
    ({**obj(a=INTEGER), "required": True}, {"a": 1}),
    ({**obj(a=INTEGER), "required": ["a", "a"]}, {"a": 1}),
    ({**obj(a=INTEGER), "required": ["a", "elsewhere"]}, {"a": 1, "elsewhere": 2}),
    ({**obj(a=INTEGER), "required": [1, None, "a"]}, {"a": 1}),
    ({"type": "object", "required": ["x"]}, {"x": 1}),
    ({"properties": {"a": INTEGER}}, {"a": 1}),
    ({"required": ["x"]}, {"x": 1}),
    (obj(**{f"p{at}": STRING for at in range(200)}), {"p199": "x", "p3": "y"}),
    (obj(*[f"p{at}" for at in range(70)], **{f"p{at}": INTEGER for at in range(90)}),
     {f"p{at}": at for at in range(70)}),
    (_nested(40, STRING), _nested_value(40, "x")),
    (_nested(90, STRING), _nested_value(65, 1)),
    (_nested(300, STRING), _nested_value(65, 1)),
    ({**obj(a=INTEGER), "example": {"a": 1}, "discriminator": {"propertyName": "a"}, "xml": {}},
     {"a": 1}),
    ({**obj(a=INTEGER), "readOnly": True, "deprecated": True, "externalDocs": {}}, {"a": 1}),
]  # fmt: skip
_ARRAYS = [
    ({"type": "array"}, [1, "x"]),
    ({"type": "array", "items": None}, [1]),
    ({"type": "array", "items": True}, [1]),
    ({"type": "array", "items": False}, []),
    ({"type": "array", "items": "string"}, ["a"]),
    ({"type": "array", "items": {}}, [1]),
    ({"type": "array", "items": [STRING, INTEGER]}, ["a", 1]),
    ({"type": "array", "items": [STRING, INTEGER], "additionalItems": False}, ["a", 1]),
    ({"type": "array", "prefixItems": [STRING, INTEGER], "items": False, "minItems": 2}, ["a", 1]),
    ({"type": "array", "prefixItems": [STRING], "items": INTEGER}, ["a", 1, 2]),
    ({"type": "array", "prefixItems": None, "items": INTEGER}, [1, 2]),
    ({"type": "array", "prefixItems": []}, [1, 2]),
    ({"type": "array", "prefixItems": {"type": "string"}}, [1, 2]),
    (_array(_array(_array(STRING))), [[["a"]]]),
    (_array(obj("a", a=INTEGER, b=STRING)), [{"b": "x", "a": 1}]),
    (_array({"enum": ["a", "b"]}, minItems=2, maxItems=2), ["a", "b"]),
    ({"items": STRING}, ["a"]),
    (_array({"anyOf": [STRING, INTEGER]}), ["a", 1]),
    (_array(STRING, maxItems=3, minItems=3), ["a", "b", "c"]),
    (_array({**STRING, "pattern": r"^(\w{1,40} ){1,40}$"}), ["a "]),
]
_FORMATS = [
    ({**STRING, "format": name}, value)
    for name, value in [
        ("date", "2026-01-31"), ("date-time", "2026-01-31T10:00:00Z"), ("time", "10:00:00Z"),
        ("duration", "P3D"), ("email", "a@b.org"), ("hostname", "example.org"),
        ("ipv4", "127.0.0.1"), ("ipv6", "::1"), ("uuid", "12345678-1234-4234-8234-123456789012"),
        ("uri", "https://example.org/a"), ("uri-reference", "a/b"), ("uri-template", "/{a}"),
        ("regex", "^a"), ("json-pointer", "/a"), ("binary", "x"), ("byte", "x"), ("password", "x"),
        ("int32", "x"), ("path", "/tmp"), ("", "x"), (None, "x"), (3, "x"),
    ]
]  # fmt: skip
_NAMES = [
    "", " ", "a b", "a.b", "a/b", "a:b", "a=b", "a,b", 'quo"te', "apo'strophe", "back\\slash",
    "line\nend", "tab\t", "<tag>", "</parameter>", "{brace}", "[0]", "$dollar", "@context", "-n",
    "--flag", "1st", "größe", DECOMPOSED, "言語", "🟡", "class", "type", "properties", "$ref",
    "required", "x" * 300, "__proto__", "a" + "\u00a0" + "b", "null", "items", "const",
]  # fmt: skip
_BY_KIND: dict[str, list[tuple[Any, Any]]] = {
    "pattern": _PATTERNS,
    "length": _LENGTHS,
    "number": _NUMBERS,
    "type": _TYPES,
    "enum": _ENUMS,
    "union": _UNIONS,
    "not expressible": _NOT_EXPRESSIBLE,
    "object": _OBJECTS,
    "array": _ARRAYS,
    "format": _FORMATS,
}


def _whole_schemas() -> Iterator[OddSchema]:
    for name in _NAMES:
        properties = {name: STRING}
        yield OddSchema("name", _with_name(properties), {name: "x", "name": "A"})
    for kind, cases in (("reference", _references()), ("root", _roots())):
        for schema, more in cases:
            yield OddSchema(kind, schema, {"name": "A", **more})


def _references() -> Iterator[tuple[Schema, dict[str, Any]]]:
    address = obj("s", s={"enum": ["S"]})
    s = {"s": "S"}
    yield _with_name({"p": address, "q": {"$ref": "#/properties/p"}}), {"q": s}
    yield _with_name({"l": _array(address), "m": {"$ref": "#/properties/l/items"}}), {"m": s}
    null = {"anyOf": [{"$ref": "#/properties/p"}, {"type": "null"}]}
    yield _with_name({"p": address, "q": null}), {"q": None}
    tree = obj(n=INTEGER, sub={"anyOf": [{"$ref": "#/properties/f"}, {"type": "null"}]})
    yield _with_name({"f": tree}), {"f": {"n": 1, "sub": {"sub": None, "n": 2}}}
    yield _with_name({"v": {"$ref": "#"}}), {"v": {"name": "A"}}
    yield _with_name({"v": {"$ref": "#"}}, required=["v"]), {"v": {"name": "A", "v": 1}}
    yield _with_name({"v": {"$ref": "#/properties/v"}}), {"v": 1}
    loop = {"v": {"$ref": "#/properties/w"}, "w": {"$ref": "#/properties/v"}}
    yield _with_name(loop), {"v": 1, "w": 2}
    yield _with_name({"v": {"$ref": "#/$defs/Gone"}}), {"v": 1}
    yield _with_name({"v": {"$ref": "https://example.com/s.json"}}), {"v": 1}
    yield _with_name({"v": {"$ref": "other.json#/$defs/a"}}), {"v": 1}
    yield _with_name({"v": {"$ref": None}}), {"v": 1}
    yield _with_name({"v": {"$ref": 3}}), {"v": 1}
    yield _with_name({"v": {"$ref": ""}}), {"v": {"name": "A"}}
    yield _with_name({"v": {"$ref": "#/$defs/N"}}, **{"$defs": {"N": INTEGER}}), {"v": 5}
    yield _with_name({"v": {"$ref": "#/definitions/N"}}, definitions={"N": INTEGER}), {"v": 5}
    components = {"schemas": {"N": obj(a=INTEGER)}}
    yield _with_name({"v": {"$ref": "#/components/schemas/N"}}, components=components), {"v": {}}
    inner = {"type": "object", "$defs": {"N": INTEGER}, "properties": {}}
    yield _with_name({"o": inner, "v": {"$ref": "#/properties/o/$defs/N"}}), {"v": 5}
    yield _with_name({"v": {"$ref": "#/$defs/a~1b"}}, **{"$defs": {"a/b": INTEGER}}), {"v": 5}
    yield _with_name({"v": {"$ref": "#/$defs/a%20b"}}, **{"$defs": {"a b": INTEGER}}), {"v": 5}
    yield _with_name({"v": {"$ref": "#/$defs/é"}}, **{"$defs": {"é": INTEGER}}), {"v": 5}
    yield (
        _with_name({"v": {"$ref": "#N"}}, **{"$defs": {"x": {"$anchor": "N", **INTEGER}}}),
        {"v": 5},
    )
    with_more = {"$ref": "#/$defs/S", "description": "d", "maxLength": 3}
    yield _with_name({"v": with_more}, **{"$defs": {"S": STRING}}), {"v": "abc"}
    both = {"$ref": "#/$defs/S", "type": "integer"}
    yield _with_name({"v": both}, **{"$defs": {"S": STRING}}), {"v": 3}
    more = {"$ref": "#/$defs/O", "properties": {"b": INTEGER}}
    yield _with_name({"v": more}, **{"$defs": {"O": obj(a=INTEGER)}}), {"v": {"a": 1, "b": 2}}
    node = obj("next", next={"$ref": "#/$defs/n"})
    yield _with_name({"v": {"$ref": "#/$defs/n"}}, **{"$defs": {"n": node}}), {"v": {"next": 1}}
    kids = obj("kids", kids=_array({"$ref": "#/$defs/n"}))
    yield (
        _with_name({"v": {"$ref": "#/$defs/n"}}, **{"$defs": {"n": kids}}),
        {"v": {"kids": [{"kids": []}]}},
    )
    few = obj("kids", kids=_array({"$ref": "#/$defs/n"}, minItems=1))
    yield _with_name({"v": {"$ref": "#/$defs/n"}}, **{"$defs": {"n": few}}), {"v": {"kids": [1]}}
    mutual = {"a": obj(b={"$ref": "#/$defs/b"}), "b": obj(a={"$ref": "#/$defs/a"})}
    yield _with_name({"v": {"$ref": "#/$defs/a"}}, **{"$defs": mutual}), {"v": {"b": {"a": {}}}}
    union = {"oneOf": [{"$ref": "#/$defs/c"}, {"$ref": "#/$defs/r"}], "discriminator": {"x": 1}}
    shapes = {t: obj("kind", kind={"const": t}, **{t: INTEGER}) for t in "cr"}
    yield _with_name({"v": union}, **{"$defs": shapes}), {"v": {"kind": "r", "r": 1}}
    chain = {f"c{at}": {"$ref": f"#/$defs/c{at + 1}"} for at in range(9)} | {"c9": INTEGER}
    yield _with_name({"v": {"$ref": "#/$defs/c0"}}, **{"$defs": chain}), {"v": 5}
    yield _with_name({"v": {"$recursiveRef": "#"}}), {"v": {"name": "A"}}
    yield _with_name({"v": {"$ref": "#/$defs/N"}}, **{"$defs": None}), {"v": 1}
    yield _with_name({"v": {"$ref": "#/required/0"}}), {"v": 1}
    deep = {"$ref": "#/$defs/j"}
    json_value = {"anyOf": [STRING, _array(deep), {"type": "object", "additionalProperties": deep}]}
    yield _with_name({"v": deep}, **{"$defs": {"j": json_value}}), {"v": [["a"], {"b": "c"}]}


def _roots() -> Iterator[tuple[Any, dict[str, Any]]]:
    letters = dict.fromkeys(string.ascii_lowercase, STRING)
    either = [{"required": ["a"]}, {"required": ["b"]}]
    yield _with_name({"a": STRING, "b": STRING}, anyOf=either), {"b": "x"}
    yield _with_name({"a": STRING, "b": STRING}, oneOf=either), {"a": "x"}
    yield _with_name({}, allOf=[obj("a", a=STRING), {"required": ["name"]}]), {"a": "x"}
    yield {"anyOf": [_with_name({"a": STRING}), _with_name({"b": INTEGER})]}, {"b": 1}
    yield {"oneOf": [_with_name({"a": STRING}), _with_name({"b": INTEGER})]}, {"a": "x"}
    yield {"$ref": "#/$defs/T", "$defs": {"T": _with_name({"a": STRING})}}, {"a": "x"}
    yield {"type": "object", "$ref": "#/$defs/T", "$defs": {"T": _with_name({"a": STRING})}}, {}
    yield _with_name({"a": STRING}, **{"not": {"required": ["a"]}}), {}
    yield (
        _with_name({"a": STRING}, **{"if": {"required": ["a"]}, "then": obj(b=STRING)}),
        {"b": "x"},
    )
    yield _with_name({"a": STRING}, additionalProperties=STRING), {"a": "x", "zz": "y"}
    yield _with_name({"a": STRING}, additionalProperties=True), {"a": "x"}
    yield _with_name({"a": STRING}, patternProperties={"^x-": INTEGER}), {"a": "x", "x-y": 3}
    yield _with_name({"a": STRING}, patternProperties={"^a$": INTEGER}), {"a": "x"}
    yield _with_name({"a": STRING}, patternProperties={"(": INTEGER}), {"a": "x"}
    yield _with_name({"a": STRING}, unevaluatedProperties=False, minProperties=1), {"a": "x"}
    yield _with_name(letters, maxProperties=3), {"q": "x"}
    yield _with_name({"a": STRING}, required=["b", "c"]), {"b": 1, "c": 2}
    yield _with_name({"a": STRING}, type=["object", "null"]), {"a": "x"}
    yield _with_name({"a": STRING}, type="any"), {"a": "x"}
    yield _with_name({"a": STRING}, type=None), {"a": "x"}
    yield _with_name({f"p{at}": STRING for at in range(400)}), {"p399": "x"}
    yield _with_name({"a": STRING}, anyOf=None, allOf="x", oneOf={}), {"a": "x"}
    yield _with_name({"a": STRING}, **{"$schema": 3, "$id": "#", "$comment": None}), {"a": "x"}
    wide = {"anyOf": [obj(**{f"k{number}": STRING}) for number in range(9)]}
    yield _with_name({}, allOf=[wide] * 9), {}
    pages = {"page": {**INTEGER, "minimum": 1, "default": 1}, "tags": _array(STRING)}
    yield _with_name(pages, additionalProperties=False, title="Search"), {"page": 2, "tags": ["a"]}
    github = {"owner": STRING, "labels": _array({"anyOf": [STRING, obj("name", name=STRING)]})}
    yield _with_name(github), {"owner": "o", "labels": [{"name": "x"}, "y"]}
    zod = {"p": {"anyOf": [{"not": {}}, STRING]}, "n": {"type": "number", "exclusiveMinimum": True}}
    yield (
        _with_name(zod, **{"$schema": "http://json-schema.org/draft-07/schema#"}),
        {"p": "x", "n": 1},
    )
    filters = _array(obj("field", field={"enum": ["a", "b"]}, op=STRING, value={}), minItems=1)
    yield _with_name({"filters": filters}), {"filters": [{"value": [1], "op": "=", "field": "b"}]}
