"""The official client, unchanged, against a real server with the real embedded engine."""

import time

import openai
import pytest

from rempart.bench.running import Running, disclosed, rempart


@pytest.fixture(scope="module")
def client(site: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{site.url}/v1", api_key=site.key, max_retries=0)


def test_chat(client: openai.OpenAI, site: Running) -> None:
    answer = client.chat.completions.create(
        model=site.model, messages=[{"role": "user", "content": "What is Rempart?"}], max_tokens=40
    )
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0


def test_chat_streamed(client: openai.OpenAI, site: Running) -> None:
    stream = client.chat.completions.create(
        model=site.model,
        messages=[{"role": "user", "content": "What is the ledger?"}],
        max_tokens=40,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens > 0


def test_the_same_question_streamed_and_not_gets_the_same_answer(client: openai.OpenAI, site: Running) -> None:
    question = [{"role": "user", "content": "Who is Rempart for?"}]
    whole = client.chat.completions.create(model=site.model, messages=question, temperature=0, max_tokens=48)  # type: ignore[arg-type, call-overload]
    chunks = client.chat.completions.create(  # type: ignore[call-overload]
        model=site.model, messages=question, temperature=0, max_tokens=48, stream=True
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content


def test_response_format_is_obeyed(client: openai.OpenAI, site: Running) -> None:
    schema = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}
    answer = client.chat.completions.create(
        model=site.model,
        messages=[{"role": "user", "content": "Is the ledger encrypted?"}],
        response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
        max_tokens=64,
    )
    assert '"yes"' in (answer.choices[0].message.content or "")


def test_several_choices_and_logprobs(client: openai.OpenAI, site: Running) -> None:
    answer = client.chat.completions.create(
        model=site.model,
        messages=[{"role": "user", "content": "Hello"}],
        n=2,
        logprobs=True,
        top_logprobs=2,
        max_tokens=8,
    )
    assert len(answer.choices) == 2
    assert answer.choices[0].logprobs is not None


def test_completions(client: openai.OpenAI, site: Running) -> None:
    answer = client.completions.create(model=site.model, prompt="Rempart is", max_tokens=12)
    assert answer.choices[0].text


def test_embeddings_in_both_encodings(client: openai.OpenAI, site: Running) -> None:
    found = client.embeddings.create(model=site.model, input=["a private model", "un modèle privé"])
    plain = client.embeddings.create(model=site.model, input=["a private model"], encoding_format="float")
    assert len(found.data) == 2
    assert found.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-3)


def test_models(client: openai.OpenAI, site: Running) -> None:
    assert [model.id for model in client.models.list()] == [site.model]
    assert client.models.retrieve(site.model).id == site.model


def test_errors_are_the_clients_own(client: openai.OpenAI, site: Running) -> None:
    hello: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="rp_wrong").models.list()
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="nothing", messages=hello)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model=site.model, messages=hello, temperature="hot")  # type: ignore[call-overload]
    assert bad.value.param == "temperature"
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=site.model, messages=[])
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nothing")


def test_a_limited_key_meets_its_limits(site: Running) -> None:
    made = rempart(
        "key", "create", "--name", "limited", "--requests-per-minute", "2", "--model", site.model, data=site.data
    )
    client = openai.OpenAI(base_url=f"{site.url}/v1", api_key=made.stdout.strip(), max_retries=0)

    def ask_five_times() -> None:  # more than enough, should a minute turn in between
        for _ in range(5):
            client.chat.completions.create(model=site.model, messages=[{"role": "user", "content": "Hi"}], max_tokens=1)

    with pytest.raises(openai.RateLimitError) as limited:
        ask_five_times()
    assert int(limited.value.response.headers["retry-after"]) > 0


def test_a_revoked_key_is_refused_at_once(site: Running) -> None:
    made = rempart("key", "create", "--name", "short-lived", data=site.data)
    text = made.stdout.strip()
    client = openai.OpenAI(base_url=f"{site.url}/v1", api_key=text, max_retries=0)
    client.models.list()
    rempart("key", "revoke", text.split("_")[1], data=site.data)
    with pytest.raises(openai.AuthenticationError):
        client.models.list()


def test_what_was_said_is_in_the_ledger_and_the_ledger_holds(client: openai.OpenAI, site: Running) -> None:
    said = f"A sentence for the ledger, {time.time_ns()}."
    answer = client.chat.completions.with_raw_response.create(
        model=site.model, messages=[{"role": "user", "content": said}], max_tokens=8
    )
    exchange = answer.headers["x-rempart-exchange"]
    shown = disclosed(exchange, data=site.data)
    assert said in shown.stdout
    assert "outcome ok" in shown.stdout
    assert said not in rempart("ledger", "show", exchange, "--sealed", data=site.data).stdout
    verified = rempart("ledger", "verify", "--vkey", site.vkey, data=site.data)
    assert verified.returncode == 0, verified.stderr
