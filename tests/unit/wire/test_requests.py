"""`rempart.wire.requests`: what is read of a request, what is refused, what goes on to the engine."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from rempart import limits
from rempart.errors import InvalidRequest
from rempart.wire.requests import CHAT, OPERATIONS, OWNED, Call, engine_body, parse

COMPLETION = "/v1/completions"
EMBEDDING = "/v1/embeddings"


def chat(more: str = "", model: str = '"m"') -> bytes:
    """A good request, with raw JSON members appended."""
    return f'{{"model":{model},"messages":[{{"role":"user","content":"hello"}}]{more}}}'.encode()


def refused(body: bytes, path: str = CHAT) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse(path, body)
    return caught.value


def test_a_plain_chat_request_is_understood() -> None:
    body = chat()
    assert parse(CHAT, body) == Call(
        operation="chat",
        path=CHAT,
        model="m",
        stream=False,
        wants_usage=False,
        choices=1,
        subject="",
        parameters={"messages": 1},
        tokens_asked=0,
        received=body,
    )


@pytest.mark.parametrize(
    ("path", "member", "operation"),
    [
        (CHAT, '"messages":[{"role":"user"}]', "chat"),
        (COMPLETION, '"prompt":"a"', "completion"),
        (COMPLETION, '"prompt":""', "completion"),
        (COMPLETION, '"prompt":[1,2,3]', "completion"),
        (EMBEDDING, '"input":"a"', "embedding"),
        (EMBEDDING, '"input":["a","b"]', "embedding"),
    ],
)
def test_the_path_names_the_operation(path: str, member: str, operation: str) -> None:
    call = parse(path, f'{{"model":"m",{member}}}'.encode())
    assert (call.operation, call.path, OPERATIONS[path]) == (operation, path, operation)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"model":"m"} x',
        b'{"model":"m","messages":[{"role":"user"}],}',
        chat(',"temperature":NaN'),
        chat(',"x":01'),
        chat(',"x":1.'),
        chat(',"x":tru'),
        chat(',"x":"a\nb"'),
        b"\xef\xbb\xbf" + chat(),
    ],
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    error = refused(body)
    assert error.message.startswith("The body is not JSON")
    assert error.param is None


def test_invalid_utf8_is_refused_wherever_it_stands() -> None:
    assert refused(b'{"\xff').message == "The body is not UTF-8 (byte 2)."
    assert "UTF-8" in refused(chat(',"unknown":"_"').replace(b"_", b"\xc3")).message


@pytest.mark.parametrize("member", [r'"unknown":"\ud800"', r'"user":"\udc00"', r'"\ud800":1'])
def test_a_lone_surrogate_is_refused(member: str) -> None:
    assert "not JSON" in refused(chat("," + member)).message


def test_a_pair_of_surrogates_is_one_character() -> None:
    assert parse(CHAT, chat(r',"user":"\ud83d\ude00"')).subject == "\N{GRINNING FACE}"


@pytest.mark.parametrize("body", [b"[]", b"null", b"1", b'"text"', b"true"])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    assert "Expected `object`" in refused(body).message


@pytest.mark.parametrize("body", [chat(',"x":' + "[" * 50_000 + "]" * 50_000), chat(',"x":' + '{"a":' * 50_000)])
def test_too_deep_nesting_is_refused(body: bytes) -> None:
    assert refused(body).message == "The body is nested too deeply."


@pytest.mark.parametrize(
    ("member", "param"),
    [
        ('"messages":1', "messages"),
        ('"messages":["hello"]', "messages[0]"),
        ('"messages":[{"role":"user"},{"role":null}]', "messages[1].role"),
        ('"stream":"yes"', "stream"),
        ('"stream_options":true', "stream_options"),
        ('"stream_options":{"include_usage":1}', "stream_options.include_usage"),
        ('"n":1.5', "n"),
        ('"n":true', "n"),
        ('"n":"2"', "n"),
        ('"max_tokens":"many"', "max_tokens"),
        ('"temperature":"hot"', "temperature"),
        ('"temperature":1e999', "temperature"),
        ('"logprobs":"yes"', "logprobs"),
        ('"tools":{}', "tools"),
        ('"user":7', "user"),
        ('"safety_identifier":[]', "safety_identifier"),
        ('"encoding_format":1', "encoding_format"),
    ],
)
def test_a_wrong_type_names_its_field(member: str, param: str) -> None:
    error = refused(f'{{"model":"m",{member}}}'.encode())
    assert error.param == param
    assert error.message.startswith(f"{param}: ")


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (CHAT, chat(model="null"), "model"),
        (CHAT, chat(model="3"), "model"),
        (CHAT, chat(model='""'), "model"),
        (CHAT, chat(model='"' + "m" * (limits.model_name_chars_max + 1) + '"'), "model"),
        (CHAT, b'{"model":"m"}', "messages"),
        (CHAT, b'{"model":"m","messages":[]}', "messages"),
        (CHAT, b'{"model":"m","messages":null}', "messages"),
        (COMPLETION, b'{"model":"m"}', "prompt"),
        (EMBEDDING, b'{"model":"m"}', "input"),
        (EMBEDDING, b'{"model":"m","input":[]}', "input"),
        (CHAT, chat(',"n":0'), "n"),
        (CHAT, chat(',"n":-1'), "n"),
        (CHAT, chat(f',"n":{limits.choices_max + 1}'), "n"),
        (CHAT, chat(',"n":1' + "0" * 40), "n"),
        (CHAT, chat(',"max_tokens":-1'), "max_tokens"),
        (CHAT, chat(',"max_completion_tokens":-1'), "max_completion_tokens"),
    ],
)
def test_what_is_missing_or_out_of_bounds_names_its_field(path: str, body: bytes, param: str) -> None:
    error = refused(body, path)
    assert error.param == param
    assert error.hint


def test_the_message_never_repeats_a_value_of_the_body() -> None:
    for member in ('"user":["sesame"]', '"n":"sesame"', '"stream":"sesame"', '"x":"sesame'):
        error = refused(chat("," + member))
        assert "sesame" not in error.message + error.hint


@pytest.mark.parametrize("n", [1, limits.choices_max])
def test_n_within_its_bounds_is_the_number_of_choices(n: int) -> None:
    assert parse(CHAT, chat(f',"n":{n}')).choices == n


@pytest.mark.parametrize(
    "body",
    [
        chat(',"model":"m"'),
        chat(',"model":"other"'),
        chat(r',"\u006dodel":"m"'),
        chat(',"stream":true,"stream":false'),
        chat(',"x":1,"x":12'),
        chat(',"x":12,"x":1'),
        chat(',"":1,"":1'),
        b'{"a":1,' + chat()[1:-1] + b',"a":1}',
    ],
)
def test_a_field_named_twice_is_refused(body: bytes) -> None:
    assert "twice" in refused(body).message


def test_blanks_and_escapes_are_no_second_field() -> None:
    body = b'\n { "model" :\t"m" , \r\n"messages": [ {"role":"user","role2":"\\"}"} ] , "a\\"b,}" : {"model":"x"} } \n'
    assert parse(CHAT, body).model == "m"


@pytest.mark.parametrize(
    ("more", "subject"),
    [
        ("", ""),
        (',"user":"ada"', "ada"),
        (',"safety_identifier":"s1"', "s1"),
        (',"user":"ada","safety_identifier":"s1"', "s1"),
        (',"user":"ada","safety_identifier":""', "ada"),
        (f',"user":"{"u" * 1000}"', "u" * limits.subject_chars_max),
    ],
)
def test_the_subject_is_the_safety_identifier_or_the_user(more: str, subject: str) -> None:
    assert parse(CHAT, chat(more)).subject == subject


@pytest.mark.parametrize(
    ("more", "tokens"),
    [
        ("", 0),
        (',"max_tokens":0', 0),
        (',"max_tokens":10', 10),
        (',"max_tokens":10,"max_completion_tokens":20', 20),
        (',"max_tokens":10,"n":3', 30),
    ],
)
def test_tokens_asked_bounds_all_choices_together(more: str, tokens: int) -> None:
    assert parse(CHAT, chat(more)).tokens_asked == tokens


def test_an_embedding_is_never_streamed() -> None:
    assert not parse(EMBEDDING, b'{"model":"m","input":"a","stream":true}').stream
    assert parse(COMPLETION, b'{"model":"m","prompt":"a","stream":true}').stream


@pytest.mark.parametrize(
    ("more", "found"),
    [
        (',"stream":true', {"stream": True}),
        (',"stream":false', {}),
        (',"temperature":0.7,"top_p":1', {"temperature": "0.7", "top_p": 1}),
        (',"temperature":1e-7', {"temperature": "1e-07"}),
        (f',"seed":{2**53 - 1}', {"seed": 2**53 - 1}),
        (f',"seed":{2**53}', {"seed": str(2**53)}),
        (f',"seed":{-(2**53) - 1}', {"seed": str(-(2**53) - 1)}),
        (',"seed":1' + "0" * 40, {"seed": "1" + "0" * 40}),
        (',"logprobs":true,"top_logprobs":5', {"top_logprobs": 5}),
        (',"parallel_tool_calls":false,"echo":true', {"parallel_tool_calls": False, "echo": True}),
        (',"encoding_format":"base64"', {"encoding_format": "base64"}),
        (',"encoding_format":"my name"', {}),
        (',"reasoning_effort":"high","tool_choice":"auto"', {"reasoning_effort": "high", "tool_choice": "auto"}),
        (',"reasoning_effort":"Ada","tool_choice":"Ada"', {}),
        (',"tool_choice":{"type":"function"},"stop":"Ada","user":"Ada","metadata":{"a":"Ada"}', {}),
        (',"tools":[{"type":"function"},{}]', {"tools": 2}),
        (',"max_tokens":null,"n":2', {"n": 2}),
    ],
)
def test_parameters_hold_only_what_may_stand_in_clear(more: str, found: dict[str, Any]) -> None:
    assert parse(CHAT, chat(more)).parameters == {**found, "messages": 1}


def test_without_a_reason_the_engine_gets_the_very_same_bytes() -> None:
    for more in (' , "x" : [1.0, 2e0, "\\u00e9"]', ',"stream":true,"stream_options":{"include_usage":true}'):
        call = parse(CHAT, chat(more))
        assert engine_body(call, "m") is call.received


def test_another_name_leaves_all_other_members_byte_for_byte() -> None:
    values = ("1.0", "-0", "1e5", '"\\u00e9\\/"', '{"b" : [ 1,2 ],"a":{ }}', "12345678901234567890123", "null")
    more = "".join(f',"x{at}" : {value}' for at, value in enumerate(values))
    sent = engine_body(parse(CHAT, chat(more)), 'served/"m"')
    assert json.loads(sent)["model"] == 'served/"m"'
    for at, value in enumerate(values):
        assert f'"x{at}":{value}'.encode() in sent
    assert b'"messages":[{"role":"user","content":"hello"}]' in sent


@pytest.mark.parametrize("name", sorted(OWNED))
def test_fields_that_belong_to_the_gateway_are_not_sent_on(name: str) -> None:
    call = parse(CHAT, chat(f',"{name}":"theirs","kept":1,"nested":{{"{name}":2}}'))
    sent = json.loads(engine_body(call, "m"))
    assert name not in sent
    assert (sent["model"], sent["kept"], sent["nested"]) == ("m", 1, {name: 2})


def test_an_escaped_name_does_not_slip_past_the_gateway() -> None:
    call = parse(CHAT, chat(r',"\u0063ache_salt":"theirs"'))
    assert "cache_salt" not in json.loads(engine_body(call, "m"))


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ("", {"include_usage": True}),
        (',"stream_options":null', {"include_usage": True}),
        (',"stream_options":{}', {"include_usage": True}),
        (',"stream_options":{"include_usage":false,"x":1.50}', {"include_usage": True, "x": 1.5}),
        (',"stream_options":{"include_usage":null}', {"include_usage": True}),
    ],
)
def test_a_stream_always_asks_for_its_usage(options: str, sent: dict[str, Any]) -> None:
    call = parse(CHAT, chat(',"stream":true' + options))
    assert not call.wants_usage
    assert json.loads(engine_body(call, "m"))["stream_options"] == sent


def test_what_is_no_stream_is_not_asked_for_usage() -> None:
    assert b"stream_options" not in engine_body(parse(CHAT, chat()), "other")


@pytest.mark.parametrize(
    ("prompt", "asked"), [('"a"', 4), ('["a","b","c"]', 12), ("[1,2,3]", 4), ("[[1],[2]]", 8), ("[]", 4)]
)
def test_each_prompt_of_a_list_counts_towards_what_is_asked(prompt: str, asked: int) -> None:
    body = f'{{"model":"m","prompt":{prompt},"max_tokens":4}}'.encode()
    assert parse("/v1/completions", body).tokens_asked == asked


@pytest.mark.parametrize("body", [b"", b" ", b"\n\r\t"])
def test_an_empty_body_is_called_so(body: bytes) -> None:
    assert refused(body).message == "The body is empty."


def test_a_missing_field_is_named() -> None:
    error = refused(b'{"messages":[{"role":"user","content":"x"}]}')
    assert (error.message, error.param) == ("model is missing.", "model")


@pytest.mark.parametrize("name", ["Model", "MODEL", "N_Predict", "Lora", "Messages", "\u017ftream"])
def test_a_field_that_another_reader_would_take_for_ours_is_refused(name: str) -> None:
    """Go's encoding/json matches names without case, and folds more than ASCII."""
    error = refused(chat(f',"{name}":1'))
    assert name in error.message
    assert error.param == name


@pytest.mark.parametrize("value", ["{}", "[]", '{"":0}', "0"])
def test_a_body_of_countless_tiny_values_is_refused_before_it_is_read(value: str) -> None:
    many = ",".join([value] * (limits.json_values_max + 1))
    assert "too many values" in refused(chat(f',"x":[{many}]')).message


def test_commas_and_braces_in_texts_are_no_values() -> None:
    text = "{,[" * limits.json_values_max
    assert parse(CHAT, chat(f',"x":"{text}"')).model == "m"


@pytest.mark.parametrize("prompt", [["a", 5], ["a", [1]], [{"prompt_string": "a"}], {"a": 1}, 5, [True]])
def test_a_prompt_is_a_text_or_a_list_of_one_kind(prompt: object) -> None:
    error = refused(msgspec.json.encode({"model": "m", "prompt": prompt}), "/v1/completions")
    assert "prompt" in error.message


def test_choices_of_all_prompts_are_bounded() -> None:
    body = msgspec.json.encode({"model": "m", "prompt": ["a"] * 1_025, "n": 2})
    assert "2050 choices" in refused(body, "/v1/completions").message
    body = msgspec.json.encode({"model": "m", "prompt": ["a"] * 2_049})
    assert "2049 parts" in refused(body, "/v1/completions").message


def test_of_two_bounds_of_tokens_the_larger_is_reserved() -> None:
    assert parse(CHAT, chat(',"max_tokens":1900,"max_completion_tokens":1')).tokens_asked == 1900
