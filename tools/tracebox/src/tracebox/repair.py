"""Repairs OTLP requests that protobuf rejects as a whole because of one value in them.

Protobuf for Python cannot read text that is not UTF-8, or messages that are nested too deeply; exporters and collectors
in other languages accept both. Here each part is read on its own, by a twin of its type in which texts and inner
messages are bytes, so that only the broken part is lost.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FieldDescriptor

MAX_DEPTH = 64
"""The maximum depth of messages in a repaired message; protobuf reads 100."""

_TEXT, _BYTES, _MESSAGE = (getattr(FieldDescriptorProto, f"TYPE_{name}") for name in ("STRING", "BYTES", "MESSAGE"))
_ENUM, _INTEGER = FieldDescriptorProto.TYPE_ENUM, FieldDescriptorProto.TYPE_INT32


def repair(descriptor: Descriptor, encoded: bytes, depth: int = 0) -> bytes:
    """The encoded message, such that it can be read: text gets U+FFFD, and inner messages that are broken are empty.

    Raises:
        DecodeError: the message itself is broken.
    """
    twin = _twin(descriptor)()
    twin.ParseFromString(encoded)
    for field, value in twin.ListFields():
        original = descriptor.fields_by_number[field.number]
        if original.type in (_TEXT, _MESSAGE):
            parts = value if original.is_repeated else [value]
            _set(twin, field.name, [_part(original, part, depth + 1) for part in parts], repeated=original.is_repeated)
    result: bytes = twin.SerializeToString()
    return result


def _part(field: FieldDescriptor, encoded: bytes, depth: int) -> bytes:
    if field.message_type is None:
        return encoded.decode(errors="replace").encode()
    try:
        return repair(field.message_type, encoded, depth) if depth <= MAX_DEPTH else b""
    except DecodeError:
        return b""


def _set(twin: Any, name: str, parts: list[bytes], *, repeated: bool) -> None:
    if repeated:
        twin.ClearField(name)
        getattr(twin, name).extend(parts)
    else:
        setattr(twin, name, parts[0])


@cache
def _twin(descriptor: Descriptor) -> Any:
    """The class of messages with the same fields, in which texts and messages are bytes."""
    file = FileDescriptorProto(
        name=descriptor.full_name, package="twins", syntax="proto2"
    )  # in which every field has presence
    message = file.message_type.add()
    descriptor.CopyToProto(message)
    for field in message.field:
        field.ClearField("proto3_optional")
        if field.type in (_TEXT, _MESSAGE, _ENUM):
            field.type = _INTEGER if field.type == _ENUM else _BYTES
            field.ClearField("type_name")
    for part in ("nested_type", "enum_type"):
        message.ClearField(part)
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName(f"twins.{message.name}"))
