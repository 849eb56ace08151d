"""The contract as data: every method of every service, read from the descriptors. A new method is in here by itself."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import stationmaster.v1
from buf.validate import validate_pb2
from google.api import annotations_pb2, field_behavior_pb2, resource_pb2  # noqa: F401
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from stationmaster.v1 import options_pb2

PACKAGE = "stationmaster.v1"


@dataclass(frozen=True)
class Method:
    """One RPC."""

    descriptor: MethodDescriptor

    @property
    def path(self) -> str:
        """As it is called: `/package.Service/Method`."""
        return f"/{self.descriptor.containing_service.full_name}/{self.descriptor.name}"

    @property
    def name(self) -> str:
        """`Service.Method`."""
        return f"{self.descriptor.containing_service.name}.{self.descriptor.name}"

    @property
    def request(self) -> Descriptor:
        """The request's descriptor."""
        return self.descriptor.input_type

    @property
    def request_class(self) -> type[Message]:
        """The request's class."""
        return message_factory.GetMessageClass(self.descriptor.input_type)

    @property
    def response_class(self) -> type[Message]:
        """The response's class."""
        return message_factory.GetMessageClass(self.descriptor.output_type)

    @property
    def streams(self) -> bool:
        """Whether the server answers with a stream."""
        proto = descriptor_pb2.MethodDescriptorProto()
        self.descriptor.CopyToProto(proto)
        return proto.server_streaming

    @property
    def mutates(self) -> bool:
        """Whether it may change anything."""
        options = self.descriptor.GetOptions()
        return bool(options.idempotency_level != descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS)

    @property
    def scope(self) -> str:
        """The scope that it needs."""
        return str(option(self.descriptor, options_pb2.scope))


@cache
def methods() -> list[Method]:
    """Every method of the package, by name."""
    found = [
        Method(method) for file in files() for service in file.services_by_name.values() for method in service.methods
    ]
    return sorted(found, key=lambda method: method.name)


@cache
def files() -> list[descriptor_pool.FileDescriptor]:  # type: ignore[name-defined]
    """Every proto file of the package."""
    names = [module.name for module in pkgutil.iter_modules(stationmaster.v1.__path__) if module.name.endswith("_pb2")]
    return [importlib.import_module(f"{PACKAGE}.{name}").DESCRIPTOR for name in names]


def messages() -> Iterator[Descriptor]:
    """Every message of the package, nested ones too, map entries not."""
    for file in files():
        for message in file.message_types_by_name.values():
            yield from _nested(message)


def _nested(message: Descriptor) -> Iterator[Descriptor]:
    if not message.GetOptions().map_entry:
        yield message
        for inner in message.nested_types:
            yield from _nested(inner)


def enums() -> Iterator[EnumDescriptor]:
    """Every enum of the package."""
    for file in files():
        yield from file.enum_types_by_name.values()
    for message in messages():
        yield from message.enum_types


def option(thing: Any, extension: Any) -> Any:
    """An option of ours or of Google's on a field, message or method."""
    return thing.GetOptions().Extensions[extension]


def message_type(field: FieldDescriptor) -> Descriptor:
    """The type of a field that holds messages."""
    if field.message_type is None:
        raise TypeError(f"{field.full_name} holds no message")
    return field.message_type


def behaviors(field: FieldDescriptor) -> set[int]:
    """The field's `google.api.field_behavior`."""
    return set(option(field, field_behavior_pb2.field_behavior))


def reference(field: FieldDescriptor) -> str:
    """The type of resource that the field names, for example `stationmaster.dev/Session`; empty for other fields."""
    return str(option(field, resource_pb2.resource_reference).type)


def rules(field: FieldDescriptor) -> validate_pb2.FieldRules:
    """The field's validation rules."""
    found: validate_pb2.FieldRules = option(field, validate_pb2.field)
    return found


def is_repeated(field: FieldDescriptor) -> bool:
    """Whether the field is a list or map."""
    return bool(field.is_repeated)


def name_fields(request: Descriptor, prefix: str = "") -> Iterator[str]:
    """The paths of the fields of a request that name a resource: `name`, `session.name`, `api_key.user`."""
    for field in request.fields:
        if field.type != FieldDescriptor.TYPE_MESSAGE:
            if reference(field):
                yield prefix + field.name
        elif not is_repeated(field) and message_type(field).file.package == PACKAGE and not prefix:
            if reference(field):
                yield f"{field.name}.name"
            elif field_behavior_pb2.OUTPUT_ONLY not in behaviors(field):
                yield from name_fields(message_type(field), f"{field.name}.")
