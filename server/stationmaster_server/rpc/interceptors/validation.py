"""Checks every request message against the rules in its proto (protovalidate)."""

from __future__ import annotations

from google.protobuf.message import Message
from protovalidate import Validator, Violation

from stationmaster_server.errors import FieldViolation, InvalidArgument, Reason
from stationmaster_server.rpc.interceptors.base import Each, Interceptor
from stationmaster_server.rpc.method import Method
from stationmaster_server.wire import rules

_VALIDATOR = Validator()
"""One for all messages of a process: it keeps the rules that it has compiled, and nothing else."""


class Validation(Interceptor):
    """Compiles the rules of a message when its method is registered."""

    def each(self, method: Method) -> Each | None:
        """Return the check; None for messages of others. A rule that does not compile stops the start."""
        if method.open:
            return None
        collect = _VALIDATOR.collect_violations
        collect(method.request_type())

        def check(request: Message) -> None:
            if violations := collect(request):
                found = [FieldViolation(_path(violation), _text(violation)) for violation in violations]
                first = found[0]
                more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
                raise InvalidArgument(Reason.INVALID_FIELD, f"{first.field}: {first.description}{more}", *found)

        return check


def _path(violation: Violation) -> str:
    """The field's path as people write it: `agent.spec.tools[1]`."""
    field = violation.proto.field
    parts: list[str] = []
    for element in field.elements if field else ():
        subscript = element.subscript
        key = "" if subscript is None else f"[{subscript.value}]"
        parts.append(f"{element.field_name}{key}")
    return ".".join(parts) or "request"


def _text(violation: Violation) -> str:
    said = violation.proto.message or violation.proto.rule_id
    match violation.proto.rule_id:
        case "string.pattern":
            return rules.of_pattern(str(violation.rule_value)) or said
        case rule if rule.startswith("duration."):
            return rules.of_time(said)
        case _:
            return said
