"""Convert values to bytes and back.

The wire form is JSON, written by orjson, and stored as bytes with an encoding number. A value is
read by its *annotation*, through pydantic in strict mode, and comes back as what it was:
dataclasses, TypedDicts, pydantic models, unions of them, enums, datetimes with their zones, UUIDs,
Decimals, bytes, tuples and sets.

An annotated value is also written by its annotation. A value that would come back as another one is
refused, with its field and the remedy. An annotation whose values can never come back is refused at
its registration. Without an annotation a value is written by its own type, and read as plain JSON.

Code always receives the decoded form, in the first run and on replay.
"""

from orchestra.codec.decoding import (
    PLAIN,
    ArgumentsReader,
    Decoder,
    arguments_decoder,
    decoder,
    encode_arguments,
    plain,
    raw,
    repacked,
    without_secrets,
)
from orchestra.codec.losses import lost_field
from orchestra.codec.payloads import (
    DEFAULT_PAYLOAD_LIMIT,
    EMPTY,
    JSON,
    Packed,
    Payload,
    UserText,
    dump_json,
    load_json,
    pack,
    pack_lines,
    pack_text,
    pack_value,
    unpack,
)
from orchestra.codec.sealed import (
    SEALED,
    Unopened,
    as_payload,
    is_sealed,
    require_opened,
    require_opened_facts,
    unreadable,
)
from orchestra.codec.secrets import MASK, Secret
from orchestra.codec.values import encode

__all__ = [
    "DEFAULT_PAYLOAD_LIMIT",
    "EMPTY",
    "JSON",
    "MASK",
    "PLAIN",
    "SEALED",
    "ArgumentsReader",
    "Decoder",
    "Packed",
    "Payload",
    "Secret",
    "Unopened",
    "UserText",
    "arguments_decoder",
    "as_payload",
    "decoder",
    "dump_json",
    "encode",
    "encode_arguments",
    "is_sealed",
    "load_json",
    "lost_field",
    "pack",
    "pack_lines",
    "pack_text",
    "pack_value",
    "plain",
    "raw",
    "repacked",
    "require_opened",
    "require_opened_facts",
    "unpack",
    "unreadable",
    "without_secrets",
]
