"""`rempart.wire.errors`: every error of ours is one that OpenAI's clients understand."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from openai.types import ErrorObject

from rempart import errors
from rempart.wire.errors import error_body


def kinds(root: type[errors.RempartError] = errors.RempartError) -> Iterator[type[errors.RempartError]]:
    yield root
    for kind in root.__subclasses__():
        if kind.__module__ == "rempart.errors":  # rooms have kinds of their own, with other arguments
            yield from kinds(kind)


def example(kind: type[errors.RempartError]) -> errors.RempartError:
    if issubclass(kind, errors.EngineRefused):
        return kind("What happened.", status=400, hint="What to do.")
    return kind("What happened.", hint="What to do.", param="n")


def test_an_error_has_openais_shape() -> None:
    error = errors.InvalidRequest('n is "odd".', hint="Send 1.", param="n")
    assert json.loads(error_body(error)) == {
        "error": {
            "message": 'n is "odd". Send 1.',
            "type": "invalid_request_error",
            "param": "n",
            "code": "invalid_request",
        }
    }


def test_without_a_hint_the_message_stands_alone() -> None:
    body = json.loads(error_body(errors.Overloaded("Busy.")))
    assert (body["error"]["message"], body["error"]["param"]) == ("Busy.", None)


@pytest.mark.parametrize("kind", list(kinds()), ids=lambda kind: kind.__name__)
def test_every_error_is_of_the_official_type(kind: type[errors.RempartError]) -> None:
    error = example(kind)
    read = ErrorObject.model_validate(json.loads(error_body(error))["error"])
    assert read.message == "What happened. What to do."
    assert (read.code, read.type, read.param) == (kind.code, kind.openai_type, error.param)


@pytest.mark.parametrize(("status", "seen"), [(400, 400), (404, 404), (413, 413), (401, 502), (403, 502), (500, 502)])
def test_only_refusals_that_the_client_can_mend_keep_their_status(status: int, seen: int) -> None:
    assert errors.EngineRefused("No.", status=status).http_status == seen
