"""What the tools of `kubernetes_readonly` answer."""

from __future__ import annotations

from pydantic import BaseModel


class KindInfo(BaseModel):
    """A kind of object."""

    name: str
    kind: str
    namespaced: bool


class Kinds(BaseModel):
    """What kinds of objects the cluster has."""

    kinds: list[KindInfo]


class Item(BaseModel):
    """An object of a list."""

    namespace: str
    name: str
    age: str
    status: str


class Items(BaseModel):
    """A list of objects; with `continue_token` the same tool goes on."""

    kind: str
    items: list[Item]
    continue_token: str


class Event(BaseModel):
    """Something that happened to an object."""

    when: str
    type: str
    reason: str
    about: str
    count: int
    message: str


class Events(BaseModel):
    """What happened, the newest first."""

    events: list[Event]


class Text(BaseModel):
    """Text, perhaps cut."""

    text: str
    truncated: bool
