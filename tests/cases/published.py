"""Layouts of published datasets, of trainers and of providers, by their own field names."""

import json
from typing import Any

from tests.cases.case import Case, Row, jsonl
from tests.cases.talks import (
    Talk,
    Turn,
    answer,
    assistant,
    longer,
    openai,
    openai_turn,
    pairs,
    question,
    system,
    user,
    with_tools,
)

_BAD = "I would rather not."


def _dialog(talk: Talk, marks: dict[str, str], end: str = "") -> str:
    return "".join(marks[turn["role"]] + turn["text"] + end for turn in talk)


def _transcripts() -> list[Case]:
    styles: dict[str, tuple[dict[str, str], str]] = {
        "phi-4": ({role: f"<|im_start|>{role}<|im_sep|>" for role in ("user", "assistant")},
                  "<|im_end|>"),
        "deepseek": ({"user": "<\uff5cUser\uff5c>", "assistant": "<\uff5cAssistant\uff5c>"}, ""),
        "command-r": ({"user": "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>",
                       "assistant": "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"},
                      "<|END_OF_TURN_TOKEN|>"),
        "gemma": ({"user": "<start_of_turn>user\n", "assistant": "<start_of_turn>model\n"},
                  "<end_of_turn>\n"),
        "llama 3": ({role: f"<|start_header_id|>{role}<|end_header_id|>\n\n"
                     for role in ("user", "assistant")}, "<|eot_id|>"),
        "zephyr": ({role: f"<|{role}|>\n" for role in ("user", "assistant")}, "</s>\n"),
        "granite": ({role: f"<|start_of_role|>{role}<|end_of_role|>" for role in
                     ("user", "assistant")}, "<|end_of_text|>\n"),
        "nemo": ({"user": "<extra_id_1>User\n", "assistant": "<extra_id_1>Assistant\n"}, "\n"),
        "metharme": ({"user": "<|user|>", "assistant": "<|model|>"}, ""),
        "moss": ({"user": "[Human]: ", "assistant": "[MOSS]: "}, "<eoh> "),
        "baize": ({"user": "Two talk.\n[|Human|] ", "assistant": "[|AI|] "}, "\n"),
        "alpaca and its end": ({"user": "Do it.\n\n### Instruction:\n",
                                "assistant": "\n\n### Response:\n"}, "<|end_of_text|>"),
    }  # fmt: skip
    cases = []
    for number, (name, (marks, end)) in enumerate(styles.items()):
        talks = pairs(9000 + 10 * number)
        rows = [{"text": _dialog(talk, marks, end)} for talk in talks]
        if name.startswith("alpaca"):
            rows = [{"text": row["text"].replace("<|end_of_text|>\n\n###", "\n\n###")}
                    for row in rows]  # fmt: skip
            talks = [[system("Do it."), *talk] for talk in talks]
        if name == "baize":
            rows = [{"input": row["text"] + "[|Human|] "} for row in rows]
            talks = [[system("Two talk."), *talk] for talk in talks]
        cases.append(Case(f"text of {name}", jsonl(rows), talks))
    rows = [{"text": f"<|start|>user<|message|>{question(i)}<|end|><|start|>assistant"
             f"<|message|>{answer(i)}<|return|>"} for i in range(3)]  # fmt: skip
    cases.append(Case("text of unknown marks", jsonl(rows), refused="no known style"))
    talks, rows = [], []
    for i in range(9100, 9106):
        call = f'<functioncall> {{"name": "weigh", "arguments": \'{{"n": {i}}}\'}}'
        talks.append([system("You weigh things."), user(question(i)), assistant(call),
                      {"role": "tool", "text": f'{{"grams": {i}}}'},
                      assistant(answer(i))])  # fmt: skip
        rows.append({"system": "SYSTEM: You weigh things.\n", "chat":
                     f"USER: {question(i)}\n\n\nASSISTANT: {call} <|endoftext|>\n\n\n"
                     f"FUNCTION RESPONSE: {{\"grams\": {i}}}\n\n\nASSISTANT: {answer(i)}"
                     " <|endoftext|>\n\n\n"})  # fmt: skip
    cases.append(Case("function responses inside a chat", jsonl(rows), talks))
    return cases


def _open_prompts() -> list[Case]:
    cases = []
    styles = {
        "\n\nHuman: {}\n\nAssistant:": ("prompt", "response"),
        "Human:{}\nAssistant:": ("instruction", "output"),
        "<|user|>\n{}</s>\n<|assistant|>\n": ("prompt", "completion"),
    }
    for number, (style, (ask, reply)) in enumerate(styles.items()):
        talks = pairs(9200 + 10 * number)
        rows: list[Row] = [{ask: style.format(t[0]["text"]), reply: t[1]["text"]} for t in talks]
        cases.append(Case(f"prompts that end with a mark {number}", jsonl(rows), talks))
    talks = pairs(9230)
    rows = [{"prompt": f"\n\nHuman: {t[0]['text']}\n\nAssistant:", "chosen": t[1]["text"],
             "rejected": _BAD} for t in talks]  # fmt: skip
    cases.append(Case("preference: prompts that end with a mark", jsonl(rows), talks))
    talks = [[user(f"Q: {question(i)}\nA:"), assistant(answer(i))] for i in range(9240, 9246)]
    rows = [{"inputs": t[0]["text"], "targets": t[1]["text"]} for t in talks]
    cases.append(Case("prompts of questions stay as they are", jsonl(rows), talks))
    return cases


def _judged() -> list[Case]:
    cases = []
    for number, key in enumerate(("label", "kto_tag")):
        talks = pairs(9300 + 10 * number)
        rows: list[Row] = [{"messages": openai(talk), key: True} for talk in talks]
        rows += [{"messages": openai([talks[0][0], assistant(_BAD)]), key: False}]
        cases.append(Case(f"messages judged by {key}", jsonl(rows), talks,
                          drops={"rejected_answer": 1}))  # fmt: skip
    talks = pairs(9320)
    rows = [{"input": {"messages": openai(t[:1]), "tools": []}, "preferred_output": openai(t[1:]),
             "non_preferred_output": openai([assistant(_BAD)])} for t in talks]  # fmt: skip
    cases.append(Case("preference: OpenAI", jsonl(rows), talks))
    return cases


def _columns() -> list[Case]:
    talks = pairs(9400)
    rows: list[Row] = [{"inputs": [1, 2], "inputs_pretokenized": t[0]["text"], "targets": [3],
                        "targets_pretokenized": t[1]["text"]} for t in talks]  # fmt: skip
    cases = [Case("columns of P3", jsonl(rows), talks)]
    talks = pairs(9410)
    rows = [{"input_text": t[0]["text"], "output_text": t[1]["text"]} for t in talks]
    cases.append(Case("columns of Vertex", jsonl(rows), talks))
    talks = pairs(9420)
    rows = [{"context": "A long text.", "question": t[0]["text"],
             "answers": {"text": [t[1]["text"]], "answer_start": [0]}} for t in talks]  # fmt: skip
    cases.append(Case("answers of SQuAD", jsonl(rows), talks, says=("`context` looks",)))
    talks = longer(9430)
    rows = [{"preamble": t[0]["text"], "chat_history": openai(t[1:3]), "question": t[3]["text"],
             "answer": t[4]["text"]} for t in talks]  # fmt: skip
    cases.append(Case("a history beside a question", jsonl(rows), talks))
    talks = pairs(9440)
    rows = [{"question": t[0]["text"], "answer": t[1]["text"],
             "gpt4_response": "Quite another answer.", "thinking_trajectories": ["First this."],
             "answer_type": "one of a kind"} for t in talks]  # fmt: skip
    says = ("`gpt4_response` looks", "response: gpt4_response", "`thinking_trajectories` looks")
    cases.append(Case("answers beside the answer", jsonl(rows), talks, says=says))
    return cases


def _providers() -> list[Case]:
    talks, tools = with_tools(9500)
    rows: list[Row] = [{"messages": _bedrock(t),
                        "toolConfig": {"tools": [{"toolSpec": f} for f in functions]}}
                       for t, functions in zip(talks, tools, strict=True)]  # fmt: skip
    cases = [Case("tools: Bedrock Converse", jsonl(rows), talks, tools)]
    talks = [[{k: v for k, v in turn.items() if k != "thought"} for turn in talk]
             for talk in with_tools(9510)[0]]  # fmt: skip
    rows = [{"input": _responses(t[:-1]), "output": _responses(t[-1:])} for t in talks]
    cases.append(Case("tools: OpenAI Responses", jsonl(rows), talks))
    talks = pairs(9520)
    kinds = {"user": "human", "assistant": "ai"}
    rows = [{"messages": [{"type": kinds[t["role"]], "data": {"content": t["text"]}}
                          for t in talk]} for talk in talks]  # fmt: skip
    cases.append(Case("messages of LangChain", jsonl(rows), talks))
    talks = pairs(9530)
    rows = [{"inputs": {"messages": openai(t[:1])}, "outputs": {"message": openai(t[1:])[0]}}
            for t in talks]  # fmt: skip
    cases.append(Case("runs of LangSmith", jsonl(rows), talks))
    talks = pairs(9540)
    rows = [{"name": "n", "chat_messages": [
        {"sender": {"user": "human"}.get(t["role"], t["role"]), "text": t["text"]} for t in talk]}
        for talk in talks]  # fmt: skip
    cases.append(Case("an exported chat", jsonl(rows), talks))
    talks = [[t[0], {**t[1], "thought": f"Part {i} first."}] for i, t in enumerate(pairs(9560))]
    rows = [{"messages": [openai_turn(t[0]), {"role": "assistant", "content": [
        {"type": "thinking", "thinking": [{"type": "text", "text": t[1]["thought"]}]},
        {"type": "text", "text": t[1]["text"]}]}]} for t in talks]  # fmt: skip
    cases.append(Case("thoughts as lists of parts", jsonl(rows), talks))
    talks = pairs(9570)
    rows = [{"messages": [openai_turn(t[0]), {"role": "assistant", "content": None if i % 2 else [
        {"type": "refusal", "refusal": t[1]["text"]}], **({"refusal": t[1]["text"]} if i % 2
                                                         else {})}]}
            for i, t in enumerate(talks)]  # fmt: skip
    cases.append(Case("refusals", jsonl(rows), talks))
    talks = [[assistant("Hello."), *talk] for talk in pairs(9590)]
    rows = [{"conversation": [{"message": t["text"], "is_human": t["role"] == "user"}
                              for t in talk]} for talk in talks]  # fmt: skip
    told = "turns: {column: conversation, role: is_human, content: message}` and `roles"
    cases.append(Case("turns that say whether a human speaks", jsonl(rows), refused=told))
    settings = {"turns": {"column": "conversation", "role": "is_human", "content": "message"},
                "roles": {"true": "user", "false": "assistant"}}  # fmt: skip
    cases.append(Case("turns of a human or not", jsonl(rows), talks, settings=settings))
    rows = [{"chat": {"turn_1": {"Human": question(1), "MOSS": answer(1)}}}]
    cases.append(
        Case("turns under numbers", jsonl(rows), refused="`chat` is an object with turn_1")
    )
    rows = [
        {
            "messages": openai([user(f"<image> {question(1)}"), assistant(answer(1))]),
            "image_path": "a.jpg",
        },
        {"messages": openai(pairs(9580)[0]), "image_path": "b.jpg"},
    ]
    cases.append(Case("an image by its path", jsonl(rows), pairs(9580, 1),
                      drops={"image_or_audio": 1}))  # fmt: skip
    talks, tools = with_tools(9550)
    both = [[*t[:1], {**t[1], "calls": [*t[1]["calls"], ("weigh", {"grams": 1})]}, *t[2:]]
            for t in talks]  # fmt: skip
    rows = [{"messages": openai(t), "tools": json.dumps(tool)}
            for t, tool in zip(both, tools, strict=True)]  # fmt: skip
    cases.append(Case("tools: two calls in a turn", jsonl(rows), both, tools))
    return cases


def _bedrock(talk: Talk) -> list[Turn]:
    turns: list[Turn] = []
    for turn in talk:
        blocks: list[Any] = []
        if turn["role"] == "tool":
            result = {"toolUseId": "t", "content": [{"text": turn["text"]}]}
            turns.append({"role": "user", "content": [{"toolResult": result}]})
            continue
        if "thought" in turn:
            blocks.append({"reasoningContent": {"reasoningText": {"text": turn["thought"]}}})
        if turn["text"]:
            blocks.append({"text": turn["text"]})
        blocks += [{"toolUse": {"toolUseId": "t", "name": name, "input": arguments}}
                   for name, arguments in turn.get("calls", ())]  # fmt: skip
        turns.append({"role": turn["role"], "content": blocks})
    return turns


def _responses(talk: Talk) -> list[Turn]:
    items: list[Turn] = []
    for turn in talk:
        if turn["role"] == "tool":
            items.append({"type": "function_call_output", "call_id": "c", "output": turn["text"]})
        elif "calls" in turn:
            items += [{"type": "function_call", "call_id": "c", "name": name,
                       "arguments": json.dumps(arguments)}
                      for name, arguments in turn["calls"]]  # fmt: skip
        else:
            kind = "input_text" if turn["role"] == "user" else "output_text"
            items.append({"type": "message", "role": turn["role"],
                          "content": [{"type": kind, "text": turn["text"]}]})  # fmt: skip
    return items


PUBLISHED_CASES = [*_transcripts(), *_open_prompts(), *_judged(), *_columns(), *_providers()]
