"""A GGUF file as a model folder of transformers, in bfloat16."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from storage.files.atomic import temp_path


def prepare_model(gguf: Path, folder: Path) -> None:
    """Write model and tokenizer of a GGUF file to a folder, whole or not at all; once.

    Quantised weights become the values that they stand for.
    """
    if folder.exists():
        return
    given: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.bfloat16, **given)
    # The loader marks the weights as quantised, which they are no longer.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    temp = temp_path(folder)
    try:
        model.save_pretrained(temp)
        AutoTokenizer.from_pretrained(gguf.parent, **given).save_pretrained(temp)
        os.replace(temp, folder)
    finally:
        shutil.rmtree(temp, ignore_errors=True)
