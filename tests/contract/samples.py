"""Messages made from descriptors: the smallest valid one, and random ones that respect nothing but the wire's types."""

from __future__ import annotations

import random
import string
import uuid
from collections.abc import Mapping

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tests.contract.descriptors import behaviors, message_type, reference, rules

_INTEGERS = [0, 1, -1, 2, 49, 50, 51, 1000, 1001, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63)]
_TEXTS = [
    "",
    " ",
    "a",
    "-",
    "*",
    "\x00",
    "\n",
    "é",
    "𝄞",
    "ﬁ",
    "\u202e",
    "' OR 1=1 --",
    "%",
    "_",
    "../..",
    "{{7*7}}",
    "null",
    "NaN",
]
_FLOATS = [0.0, -0.0, 1.0, -1.0, 1e308, -1e308, float("inf"), float("-inf"), float("nan"), 5e-324]


def smallest(descriptor: Descriptor, names: Mapping[str, str]) -> Message:
    """A message with what is required and nothing else; `names` has a resource's name by its type."""
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if field_behavior_pb2.REQUIRED in behaviors(field) or rules(field).required:
            _fill(message, field, names)
    return message


def _fill(message: Message, field: FieldDescriptor, names: Mapping[str, str]) -> None:
    if field.is_repeated and field.type == FieldDescriptor.TYPE_MESSAGE:
        getattr(message, field.name).append(smallest(message_type(field), names))
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        getattr(message, field.name).CopyFrom(smallest(message_type(field), names))
        if reference(field):
            getattr(message, field.name).name = names[reference(field)]
    elif field.type == FieldDescriptor.TYPE_ENUM:
        setattr(message, field.name, 1)
    elif reference(field):
        setattr(message, field.name, names[reference(field)])
    elif field.name == "model":
        setattr(message, field.name, "demo")
    elif field.type == FieldDescriptor.TYPE_STRING:
        setattr(message, field.name, "sample")
    else:
        setattr(message, field.name, 1)


def put(message: Message, path: str, value: str) -> None:
    """Set a field by its path, `session.name`."""
    *parents, last = path.split(".")
    for parent in parents:
        message = getattr(message, parent)
    setattr(message, last, value)


class Fuzzer:
    """Random messages: each field absent, at a boundary, random, or the name of something that exists."""

    def __init__(self, seed: int, names: Mapping[str, list[str]]) -> None:
        self._random = random.Random(seed)
        self._names = names

    def message(self, descriptor: Descriptor, depth: int = 0) -> Message:
        """One random message of this type."""
        message = GetMessageClass(descriptor)()
        for field in descriptor.fields:
            if self._random.random() < 0.35 or depth > 4:
                continue
            if field.is_repeated:
                self._repeat(message, field, depth)
            elif field.type == FieldDescriptor.TYPE_MESSAGE:
                getattr(message, field.name).CopyFrom(self.message(message_type(field), depth + 1))
            else:
                setattr(message, field.name, self._scalar(field))
        return message

    def _repeat(self, message: Message, field: FieldDescriptor, depth: int) -> None:
        count = self._random.choice([0, 1, 2, 5, 300 if depth == 0 else 3])
        container = getattr(message, field.name)
        for _ in range(count):
            if field.type != FieldDescriptor.TYPE_MESSAGE:
                container.append(self._scalar(field))
            elif message_type(field).GetOptions().map_entry:
                key, value = (message_type(field).fields_by_name[name] for name in ("key", "value"))
                if value.type == FieldDescriptor.TYPE_MESSAGE:
                    container[self._scalar(key)].CopyFrom(self.message(message_type(value), depth + 1))
                else:
                    container[self._scalar(key)] = self._scalar(value)
            else:
                container.add().CopyFrom(self.message(message_type(field), depth + 1))

    def _scalar(self, field: FieldDescriptor) -> object:
        if field.type == FieldDescriptor.TYPE_STRING:
            return self._text(field)
        if field.type == FieldDescriptor.TYPE_BYTES:
            return self._random.randbytes(self._random.choice([0, 1, 100]))
        if field.type == FieldDescriptor.TYPE_BOOL:
            return self._random.random() < 0.5
        if field.type == FieldDescriptor.TYPE_ENUM:
            return self._random.choice([0, 1, 2, 3, 9, 99, -1, 2**31 - 1])
        if field.type in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
            return self._random.choice([*_FLOATS, self._random.random()])
        return self._integer(field)

    def _integer(self, field: FieldDescriptor) -> int:
        value = self._random.choice([*_INTEGERS, self._random.randint(-(2**63), 2**63 - 1)])
        if field.type in (FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_UINT32):
            value = abs(value)
        narrow = field.type in (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_SINT32)
        return value % 2**31 if narrow and not -(2**31) <= value < 2**31 else value

    def _text(self, field: FieldDescriptor) -> str:
        known = self._names.get(reference(field)) or [name for names in self._names.values() for name in names]
        choices = [
            lambda: self._random.choice(known),
            lambda: self._random.choice(known),
            lambda: self._random.choice(_TEXTS),
            lambda: str(uuid.UUID(int=self._random.getrandbits(128))),
            lambda: "".join(self._random.choices(string.printable, k=self._random.randint(0, 40))),
            lambda: "".join(chr(self._random.choice([0, 9, 127, 0x2028, 0xFFFD, 0x1F600, 0xE9])) for _ in range(9)),
            lambda: "x" * self._random.choice([63, 64, 200, 201, 1000, 2048, 4001, 70_000]),
            lambda: self._random.choice(
                ["state = ACTIVE", "create_time > 5", "((", 'name:"', "a AND", "create_time desc"]
            ),
        ]
        return self._random.choice(choices)()
