"""`write`: the guide as GGUF, as llama.cpp's own conversion of a Llama model would write it.

Source: ggml `docs/gguf.md`; llama.cpp `convert_hf_to_gguf.py`, its LlamaModel.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import gguf
import tokenizer as vocabulary
from model import Shape
from tokenizers import Tokenizer
from torch import Tensor

_NAMES: Final = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write(path: Path, shape: Shape, tensors: dict[str, Tensor], tokenizer: Tokenizer) -> None:
    """Writes float16 matrices and float32 norms; the tied embedding stands once."""
    writer = gguf.GGUFWriter(path, "llama")
    _describe(writer, shape)
    _vocabulary(writer, tokenizer, shape.vocabulary)
    for name, tensor in tensors.items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            tensor = permuted(tensor, shape.heads)
        numbers = tensor.float().numpy() if tensor.dim() == 1 else tensor.numpy()
        writer.add_tensor(gguf_name(name), numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_name(name: str) -> str:
    """model.layers.3.mlp.up_proj.weight to blk.3.ffn_up.weight. Raises `KeyError`."""
    if name in _NAMES:
        return _NAMES[name]
    _, _, number, rest = name.split(".", 3)
    return f"blk.{number}.{_NAMES[rest.removesuffix('.weight')]}.weight"


def permuted(tensor: Tensor, heads: int) -> Tensor:
    """Rows reordered head by head: llama.cpp turns neighbours, Hugging Face turns the two halves."""
    rows, columns = tensor.shape
    halves = tensor.reshape(heads, 2, rows // heads // 2, columns)
    return halves.transpose(1, 2).reshape(rows, columns).contiguous()


def _describe(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_name("Rempart guide")
    writer.add_description("A demonstration model that answers questions about Rempart, in English and French.")
    writer.add_license("Apache-2.0")
    writer.add_languages(["en", "fr"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_block_count(shape.layers)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.rms_eps)
    writer.add_vocab_size(shape.vocabulary)


def _vocabulary(writer: gguf.GGUFWriter, tokenizer: Tokenizer, size: int) -> None:
    model = json.loads(tokenizer.to_str())["model"]
    tokens = [text for text, _ in sorted(model["vocab"].items(), key=lambda item: item[1])]
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    types = [control if text in vocabulary.SPECIALS else normal for text in tokens]
    # A small corpus fills fewer entries than the embedding has rows, and llama.cpp wants a name for each row.
    unused = range(len(tokens), size)
    tokens += [f"[PAD{number}]" for number in unused]
    types += [gguf.TokenType.UNUSED] * len(unused)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]])
    writer.add_bos_token_id(vocabulary.special(tokenizer, vocabulary.ENDOFTEXT))
    writer.add_eos_token_id(vocabulary.special(tokenizer, vocabulary.END))
    writer.add_pad_token_id(vocabulary.special(tokenizer, vocabulary.ENDOFTEXT))
    writer.add_add_bos_token(False)
    writer.add_chat_template(vocabulary.CHAT_TEMPLATE)
