"""Samples as rows of training files, and the settings that trainers need to read them.

Plain values in and out; nothing is read or written.
"""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import pstdev
from typing import Any

from selection.core.errors import InputError

Row = dict[str, Any]

COLUMNS = ("score", "rank", "weight", "reason")
ORDERS = ("score", "random", "length")
REPLAY = "replay"  # reason of a pick that no score brought in


_FIRST_KEYS = ("role", "content")
# Some readers end a line at these; inside JSON they may be written as escapes.
_LINE_ENDS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}


@dataclass(frozen=True, slots=True)
class RowLayout:
    """Which columns rows of training files have besides, and in which order rows stand.

    columns:     some of COLUMNS.
    order:       score: by rank; random: by `seed`; length: tokens as the budget counts them,
                 shortest first, equal ones by rank.
    temperature: of `weight`, see `sample_weights`.
    budget:      only the rows of this budget of a sweep.
    Raises InputError for a value that is none of these.
    """

    columns: tuple[str, ...] = ()
    order: str = "score"
    seed: int = 0
    temperature: float = 1.0
    budget: float | None = None

    def __post_init__(self) -> None:
        """Refuse what does not exist."""
        for field, values, known in (
            ("column", self.columns, COLUMNS),
            ("order", (self.order,), ORDERS),
        ):
            if unknown := [value for value in values if value not in known]:
                raise InputError(
                    f"no such {field}",
                    field=field,
                    value=unknown[0],
                    remedy=f"There are: {', '.join(known)}.",
                )
        if not self.temperature > 0:
            raise InputError(
                "a temperature is above 0",
                field="temperature",
                value=self.temperature,
                remedy="1 is a standard deviation of the scores; more makes weights more alike.",
            )

    @classmethod
    def parse(cls, text: str) -> "RowLayout":
        """From the JSON of its fields; an empty text is the default."""
        given = json.loads(text or "{}")
        return cls(**given | {"columns": tuple(given.get("columns", ()))})

    def random_key(self, example_id: str) -> str:
        """What the order `random` sorts by: a pure function of seed and id."""
        return hashlib.sha256(f"order:{self.seed}:{example_id}".encode()).hexdigest()


def sample_weights(
    scores: Sequence[float], targets: Sequence[str], reasons: Sequence[str], temperature: float
) -> list[float]:
    """Weights of picks in a loss: a softmax of the scores of a target, scaled to mean 1.

    softmax(score / (temperature x standard deviation)), so that scores of every method and target
    spread alike. Where all scores are equal, and for replay, the weight is 1.
    """
    weights = [1.0] * len(scores)
    of_target: dict[str, list[int]] = defaultdict(list)
    for position, (target, reason) in enumerate(zip(targets, reasons, strict=True)):
        if reason != REPLAY:
            of_target[target].append(position)
    for positions in of_target.values():
        own = [scores[position] for position in positions]
        if spread := pstdev(own):
            raised = [math.exp((score - max(own)) / (temperature * spread)) for score in own]
            mean = math.fsum(raised) / len(own)
            for position, value in zip(positions, raised, strict=True):
                weights[position] = value / mean
    return weights


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


def axolotl_yaml(*, has_tools: bool, in_order: bool = False) -> str:
    """The `datasets` block of an Axolotl config. in_order: rows are to be trained on as they stand.

    Its keys for that: `shuffle_merged_datasets` and `curriculum_sampling`.
    """
    tools = "    field_tools: tools\n" if has_tools else ""
    order = "shuffle_merged_datasets: false\ncurriculum_sampling: true\n" if in_order else ""
    return (
        "# Paste into an Axolotl config; paths are relative to where axolotl is started.\n"
        "chat_template: tokenizer_default\n"
        f"{order}"
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
