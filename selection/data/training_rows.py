"""Samples as rows of training files, and the settings that trainers need to read them.

Plain values in and out; nothing is read or written.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

Row = dict[str, Any]


_FIRST_KEYS = ("role", "content")
# Some readers end a line at these; inside JSON they may be written as escapes.
_LINE_ENDS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}


def training_row(
    example_id: str,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Any] | None,
    *,
    has_tools: bool,
) -> Row:
    """One row {id, messages[, tools]}, in which role and content come first in a message.

    has_tools: whether any sample of the file has tools; rows without them then hold null.
    """
    row: Row = {"id": example_id, "messages": [_role_first(message) for message in messages]}
    return {**row, "tools": tools} if has_tools else row


def json_line(row: Mapping[str, Any]) -> str:
    """A row as one line of JSON, line end included; no reader of lines can split it."""
    return json.dumps(row, ensure_ascii=False).translate(_LINE_ENDS) + "\n"


def llama_factory_info(name: str, file_name: str) -> dict[str, object]:
    """dataset_info.json: `dataset_dir` is the folder of this file, `dataset` the name.

    One form for all rows, with or without tools: ShareGPT, by its own names of keys and roles. The
    `openai` formatting would add a system text that no row has.
    """
    columns = {"messages": "conversations", "system": "system", "tools": "tools"}
    return {name: {"file_name": file_name, "formatting": "sharegpt", "columns": columns}}


def axolotl_yaml(*, has_tools: bool) -> str:
    """The `datasets` block of an Axolotl config."""
    tools = "    field_tools: tools\n" if has_tools else ""
    return (
        "# Paste into an Axolotl config; paths are relative to where axolotl is started.\n"
        "chat_template: tokenizer_default\n"
        "datasets:\n"
        "  - path: train.jsonl\n"
        "    ds_type: json\n"
        "    type: chat_template\n"
        "    field_messages: messages\n"
        f"{tools}"
        "    message_property_mappings:\n"
        "      role: role\n"
        "      content: content\n"
        '    roles_to_train: ["assistant"]\n'
        "    train_on_eos: turn\n"
    )


def _role_first(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message with role and content first; canonical JSON sorts keys."""
    first = {key: message[key] for key in _FIRST_KEYS if key in message}
    return {**first, **message}
