"""`train`: the byte-level BPE the guide reads and writes with, and `ids` to use it.

GPT-2's pre-tokenisation (its regular expression, no prefix space, no normalisation) is what llama.cpp calls the
"gpt-2" pre-tokenizer, so that both give the same ids.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY: Final = 4096
ENDOFTEXT: Final = "<|endoftext|>"
SYSTEM: Final = "<|system|>"
USER: Final = "<|user|>"
ASSISTANT: Final = "<|assistant|>"
END: Final = "<|end|>"
SPECIALS: Final = (ENDOFTEXT, SYSTEM, USER, ASSISTANT, END)

# Both transformers and llama.cpp render this; a role that nobody knows is a user's.
CHAT_TEMPLATE: Final = (
    "{%- for message in messages -%}"
    "{%- if message['role'] in ['system', 'assistant'] -%}"
    "{{- '<|' + message['role'] + '|>' -}}"
    "{%- else -%}{{- '<|user|>' -}}{%- endif -%}"
    "{{- message['content'] + '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def train(texts: Iterable[str]) -> Tokenizer:
    """A tokenizer of `VOCABULARY` entries, or fewer when the texts hold too little; special tokens come first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(text, special=True, normalized=False) for text in SPECIALS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of plain text. Raises `ValueError` for a special token's name in it: text must never be a control."""
    if any(name in text for name in SPECIALS):
        raise ValueError(f"a special token's name stands in a text: {text!r}")
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def special(tokenizer: Tokenizer, text: str) -> int:
    """The id of a special token."""
    found = tokenizer.token_to_id(text)
    if found is None:
        raise KeyError(text)
    return int(found)
