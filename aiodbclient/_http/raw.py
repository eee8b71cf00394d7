"""Send API calls that have no method of their own (``client.request``)."""

from __future__ import annotations

import json as json_module
import re
from collections.abc import Mapping, Sequence
from urllib.parse import unquote, urlencode

from .._checks import shown
from ..errors import InvalidArgumentError
from .call import Call, Options
from .operations import Operation

JSON = Mapping[str, "JSON"] | Sequence["JSON"] | str | int | float | bool | None
Params = Mapping[str, str | int | float | bool | Sequence[str | int | float | bool]]

_OPERATIONS = {
    method: Operation("request", method, "", idempotent=method not in ("POST", "PATCH"))
    for method in ("GET", "HEAD", "PUT", "DELETE", "POST", "PATCH")
}
# RFC 3986 (3.3): a path of non-empty segments.
_PATH = re.compile(r"/v2(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+)+")
_TRICK = re.compile(r"%[0-9A-Fa-f]{2}|[\x00-\x1f\x7f]")
_MAX_PATH = 8 << 10  # characters, with the query
_MAX_BODY = 1 << 20  # bytes


def raw_call(options: Options, method: str, path: str, params: Params | None = None, json: JSON = None) -> Call:
    """Make a call of the arguments of ``DatabaseClient.request``, and send nothing."""
    operation = _OPERATIONS.get(method.upper()) if isinstance(method, str) else None
    if operation is None:
        raise InvalidArgumentError(
            f"method must be one of {', '.join(_OPERATIONS)}, not {shown(method)}; nothing was sent"
        )
    target = _checked_path(path) + _query(params)
    if len(target) > _MAX_PATH:
        raise InvalidArgumentError(f"path and params are longer than {_MAX_PATH:,} characters; nothing was sent")
    return Call(operation, target, options, body=None if json is None else _encoded(json))


def _checked_path(path: object) -> str:
    """Return ``path`` if every server and proxy resolves it to the same path below ``/v2/``."""
    if not isinstance(path, str):
        raise InvalidArgumentError(f"path must be a string, not {type(path).__name__}; nothing was sent")
    if not _PATH.fullmatch(path):
        raise InvalidArgumentError(
            "path must be like /v2/databases/options: below /v2/, without host, query or fragment (pass params=), "
            "with names percent-encoded by urllib.parse.quote(name, safe=''); nothing was sent"
        )
    # Some servers decode a path before they resolve its dots, and some drop everything after a semicolon.
    parts = re.split(r"[/\\]", unquote(path, errors="replace"))
    if any(part.partition(";")[0] in (".", "..") or _TRICK.search(part) for part in parts):
        raise InvalidArgumentError(
            "path must not hold '.' or '..', control characters or text that is percent-encoded twice; nothing was sent"
        )
    return path


def _query(params: Params | None) -> str:
    if not isinstance(params, Mapping | None):
        raise InvalidArgumentError(f"params must be a mapping, not {type(params).__name__}; nothing was sent")
    pairs: list[tuple[str, str]] = []
    for name, given in (params or {}).items():
        for value in (given,) if isinstance(given, str) or not isinstance(given, Sequence) else given:
            if not isinstance(value, str | int | float):
                raise InvalidArgumentError(
                    f"params[{shown(name)}] must be a string, a number, a bool or a sequence of them, "
                    f"not {type(value).__name__}; nothing was sent"
                )
            pairs.append((name, str(value).lower() if isinstance(value, bool) else str(value)))
    try:
        return f"?{urlencode(pairs)}" if pairs else ""
    except UnicodeEncodeError:
        pass
    raise InvalidArgumentError("params hold text that cannot be encoded as UTF-8; nothing was sent")


def _encoded(json: JSON) -> bytes:
    try:
        encoded = json_module.dumps(json, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        problem = f"cannot be represented in JSON: {error}"
    else:
        if len(encoded) <= _MAX_BODY:
            return encoded
        problem = f"is longer than {_MAX_BODY >> 20} MiB"
    raise InvalidArgumentError(f"json {problem}; nothing was sent")
