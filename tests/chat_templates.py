"""Chat templates in the manner of well-known ones, each with its text pieces spelled out in Python.

`*_pieces` say what a template writes as (text, whose) pairs, whose in {"", "prompt", "response"}.
They share no code with selection/: they are the slow definition that the masks are tested against.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Messages = Sequence[Mapping[str, Any]]
Pieces = list[tuple[str, str]]

CHATML = """
{%- if messages[0].role != 'system' %}
{{- '<|im_start|>system\\nYou are Chatty, a helpful model.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def whose(message: Mapping[str, Any]) -> str:
    return "response" if message["role"] == "assistant" else "prompt"


def chatml_pieces(messages: Messages) -> Pieces:
    pieces: Pieces = []
    if messages[0]["role"] != "system":
        pieces.append(("<|im_start|>system\nYou are Chatty, a helpful model.<|im_end|>\n", ""))
    for message in messages:
        pieces.append((f"<|im_start|>{message['role']}\n", ""))
        pieces.append((message["content"], whose(message)))
        pieces.append(("<|im_end|>\n", ""))
    return pieces


LLAMA3 = """
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
{%- set system_message = messages[0]['content'] | trim %}
{%- set messages = messages[1:] %}
{%- else %}
{%- set system_message = '' %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}
{{- 'Cutting Knowledge Date: December 2023\\n' }}
{{- 'Today Date: ' + strftime_now('%d %b %Y') + '\\n\\n' }}
{{- system_message }}
{{- '<|eot_id|>' }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
{{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
"""


def llama3_pieces(messages: Messages) -> Pieces:
    has_system = messages[0]["role"] == "system"
    pieces: Pieces = [
        ("<|bos|><|start_header_id|>system<|end_header_id|>\n\n", ""),
        ("Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n", ""),
    ]
    if has_system:
        pieces.append((messages[0]["content"].strip(), "prompt"))
    pieces.append(("<|eot_id|>", ""))
    for message in messages[has_system:]:
        pieces.append((f"<|start_header_id|>{message['role']}<|end_header_id|>\n\n", ""))
        pieces.append((message["content"].strip(), whose(message)))
        pieces.append(("<|eot_id|>", ""))
    return pieces


GEMMA = """
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
{{- raise_exception('System role not supported') }}
{%- endif %}
{%- for message in messages %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{%- endif %}
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{- '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}
{%- endfor %}
"""


def gemma_pieces(messages: Messages) -> Pieces:
    """With a system text, which the template refuses, before the first user turn."""
    pieces: Pieces = [("<|bos|>", "")]
    system = messages[0]["content"] if messages[0]["role"] == "system" else ""
    for number, message in enumerate(messages[bool(system) :]):
        role = "model" if message["role"] == "assistant" else message["role"]
        pieces.append((f"<start_of_turn>{role}\n", ""))
        if number == 0 and system:
            pieces += [(system.lstrip(), "prompt"), ("\n\n", "")]
            pieces.append((message["content"].rstrip(), whose(message)))
        else:
            pieces.append((message["content"].strip(), whose(message)))
        pieces.append(("<end_of_turn>\n", ""))
    return pieces


THINKER = """
{%- set ns = namespace(last_user=0) %}
{%- for message in messages %}
{%- if message.role == 'user' %}{% set ns.last_user = loop.index0 %}{% endif %}
{%- endfor %}
{%- for message in messages %}
{%- if message.role == 'assistant' %}
{%- set content = message.content %}
{%- set reasoning = '' %}
{%- if message.reasoning_content is string %}
{%- set reasoning = message.reasoning_content %}
{%- elif '</think>' in content %}
{%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}
{%- endif %}
{{- '<|im_start|>assistant\\n' }}
{%- if loop.index0 > ns.last_user %}
{{- '<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' }}
{%- endif %}
{{- content.lstrip('\\n') + '<|im_end|>\\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
"""


def thinker_pieces(messages: Messages) -> Pieces:
    """Reasoning is written in the last answer only; earlier reasoning is dropped."""
    users = [number for number, message in enumerate(messages) if message["role"] == "user"]
    pieces: Pieces = []
    for number, message in enumerate(messages):
        pieces.append((f"<|im_start|>{message['role']}\n", ""))
        content, reasoning = message["content"], message.get("reasoning_content", "")
        if message["role"] == "assistant":
            if not reasoning and "</think>" in content:
                reasoning, content = content.split("</think>")
                reasoning = reasoning.split("<think>")[-1].strip("\n")
            if number > users[-1]:
                pieces += [("<think>\n", ""), (reasoning.strip("\n"), "response")]
                pieces.append(("\n</think>\n\n", ""))
            content = content.lstrip("\n")
        pieces += [(content, whose(message)), ("<|im_end|>\n", "")]
    return pieces


TOOLS = """
{%- if tools %}
{{- '<|im_start|>system\\n# Tools\\n' + tools | tojson + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
{{- '<|im_end|>\\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' + message.content }}
{%- for tool_call in message.tool_calls %}
{%- set call = tool_call.function %}
{{- '\\n<tool_call>\\n{"name": "' + call.name + '", "arguments": ' }}
{{- call.arguments | tojson + '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
"""


def tools_pieces(messages: Messages, tools: Sequence[Mapping[str, Any]] | None = None) -> Pieces:
    pieces: Pieces = []
    if tools:
        listed = json.dumps(tools, ensure_ascii=False)
        pieces.append((f"<|im_start|>system\n# Tools\n{listed}<|im_end|>\n", ""))
    for message in messages:
        if message["role"] == "tool":
            pieces.append(("<|im_start|>user\n<tool_response>\n", ""))
            pieces.append((message["content"], "prompt"))
            pieces.append(("\n</tool_response><|im_end|>\n", ""))
            continue
        pieces.append((f"<|im_start|>{message['role']}\n", ""))
        pieces.append((message["content"] or "", whose(message)))
        for call in message.get("tool_calls", ()):
            arguments = call["function"]["arguments"]
            arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
            pieces += [('\n<tool_call>\n{"name": "', ""), (call["function"]["name"], "response")]
            pieces.append(('", "arguments": ', ""))
            # Empty arguments are a spelling of nothing, so they do not count.
            owner = "response" if arguments else ""
            pieces.append((json.dumps(arguments, ensure_ascii=False), owner))
            pieces.append(("}\n</tool_call>", ""))
        pieces.append(("<|im_end|>\n", ""))
    return pieces


TEMPLATES: dict[str, tuple[str, Callable[[Messages], Pieces]]] = {
    "chatml": (CHATML, chatml_pieces),
    "llama3": (LLAMA3, llama3_pieces),
    "gemma": (GEMMA, gemma_pieces),
    "thinker": (THINKER, thinker_pieces),
    "tools": (TOOLS, tools_pieces),
}
