"""Plain data as YAML, and dotted keys (`upstream.ttl`, `ldap.0.urls`) into plain data."""

from __future__ import annotations

import json
import re
from typing import Any

PLAIN = re.compile(r"[A-Za-z0-9_/][A-Za-z0-9_./@-]*$")
NOT_PLAIN = {"null", "true", "false", "yes", "no", "on", "off", "~"}


def dump(value: Any, indent: int = 0) -> str:
    """Block style for maps and for lists of maps; None is left out."""
    pad = " " * indent
    if isinstance(value, dict):
        out = ""
        for key, item in value.items():
            if item is None:
                continue
            nested = isinstance(item, dict) and item or isinstance(item, list) and any(isinstance(each, dict) for each in item)
            out += f"{pad}{key}:\n{dump(item, indent + 2)}" if nested else f"{pad}{key}: {flow(item)}\n"
        return out
    if isinstance(value, list):
        out = ""
        for item in value:
            text = dump(item, indent + 2) if isinstance(item, dict) else f"{pad}  {flow(item)}\n"
            out += f"{pad}- {text[indent + 2:]}"
        return out
    return f"{pad}{flow(value)}\n"


def flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    return text if PLAIN.match(text) and text.lower() not in NOT_PLAIN else json.dumps(text, ensure_ascii=False)


def parse_value(text: str) -> Any:
    """The value of --set: a list or map written as JSON, else the text itself."""
    return json.loads(text) if text[:1] in ("[", "{") else text


def put(data: Any, key: str, value: Any) -> None:
    """Set a dotted key; a value of None takes it away."""
    *path, last = key.split(".")
    for part in path:
        if isinstance(data, list):
            data = data[int(part)]
        else:
            if not isinstance(data.get(part), (dict, list)):
                data[part] = {}
            data = data[part]
    if isinstance(data, list):
        data[int(last)] = value
    elif value is None:
        data.pop(last, None)
    else:
        data[last] = value
