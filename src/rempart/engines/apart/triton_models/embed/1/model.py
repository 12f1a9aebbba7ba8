"""Triton's embedding model over Hugging Face transformers, for its Python backend; see the text model beside it."""

import json
import os
import sys

# The backend's interpreter is isolated: PYTHONPATH does not reach it.
sys.path[:0] = os.environ["REMPART_TRITON_PATH"].split(":")
import numpy as np
import triton_python_backend_utils as pb_utils
from transformers_text import CannotBe, Text


class TritonPythonModel:
    def initialize(self, args):
        parameters = {
            name: value["string_value"] for name, value in json.loads(args["model_config"])["parameters"].items()
        }
        self._text = Text(parameters["model"], int(parameters["threads"]))

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        texts = pb_utils.get_input_tensor_by_name(request, "text_input").as_numpy().flatten()
        try:
            found = [self._text.embed(text.decode()) for text in texts]
        except CannotBe as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"invalid request: {error}"))
        vectors = np.array([vector for vector, _ in found], dtype=np.float32)
        tokens = np.array([sum(count for _, count in found)], dtype=np.int32)
        return pb_utils.InferenceResponse(
            output_tensors=[pb_utils.Tensor("embedding", vectors), pb_utils.Tensor("num_input_tokens", tokens)]
        )
