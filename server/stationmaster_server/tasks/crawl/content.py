"""What a body is, by its content type or its first bytes, and its text whatever its encoding."""

from __future__ import annotations

import codecs
import re
from email.message import Message
from enum import StrEnum


class Kind(StrEnum):
    """What the crawler can read."""

    HTML = "HTML"
    MARKDOWN = "MARKDOWN"
    TEXT = "TEXT"
    XML = "XML"


_KINDS = {
    "text/html": Kind.HTML,
    "application/xhtml+xml": Kind.HTML,
    "text/markdown": Kind.MARKDOWN,
    "text/x-markdown": Kind.MARKDOWN,
    "text/plain": Kind.TEXT,
    "text/xml": Kind.XML,
    "application/xml": Kind.XML,
}
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_META = re.compile(rb"<meta[^>]{1,200}?charset\s{0,9}=\s{0,9}[\"']?\s{0,9}([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
_XML = re.compile(rb"^\s{0,99}<\?xml[^>]{1,200}?encoding\s{0,9}=\s{0,9}[\"']([A-Za-z0-9_.:-]{1,40})")
_SNIFFED = 1024
# Codecs of text that pages use; Python knows others, which are no encodings of characters or unsafe ones.
_CODECS = re.compile(
    r"utf-8|utf-16(-[lb]e)?|iso8859-\d+|cp(125\d|866|874|932|949|950)|koi8-[ru]|mac-(roman|cyrillic)|gbk|gb2312|gb18030"
    r"|big5(hkscs)?|euc_(jp|kr)|shift_jis|iso2022_jp"
)


def media_type(content_type: str) -> str:
    """The type of a Content-Type header without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def is_readable(content_type: str) -> bool:
    """Whether a body of this type may be one that the crawler reads; one without a type may."""
    kind = media_type(content_type)
    return not kind or kind in _KINDS or kind.endswith("+xml")


def kind_of(content_type: str, body: bytes) -> Kind | None:
    """What a body is; None for what the crawler does not read."""
    kind = media_type(content_type)
    if kind:
        return _KINDS.get(kind, Kind.XML if kind.endswith("+xml") else None)
    start = body[:_SNIFFED].lstrip(codecs.BOM_UTF8).lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return Kind.HTML
    if start.startswith(b"<?xml"):
        return Kind.XML
    return None if b"\0" in start else Kind.TEXT


def decode(content_type: str, body: bytes) -> str:
    """The text of a body: by its byte order mark, its header, what it says of itself, else UTF-8 or Windows-1252.

    Broken bytes become U+FFFD; so does NUL, which PostgreSQL does not store.
    """
    for mark, codec in _BOMS:
        if body.startswith(mark):
            return _clean(body[len(mark) :].decode(codec, "replace"))
    start = body[:_SNIFFED]
    declared = _META.search(start) or _XML.search(start)
    for label in (_charset(content_type), declared.group(1).decode("ascii") if declared else ""):
        known = _codec(label)
        if known:
            return _clean(body.decode(known, "replace"))
    try:
        return _clean(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        # Nearly all of it UTF-8 is UTF-8 with a fault; a cut at the end is one as well.
        broken = body.decode("utf-8", "replace")
        mostly = error.start > len(body) // 2 or broken.count("\ufffd") * 100 < len(broken)
        return _clean(broken if mostly else body.decode("cp1252", "replace"))


def _charset(content_type: str) -> str:
    message = Message()
    message["content-type"] = content_type
    return str(message.get_param("charset") or "")


def _codec(label: str) -> str:
    try:
        name = codecs.lookup(label.strip().strip("\"'")).name if label else ""
    except (LookupError, ValueError):
        return ""
    if name in ("ascii", "iso8859-1"):
        return "cp1252"  # what browsers read for these labels
    return name if _CODECS.fullmatch(name) else ""


def _clean(text: str) -> str:
    return text.replace("\0", "\ufffd")
