"""Tables of names that people use: roles, columns of turns, prompts and answers.

A name is compared trimmed, in lower case, with spaces and hyphens as underscores. To read one more
layout, add its names here.
"""

import re
from functools import lru_cache

ROLES = ("system", "developer", "user", "assistant", "tool")
"""Roles of messages after reading."""

_ALIASES = {
    "user": "human prompter person customer client student student_user inquirer asker questioner"
    " instruction question query usr",
    "assistant": "gpt ai bot model chatgpt bing bard claude gemini llama llm chatbot agent"
    " ai_assistant assistant_bot gpt4 gpt_4 gpt_3.5 gpt_3.5_turbo chatgpt_4 moss answer response"
    " responder asst aimessage ai_message",
    "developer": "",
    "tool": "function observation ipython tool_response function_response tool_result tool_results"
    " tool_output function_output function_result tool_outputs toolmessage environment"
    " function_call_output",
}
ROLE_OF = {role: role for role in ROLES} | {
    alias: role for role, aliases in _ALIASES.items() for alias in aliases.split()
}
ROLE_OF |= {"humanmessage": "user", "human_message": "user", "user_message": "user"}

CALL_ROLES = ("function_call", "tool_call", "tool_calls", "function_calls")
"""Roles of a turn that is a call of a tool, written by the assistant."""

TURN_COLUMNS = (
    "messages", "conversations", "conversation", "dialogue", "dialog", "dialogues", "chat",
    "turns", "utterances", "contents", "thread", "history_messages", "message_list", "data",
    "texts", "rounds", "items", "chat_messages", "chat_history", "trajectory",
)  # fmt: skip
"""Columns that hold a list of turns, in order of preference."""

TEXT_TURN_COLUMNS = (
    "conversations", "conversation", "dialogue", "dialog", "utterances", "chat", "messages", "data",
)  # fmt: skip
"""Those of them whose list of bare texts, or of pairs, is taken for turns. Texts under `turns` are
questions in benchmarks."""

HISTORIES = ("history", "chat_history", "conversation_history", "history_messages")
"""Columns of earlier turns, where a prompt and an answer stand beside them."""

WRAPPERS = (
    "body", "request", "input", "inputs", "conversation", "chat", "dialogue", "data", "sample",
    "example", "record", "payload", "json", "row", "params", "request_body",
)  # fmt: skip
"""Columns whose object may hold the columns of turns: `body.messages`."""

SPEAKER_KEYS = ("role", "from", "speaker", "author", "sender", "speaker_role", "who")
CONTENT_KEYS = (
    "content", "value", "text", "parts", "message", "utterance", "contents", "body", "markdown",
    "refusal",
)  # fmt: skip

USER_KEYS = ("user", "human", "prompt", "question", "instruction", "query", "input")
ASSISTANT_KEYS = (
    "assistant", "gpt", "bot", "ai", "model", "answer", "response", "output", "completion", "reply",
)  # fmt: skip
"""A turn may be one object with both sides: {"human": ..., "assistant": ...}."""

SYSTEM_COLUMNS = (
    "system", "system_prompt", "systemprompt", "system_message", "system_instruction",
    "systeminstruction", "system_text", "preamble", "meta_instruction",
)  # fmt: skip

CHOSEN = (
    "chosen", "chosen_response", "response_chosen", "preferred", "accepted", "answer_chosen",
    "chosen_answer", "preferred_output", "winner_response", "chosen_conversations",
    "chosen_conversation", "chosen_messages",
)  # fmt: skip
REJECTED = (
    "rejected", "rejected_response", "response_rejected", "dispreferred", "answer_rejected",
    "rejected_answer", "non_preferred_output", "non_preferred", "loser_response",
    "rejected_conversations", "rejected_conversation", "rejected_messages",
)  # fmt: skip

INPUTS = ("input", "context", "inputs")
"""Columns that join an instruction, in a row of the shape alpaca."""

PROMPTS = (
    "prompt", "question", "query", "problem", "input", "inputs_pretokenized", "inputs", "user",
    "human", "user_prompt", "user_message", "user_input", "input_text", "text_input", "message",
)  # fmt: skip
ANSWERS = (
    "completion", "response", "output", "solution", "answer", "target", "targets_pretokenized",
    "targets", "outputs", "output_text", "text_output", "assistant", "assistant_response", "gpt",
    "bot", "reply", "model_output", "generated_text", "generation", "answers", "ideal",
)  # fmt: skip
"""Columns of an answer; of several in a row the first one counts, and the others are said."""

RESULTS = ("result", "response_body")
"""Columns of a whole reply of a provider, beside the turns that it answers."""

TEXT_ANSWER = "text"  # an answer beside these alone: elsewhere `text` is a text of its own
TEXT_PROMPTS = ("prompt", "instruction")

REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
"""Keys of a message that hold what the assistant thought."""

WEIGHT_KEYS = (
    "weight", "train", "training", "trainable", "train_on", "train_on_turn", "loss", "loss_weight",
    "loss_mask",
)  # fmt: skip
"""Keys of a message that say whether to train on it: 0 or false says no."""

READ_KEYS = frozenset(
    ("role", "content", "name", "tool_calls", "tool_call_id", "function_call", *REASONING_KEYS,
     *WEIGHT_KEYS)
)  # fmt: skip
"""Keys of a message that something is done with; all others are kept and not read."""

CONTENT_LIKE: dict[str, str] = {
    **dict.fromkeys((*SYSTEM_COLUMNS, "instructions", "persona"), "system"),
    **dict.fromkeys((*INPUTS, *HISTORIES, "passage", "documents", "background", "choices",
                     "options", "hint", "article", "definition"), "prompt"),
    **dict.fromkeys((*PROMPTS, "instruction"), "prompt"),
    **dict.fromkeys((*ANSWERS, *CHOSEN, "final_answer", "correct_answer", "reference",
                     "ground_truth", "label_text", "instances", "corrected"), "response"),
    **dict.fromkeys(REJECTED, "rejected"),
    **dict.fromkeys((*REASONING_KEYS, "scratchpad", "reasoning_trace"), "reasoning"),
    **dict.fromkeys(("tools", "functions", "function_call", "tool_calls", "toolconfig"), ""),
    **dict.fromkeys((*WEIGHT_KEYS, "train_on_input", "train_on_inputs", "masked"), ""),
    **dict.fromkeys(("speakers", *TURN_COLUMNS), "turns"),
}  # fmt: skip
"""Folded name of a column that looks like text of a conversation -> role that would use it."""

_LAST_WORDS = {
    "prompt": "prompt question query instruction document context passage",
    "response": "response answer completion output generation solution reply attempt code summary"
    " highlight caption",
    "reasoning": "reasoning thinking thought cot rationale explanation trajectory trajectories",
    "turns": "utterance",
}
_LAST_WORD = {f"{word}{end}": role for role, words in _LAST_WORDS.items()
              for word in words.split() for end in ("", "s")}  # fmt: skip
_NUMBER = re.compile(r"_?(\d+|[ab])$")


def role_of_column(name: str) -> str | None:
    """The role that a column's text would play by its name; None for any other name.

    Beside the names of CONTENT_LIKE, the last word counts: `gpt4_response`, `answer_2`.
    """
    key = fold(name)
    if key in CONTENT_LIKE:
        return CONTENT_LIKE[key]
    return _LAST_WORD.get(_NUMBER.sub("", key).rpartition("_")[2])


@lru_cache(maxsize=4096)
def fold(name: str) -> str:
    """A name as it is compared with the tables."""
    return name.strip().lower().replace(" ", "_").replace("-", "_")
