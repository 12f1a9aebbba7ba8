"""`export`: the trained guide as files that others load.

    python models/guide/export.py --run build/guide-run

`artefact/` is what Hugging Face's transformers, and so vLLM, load; `guide-f16.gguf` is what llama.cpp loads. Both
hold the same float16 numbers.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

import gguf_form
import tokenizer as vocabulary
import torch
from model import Guide, Shape
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

HERE: Final = Path(__file__).resolve().parent


def export(run: Path, out: Path) -> None:
    """Writes `out/artefact/` and `out/guide-f16.gguf` from the folder's last checkpoint."""
    guide, tokenizer = load(run)
    tensors = {name: tensor.to(torch.float16).contiguous() for name, tensor in guide.state_dict().items()}
    _artefact(out / "artefact", guide.shape, tensors, tokenizer)
    gguf_form.write(out / "guide-f16.gguf", guide.shape, tensors, tokenizer)


def load(run: Path) -> tuple[Guide, Tokenizer]:
    """The model, without dropout, and its tokenizer."""
    state = torch.load(run / "last.pt", weights_only=True)
    guide = Guide(Shape(**state["shape"]))
    guide.load_state_dict(state["guide"])
    return guide.eval(), Tokenizer.from_file(str(run / "tokenizer.json"))


def _artefact(folder: Path, shape: Shape, tensors: dict[str, Tensor], tokenizer: Tokenizer) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # the library makes it the owner's alone
    tokenizer.save(str(folder / "tokenizer.json"))
    end = vocabulary.special(tokenizer, vocabulary.END)
    endoftext = vocabulary.special(tokenizer, vocabulary.ENDOFTEXT)
    _write(folder / "config.json", _config(shape, endoftext, end))
    _write(
        folder / "generation_config.json",
        {"bos_token_id": endoftext, "eos_token_id": end, "pad_token_id": endoftext, "do_sample": False},
    )
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": vocabulary.ENDOFTEXT,
            "eos_token": vocabulary.END,
            "pad_token": vocabulary.ENDOFTEXT,
            "add_bos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": shape.context,
            "chat_template": vocabulary.CHAT_TEMPLATE,
        },
    )


def _config(shape: Shape, bos: int, eos: int) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": shape.context,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": shape.rms_eps,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": bos,
        "torch_dtype": "float16",
    }


def _write(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("build/guide-run"), help="where the checkpoints are")
    parser.add_argument("--out", type=Path, default=HERE, help="where the files go")
    options = parser.parse_args()
    export(options.run, options.out)


if __name__ == "__main__":
    main()
