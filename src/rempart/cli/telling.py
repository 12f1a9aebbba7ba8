"""`story`, `full`, `line`, `hit`, `counted` and `ranges`: entries of the ledger for people to read (pure).

What was said comes from clients and engines: control characters other than line feeds and tabs are shown as escapes,
so that no text can move the cursor of the terminal or hide a part of itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from rempart.ledger.reading.archive import Hit
from rempart.ledger.reading.find import Found

_SEPARATOR: Final = " · "
_UNSAID: Final = "-"


def counted(number: int, one: str, many: str = "") -> str:
    """`1 exchange`, `2 exchanges`; `many` where it is not `one` and an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def ranges(indices: Iterable[int]) -> str:
    """`3, 7 to 9`."""
    found: list[list[int]] = []
    for index in sorted(indices):
        if found and found[-1][-1] == index - 1:
            found[-1][1:] = [index]
        else:
            found.append([index])
    return ", ".join(" to ".join(map(str, one)) for one in found)


def line(found: Found) -> str:
    """One entry as `ledger tail` prints it: index, time, type, and what it holds."""
    entry = found.entry
    return f"{found.index:>8}  {entry['time']}  {entry['type']:<9} {plain(_held(entry))}".rstrip()


def hit(found: Hit) -> str:
    """One result of a search, and under it who asked and where the words stand, as far as these were asked for."""
    who = found.actor or found.role
    facts = f"{found.time}  {found.exchange}  {found.outcome or 'read':<9}  {who:<34}  {found.model}"
    lines = [f"{found.index:>8}  {plain(facts)}".rstrip()]
    lines += [f"          {plain(text)}" for text in (found.identity, found.snippet) if text]
    return "\n".join(lines)


def full(found: Found) -> str:
    """Every field of an entry, and what was said, as JSON."""
    parts = [f"entry {found.index}", _pretty(found.entry)]
    if found.body is not None:
        parts += ["what was said", _pretty(found.body)]
    if found.unreadable:
        parts.append(f"what was said cannot be read: {found.unreadable}")
    return "\n".join(parts) + "\n"


def story(found: Sequence[Found], *, whole: bool = True, identity: str = "") -> str:
    """The entries of one exchange: a head, what was asked, what was answered. Of other entries their line.

    `whole`: these are all there are of it; `identity`: who its actor is, where that may be shown.
    """
    if any(one.entry["type"] not in ("request", "response") for one in found):
        return "\n".join(text for one in found for text in (line(one), *_said(one)))
    parts = [_head(found, whole)]
    if identity:
        parts.append(f"asked with a key of {plain(identity)}")
    for one in found:
        parts += _said(one)
    return "\n".join(parts)


def _head(found: Sequence[Found], whole: bool) -> str:
    """When, which role, which model, how it ended, what it took; then the names by which the ledger knows it."""
    fields: dict[str, Any] = {}
    for one in found:
        fields = {**one.entry, **fields, **{name: one.entry[name] for name in _LATER if name in one.entry}}
    facts = [
        str(fields["time"]),
        f"role {fields.get('role', _UNSAID)}",
        f"model {fields.get('model') or _UNSAID}",
    ]
    if whole or "outcome" in fields:
        facts += [f"outcome {_outcome(fields)}", _tokens(fields)]
    numbers = ", ".join(str(one.index) for one in found)
    entries = f"entry {numbers}" if len(found) == 1 else f"entries {numbers}"
    named = [f"exchange {fields['exchange']}", entries, f"key {fields.get('key', _UNSAID)}"]
    named += [f"actor {fields['actor']}"] if fields.get("actor") else []
    return f"{plain(_SEPARATOR.join(facts))}\n{plain(_SEPARATOR.join(named))}"


_LATER: Final = ("outcome", "status", "error", "finish", "tokens_prompt", "tokens_completion")


def _outcome(fields: Mapping[str, Any]) -> str:
    if "outcome" not in fields:
        return "none yet"
    told = [str(fields["outcome"])]
    if fields.get("error"):
        told.append(f"({fields['error']})")
    return " ".join(told)


def _tokens(fields: Mapping[str, Any]) -> str:
    if "tokens_prompt" not in fields:
        return "no tokens"
    return f"{fields['tokens_prompt']} + {fields['tokens_completion']} tokens"


def _said(found: Found) -> Iterator[str]:
    if found.unreadable:
        yield f"\n{found.entry['type']}: what was said cannot be read: {found.unreadable}"
        return
    if found.body is None:
        return
    body = found.body if isinstance(found.body, dict) else {}
    known = list(_texts(body))
    # Whatever has another shape than the API's is shown as it is; parameters and tools stand under --full.
    for title, text in known or [(str(found.entry["type"]), _pretty(found.body))]:
        yield f"\n{plain(title)}:\n{plain(text)}"


def _texts(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(who or what, text) of a request's or a response's content; none when its shape is not known."""
    request, response, error = body.get("request"), body.get("response"), body.get("error")
    if isinstance(request, dict):
        yield from _asked(request)
    elif request is not None:
        yield "request", _pretty(request)
    if isinstance(response, dict):
        yield from _answered(response)
    elif response is not None:
        yield "answer", _pretty(response)
    if isinstance(error, dict):
        yield "error", str(error.get("message", ""))


def _asked(request: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    messages = request.get("messages")
    if isinstance(messages, list):
        for message in messages:
            known = isinstance(message, dict)
            yield (str(message.get("role")), _message(message)) if known else ("message", _pretty(message))
    elif "prompt" in request:
        yield "prompt", _content(request["prompt"])
    elif "input" in request:
        yield "input", _content(request["input"])
    elif request:
        yield "request", _pretty(request)


def _answered(response: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    choices = response.get("choices")
    if not isinstance(choices, list):
        data = response.get("data")
        what = f"{len(data)} vectors" if isinstance(data, list) else _pretty(response)
        yield "answer", what
        return
    for number, choice in enumerate(choices):
        title = "answer" if len(choices) == 1 else f"answer {number + 1}"
        if not isinstance(choice, dict):
            yield title, _pretty(choice)
            continue
        message = choice.get("message")
        yield title, _message(message) if isinstance(message, dict) else _content(choice.get("text", ""))


def _message(message: Mapping[str, Any]) -> str:
    """Its text, and as JSON what else was said in it: calls of tools, reasoning, a refusal."""
    others = {name: value for name, value in message.items() if name not in ("role", "content") and value}
    parts = [_content(message.get("content"))] if message.get("content") else []
    return "\n".join(parts + ([_pretty(others)] if others else []))


def _content(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, dict) and set(part) == {"type", "text"} for part in content):
        return "\n".join(str(part["text"]) for part in content)
    if isinstance(content, list) and all(isinstance(part, str) for part in content):
        return "\n".join(content)
    return "" if content is None else _pretty(content)


def _held(entry: Mapping[str, Any]) -> str:
    """What an entry says, in words."""
    tell = _HELD.get(str(entry["type"]), _exchange)
    return tell(entry)


def _exchange(entry: Mapping[str, Any]) -> str:
    told = [str(entry[name]) for name in ("exchange", "model", "outcome", "error") if entry.get(name)]
    if "tokens_prompt" in entry:
        told.append(_tokens(entry))
    return " ".join(told)


def _start(entry: Mapping[str, Any]) -> str:
    told = f"rempart {entry.get('version', '')}, {counted(entry.get('lost', 0), 'exchange')} lost"
    behind = entry.get("clock_behind_s")
    continues = entry.get("continues")
    if continues:
        told += f", continues {continues.get('origin')} at entry {continues.get('size')}"
    return f"{told}, clock {behind} s behind" if behind else told


def _stop(entry: Mapping[str, Any]) -> str:
    return f"of the run {entry.get('boot', '')}"


def _key(entry: Mapping[str, Any]) -> str:
    told = [f"{entry.get('key', '')} {entry.get('change', '')}"]
    for name, unit in (
        ("role", ""),
        ("requests_per_minute", " requests/min"),
        ("tokens_per_day", " tokens/day"),
        ("models", " models"),
    ):
        if name in entry:
            told.append(f"{entry[name]}{unit}")
    return ", ".join(told)


def _read(entry: Mapping[str, Any]) -> str:
    told = [f"{entry.get('verb', '')} by {entry.get('role', '')}", f"{entry.get('found', 0)} found"]
    if entry.get("key") != entry.get("role"):
        told[0] += f" {entry.get('key', '')}"
    if entry.get("second"):
        told[0] += f" with {entry['second']}"
    if entry.get("bodies"):
        told.append(f"{entry['bodies']} of them with what was said")
    if entry.get("about"):
        told.append(f"exchange {entry['about']}")
    return ", ".join(told)


def _heartbeat(entry: Mapping[str, Any]) -> str:
    told = f"up {entry['up_s']:,} s" if "up_s" in entry else f"part {entry.get('part')}"
    counts = entry.get("engines") or {}
    done = [(name.rpartition(".")[0], count) for name, count in counts.items() if name.endswith(".answered")]
    return ", ".join([told, *(f"{name} answered {count:,}" for name, count in sorted(done))])


def _review(entry: Mapping[str, Any]) -> str:
    gaps = sum((entry.get("gaps") or {}).values())
    return f"entries {entry.get('first')} to {entry.get('last')}, {counted(gaps, 'gap')}, by {entry.get('by')}"


def _counts(name: str, unit: str) -> Callable[[Mapping[str, Any]], str]:
    def tell(entry: Mapping[str, Any]) -> str:
        counts = entry.get(name) or {}
        return ", ".join(f"{what} {count:,}{unit}" for what, count in sorted(counts.items())) or "none"

    return tell


def _config(entry: Mapping[str, Any]) -> str:
    settings = entry.get("settings") or {}
    # Paths and names are keyed hashes: they tell nobody anything on a line.
    return " ".join(f"{name}={_value(value)}" for name, value in sorted(settings.items()) if not _hashed(value))


def _destroyed(entry: Mapping[str, Any]) -> str:
    """Erasure, expiry, hold: what, how much, on which ground."""
    what = [str(entry[name]) for name in ("class", "bucket", "hold", "change", "scope") if name in entry]
    named = (("exchanges", "exchange", ""), ("bodies", "body", "bodies"))
    counts = [counted(entry[name], one, many) for name, one, many in named if name in entry]
    kept = sum(entry.get("kept", {}).values())
    ground = entry.get("ground") or entry.get("basis") or ""
    return ", ".join([" ".join(what), *counts, *([f"{kept:,} kept by holds"] if kept else []), str(ground)])


def _backup(entry: Mapping[str, Any]) -> str:
    if entry.get("destroyed"):
        return f"{entry.get('backup', '')} is destroyed"
    root = "with" if entry.get("with_root") else "without"
    return f"{entry.get('backup', '')}, epoch {entry.get('epoch', 0)}, {root} its root"


def _keystore(entry: Mapping[str, Any]) -> str:
    return f"{entry.get('change', '')}, epoch {entry.get('epoch', 0)}, sealed by {entry.get('sealing', '')}"


def _log_key(entry: Mapping[str, Any]) -> str:
    return f"change {entry.get('change', '')}, to {entry.get('new', '')}"


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _hashed(value: object) -> bool:
    return isinstance(value, str) and value.startswith("hmac:")


_HELD: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "start": _start,
    "stop": _stop,
    "key": _key,
    "review": _review,
    "heartbeat": _heartbeat,
    "config": _config,
    "meter": _counts("totals", " tokens"),
    "refusals": _counts("counts", ""),
    "erasure": _destroyed,
    "expiry": _destroyed,
    "hold": _destroyed,
    "backup": _backup,
    "keystore": _keystore,
    "log-key": _log_key,
    "read": _read,
}


def _pretty(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def plain(text: str) -> str:
    """Without what moves a terminal's cursor, or hides a part of the text."""
    return "".join(one if one.isprintable() or one in "\n\t" else one.encode("unicode_escape").decode() for one in text)
