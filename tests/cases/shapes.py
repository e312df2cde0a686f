"""Columns, turns and answers under the names that people give them."""

import json
from typing import Any

from tests.cases.case import Case, Row, jsonl, raw
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


def _columns(prompt: str, answer: str, talks: list[Talk], **more: str) -> list[Row]:
    return [{prompt: talk[0]["text"], answer: talk[1]["text"], **more} for talk in talks]


def _pair_cases() -> list[Case]:
    names = [
        ("question", "answer"), ("question", "response"), ("input", "output"), ("input", "target"),
        ("query", "response"), ("prompt", "answer"), ("prompt", "text"), ("instruction", "answer"),
        ("Question", "Answer"), ("Instruction", "Response"), ("user", "assistant"),
        ("problem", "solution"), ("Human", "Bot"), ("inputs", "targets"), ("prompt", "completion"),
    ]  # fmt: skip
    cases = []
    for number, (prompt, reply) in enumerate(names):
        talks = pairs(1000 + 10 * number)
        rows = _columns(prompt, reply, talks)
        cases.append(Case(f"columns {prompt} and {reply}", jsonl(rows), talks))
    return cases


def _system_cases() -> list[Case]:
    cases = []
    for number, name in enumerate(("system", "system_prompt", "preamble", "instruction")):
        start = 2000 + 10 * number
        talks = [[system(f"Rule {i % 2}."), *t] for i, t in enumerate(pairs(start))]
        rows = [{"messages": openai(talk[1:]), name: talk[0]["text"]} for talk in talks]
        cases.append(Case(f"messages beside {name}", jsonl(rows), talks))
    talks = [[system(f"Rule {i}."), *talk] for i, talk in enumerate(pairs(2100))]
    rows = [{"system_prompt": t[0]["text"], "question": t[1]["text"], "response": t[2]["text"]}
            for t in talks]  # fmt: skip
    cases.append(Case("system_prompt, question, response", jsonl(rows), talks))
    mapped = {"columns": {"prompt": "ask", "response": "reply"}}
    rows = [{"system_prompt": t[0]["text"], "ask": t[1]["text"], "reply": t[2]["text"]}
            for t in talks]  # fmt: skip
    cases.append(Case("system_prompt beside mapped columns", jsonl(rows), talks, settings=mapped))
    texts = [[talk[0], talk[2]] for talk in talks]
    rows = [{"system": talk[0]["text"], "text": talk[1]["text"]} for talk in texts]
    cases.append(Case("system beside a bare text", jsonl(rows), texts))
    talks = pairs(2110, 2)
    same = [[system("One."), *talks[0]], [system("Two."), *talks[0]]]
    rows = [{"system": t[0]["text"], "conversations": [
        {"from": "human", "value": t[1]["text"]}, {"from": "gpt", "value": t[2]["text"]}
    ]} for t in same]  # fmt: skip
    cases.append(Case("rows that differ in their system text alone", jsonl(rows), same))
    return cases


def _role_cases() -> list[Case]:
    spelled = {
        "capitals and spaces": ("User", " Assistant "),
        "human and AI": ("human", "AI"),
        "prompter and chatbot": ("prompter", "chatbot"),
        "HUMAN and GPT-4": ("HUMAN", "GPT-4"),
        "model": ("user", "model"),
    }
    cases = []
    for number, (name, roles) in enumerate(spelled.items()):
        talks = pairs(3000 + 10 * number)
        rows = [
            {"messages": [{"role": role, "content": turn["text"]}
                          for role, turn in zip(roles, talk, strict=True)]}
            for talk in talks
        ]  # fmt: skip
        cases.append(Case(f"roles: {name}", jsonl(rows), talks))
    talks = pairs(3100)
    rows = [{"messages": openai(talk)} for talk in talks]
    rows += [{"messages": [*openai(talks[0]), {"role": "critic", "content": "Bad."}]}] * 2
    cases.append(Case("an unknown role", jsonl(rows), talks, drops={"unknown_role": 2}))
    every = [
        {"messages": [{"role": str(k), "content": turn["text"]} for k, turn in enumerate(talk)]}
        for talk in pairs(3110)
    ]
    cases.append(Case("numbers for roles", jsonl(every), refused="role `0` is not known"))
    mapped = {"roles": {"0": "user", "1": "assistant"}}
    cases.append(Case("mapped roles", jsonl(every), pairs(3110), settings=mapped))
    return cases


def _turn_column_cases() -> list[Case]:
    talks = longer(4000)
    turns = [openai(talk) for talk in talks]
    cases = [Case("turns under dialogue", jsonl([{"dialogue": t} for t in turns]), talks)]
    talks = longer(4010)
    rows: list[Row] = [{"custom_id": f"r{i}", "body": {"model": "m", "messages": openai(talk)}}
                       for i, talk in enumerate(talks)]  # fmt: skip
    cases.append(Case("turns inside body", jsonl(rows), talks, says=("custom_id",)))
    talks = pairs(4020)
    rows = [{"id": i, "data": [turn["text"] for turn in talk]} for i, talk in enumerate(talks)]
    cases.append(Case("texts that alternate under data", jsonl(rows), talks))
    rows = [{"id": row["id"], "turns": row["data"]} for row in rows]
    cases.append(Case("texts under turns", jsonl(rows), refused="`turns: {column: turns}` reads"))
    cases.append(Case("texts under turns, named", jsonl(rows), talks,
                      settings={"turns": {"column": "turns"}}))  # fmt: skip
    talks = pairs(4030)
    rows = [{"chatter": [{"who_speaks": t["role"], "utters": t["text"]} for t in talk]}
            for talk in talks]  # fmt: skip
    named = {"turns": {"column": "chatter", "role": "who_speaks", "content": "utters"}}
    cases.append(Case("turns under names of their own", jsonl(rows), talks, settings=named))
    cases.append(Case("turns under unnamed names", jsonl(rows), refused="turns: {column: NAME"))
    talks = pairs(4040)
    rows = [{"conversation": [{"human": t[0]["text"], "assistant": t[1]["text"]}]} for t in talks]
    cases.append(Case("turns of both sides", jsonl(rows), talks))
    talks = pairs(4050, 4)
    rows = [{"messages": [openai(talks[i]), openai(talks[i + 1])]} for i in (0, 2)]
    cases.append(Case("several conversations a row", jsonl(rows), talks, n_rows=2))
    talks = pairs(4060)
    rows = [{"messages": {"role": ["user", "assistant"], "content": [t["text"] for t in talk]}}
            for talk in talks]  # fmt: skip
    cases.append(Case("columns of turns", jsonl(rows), talks))
    talks = pairs(4070)
    rows = [
        {"conversations": [{"from": speaker, "content": turn["text"]}
                           for speaker, turn in zip(("human", "gpt"), talk, strict=True)]}
        for talk in talks
    ]  # fmt: skip
    cases.append(Case("from and content", jsonl(rows), talks))
    talks = pairs(4200)
    rows = [{"messages": openai(t[:1]), "answer": t[1]["text"]} for t in talks]
    cases.append(Case("turns and an answer beside them", jsonl(rows), talks))
    talks = pairs(4210)
    rows = [{"request": {"messages": openai(t[:1])},
             "response": {"choices": [{"message": openai_turn(t[1])}]}} for t in talks]  # fmt: skip
    cases.append(Case("a request and its response", jsonl(rows), talks))
    talks = pairs(4220)
    rows = [{"messages": openai(t), "answer": "Another one."} for t in talks]
    cases.append(Case("whole turns and an answer", jsonl(rows), talks, says=("`answer` looks",)))
    talks = pairs(4080, 3)
    rows = [row for i, talk in enumerate(talks) for row in (
        {"message_id": f"q{i}", "parent_id": None, "role": "prompter", "text": talk[0]["text"]},
        {"message_id": f"a{i}", "parent_id": f"q{i}", "role": "assistant", "text": talk[1]["text"]},
    )]  # fmt: skip
    cases.append(Case("one message a row", jsonl(rows), talks, drops={"in_conversation": 3}))
    talks = pairs(4090, 3)
    rows = [{"prompt": {"role": "prompter", "text": t[0]["text"], "replies": [
        {"role": "assistant", "text": t[1]["text"], "replies": []}]}} for t in talks]  # fmt: skip
    cases.append(Case("trees of replies", jsonl(rows), talks))
    styles = {
        "### Human": "### Human: {0}### Assistant: {1}",
        "im_start": "<|im_start|>user\n{0}<|im_end|>\n<|im_start|>assistant\n{1}<|im_end|>\n",
        "INST": "<s>[INST] {0} [/INST] {1} </s>",
        "Human: Assistant:": "\n\nHuman: {0}\n\nAssistant: {1}",
        "### Instruction": "### Instruction:\n{0}\n\n### Response:\n{1}",
    }
    for number, (name, style) in enumerate(styles.items()):
        talks = pairs(4100 + 10 * number)
        rows = [{"text": style.format(talk[0]["text"], talk[1]["text"])} for talk in talks]
        cases.append(Case(f"transcript {name}", jsonl(rows), talks))
    return cases


def _preference_cases() -> list[Case]:
    bad = "I would rather not."
    talks = pairs(5000)
    cases = []
    rows: list[Row] = [{"prompt": t[0]["text"], "chosen": t[1]["text"], "rejected": bad}
                       for t in talks]  # fmt: skip
    cases.append(Case("preference: texts", jsonl(rows), talks, says=("as preference",)))
    talks = pairs(5010)
    rows = [{"prompt": t[0]["text"], "messages": openai(t), "chosen": openai(t),
             "rejected": openai([t[0], assistant(bad)])} for t in talks]  # fmt: skip
    cases.append(Case("preference: messages", jsonl(rows), talks))
    talks = pairs(5020)
    rows = [{"conversations": [{"from": "human", "value": t[0]["text"]}],
             "chosen": {"from": "gpt", "value": t[1]["text"]},
             "rejected": {"from": "gpt", "value": bad}} for t in talks]  # fmt: skip
    cases.append(Case("preference: ShareGPT", jsonl(rows), talks))
    talks = pairs(5030)
    rows = [{"instruction": t[0]["text"], "input": "", "chosen": t[1]["text"], "rejected": bad}
            for t in talks]  # fmt: skip
    cases.append(Case("preference: alpaca", jsonl(rows), talks))
    talks = pairs(5040)
    rows = [{side: f"\n\nHuman: {t[0]['text']}\n\nAssistant: {text}"
             for side, text in (("chosen", t[1]["text"]), ("rejected", bad))}
            for t in talks]  # fmt: skip
    cases.append(Case("preference: transcripts", jsonl(rows), talks))
    rows = [{"prompt": t[0]["text"], "messages": openai([t[0], assistant("Another answer.")]),
             "chosen": t[1]["text"], "rejected": bad} for t in pairs(5050)]  # fmt: skip
    cases.append(Case("preference or messages", jsonl(rows), refused="shape: preference"))
    talks = pairs(5060)
    rows = [{"prompt": t[0]["text"], "completion": t[1]["text"], "label": True} for t in talks]
    rows += [{"prompt": t[0]["text"], "completion": bad, "label": False} for t in talks[:2]]
    cases.append(Case("answers marked as bad", jsonl(rows), talks, drops={"rejected_answer": 2}))
    return cases


def _answer_cases() -> list[Case]:
    def talk(i: int, text: str) -> Talk:
        return [user(question(i)), assistant(text)]

    text = json.dumps([{"role": "smith", "name": "Ada"}])
    talks = [talk(6000 + i, text) for i in range(4)]
    cases = [Case("an answer that is JSON", jsonl(_columns("prompt", "completion", talks)), talks)]
    rows: list[Row] = [{"prompt": question(6010 + i), "completion": [{"role": "smith"}]}
                       for i in range(4)]  # fmt: skip
    cases.append(Case("answers of objects", jsonl(rows), refused="`completion` is a list of 1"))
    spelled = [
        '{"b": [1, 2.0,1e3], "a": {"x": null, "é": "\\u00e9"}}',
        '[ {"role": "smith"}, {"role": "cook"} ]',
        '["One.", "Two."]',
    ]
    rows_as_text = [
        f'{{ "completion" :{text}, "prompt": "{question(i)}"}}' for i, text in enumerate(spelled)
    ]
    talks = [talk(i, text) for i, text in enumerate(spelled)]
    cases.append(Case("answers as the file spells them", raw("\n".join(rows_as_text).encode(),
                      "pool.jsonl"), talks, settings={"answers": "json"}))  # fmt: skip
    rows = [{"instruction": question(6020 + i), "output": [answer(i), "Or not."]} for i in range(4)]
    cases.append(Case("several answers", jsonl(rows), refused="`answers: first`"))
    firsts = [talk(6020 + i, answer(i)) for i in range(4)]
    cases.append(Case("the first of several answers", jsonl(rows), firsts,
                      settings={"answers": "first"}))  # fmt: skip
    talks = pairs(6030)
    rows = [{"messages": openai(t)} for t in talks]
    rows += [{"messages": [{"role": "user", "content": "2?"}, {"role": "assistant", "content": 2}]}]
    cases.append(Case("a number for an answer", jsonl(rows), talks, drops={"not_text": 1}))
    rows = [{"messages": openai(t)} for t in pairs(6050)]
    strange: list[Any] = [["One.", "Two."], {"text": ["One."]}, {"text": 2}, [{"text": ["One."]}]]
    rows += [{"messages": [{"role": "user", "content": "2?"}, {"role": "assistant", "content": x}]}
             for x in strange]  # fmt: skip
    cases.append(Case("lists and numbers inside contents", jsonl(rows), pairs(6050),
                      drops={"not_text": 4}))  # fmt: skip
    rows = [{"q": question(i), "n": i} for i in range(4)]
    mapped = {"columns": {"prompt": "q", "response": "n"}}
    cases.append(Case("a mapped number", jsonl(rows), refused="`n` is the number", settings=mapped))
    talks = pairs(6040)
    rows = [{"question": t[0]["text"], "answer": t[1]["text"], "rationale": "It holds."}
            for t in talks]  # fmt: skip
    says = ("`rationale` looks like", "columns: {reasoning: rationale}")
    cases.append(Case("a rationale beside", jsonl(rows), talks, says=says))
    thought = [[t[0], {**t[1], "thought": "It holds."}] for t in talks]
    mapped = {"columns": {"reasoning": "rationale"}}
    cases.append(Case("a mapped rationale", jsonl(rows), thought, settings=mapped))
    return cases


def _anthropic(talk: Talk) -> list[Turn]:
    turns: list[Turn] = []
    for turn in talk:
        if turn["role"] == "tool":
            block = {"type": "tool_result", "tool_use_id": "t", "content": turn["text"]}
            turns.append({"role": "user", "content": [block]})
            continue
        blocks: list[Turn] = []
        if "thought" in turn:
            blocks.append({"type": "thinking", "thinking": turn["thought"], "signature": "s"})
        if turn["text"]:
            blocks.append({"type": "text", "text": turn["text"]})
        blocks += [{"type": "tool_use", "id": "t", "name": name, "input": arguments}
                   for name, arguments in turn.get("calls", ())]  # fmt: skip
        turns.append({"role": turn["role"], "content": blocks})
    return turns


def _gemini(talk: Talk) -> list[Turn]:
    turns: list[Turn] = []
    for turn in talk:
        parts: list[Turn] = []
        if turn["role"] == "tool":
            reply = {"name": "t", "response": turn["text"]}
            turns.append({"role": "user", "parts": [{"functionResponse": reply}]})
            continue
        if "thought" in turn:
            parts.append({"text": turn["thought"], "thought": True})
        if turn["text"]:
            parts.append({"text": turn["text"]})
        parts += [{"functionCall": {"name": name, "args": arguments}}
                  for name, arguments in turn.get("calls", ())]  # fmt: skip
        role = "model" if turn["role"] == "assistant" else "user"
        turns.append({"role": role, "parts": parts})
    return turns


def _tool_cases() -> list[Case]:
    cases = []
    talks, tools = with_tools(7000)
    rows: list[Row] = [{"messages": openai(t), "tools": tool}
                       for t, tool in zip(talks, tools, strict=True)]  # fmt: skip
    cases.append(Case("tools: OpenAI", jsonl(rows), talks, tools))
    talks, tools = with_tools(7010)
    rows = [{"messages": [_legacy(turn) for turn in t], "functions": tool}
            for t, tool in zip(talks, tools, strict=True)]  # fmt: skip
    cases.append(Case("tools: legacy functions", jsonl(rows), talks, tools))
    talks, tools = with_tools(7020)
    rows = [{"messages": _anthropic(t), "tools": tool}
            for t, tool in zip(talks, tools, strict=True)]  # fmt: skip
    cases.append(Case("tools: Anthropic blocks", jsonl(rows), talks, tools))
    talks, tools = with_tools(7030)
    rows = [{"contents": _gemini(t), "tools": [{"functionDeclarations": tool}]}
            for t, tool in zip(talks, tools, strict=True)]  # fmt: skip
    cases.append(Case("tools: Gemini parts", jsonl(rows), talks, tools))
    talks, tools = with_tools(7040)
    rows = [{"conversations": _sharegpt(t), "tools": json.dumps(tool)}
            for t, tool in zip(talks, tools, strict=True)]  # fmt: skip
    cases.append(Case("tools: ShareGPT", jsonl(rows), talks, tools))
    talks, tools = with_tools(7070)
    bare: list[Any] = [
        tools[0],
        [{**tools[1][0], "type": "function"}],
        [{"name": "weigh", "description": "To weigh.", "input_schema": tools[3][0]["parameters"]}],
        [json.dumps(tools[3][0])],
    ]
    rows = [{"messages": openai(t), "tools": tool} for t, tool in zip(talks, bare, strict=False)]
    tools = [tools[0], tools[1], tools[3], tools[3]]
    cases.append(Case("tools: bare definitions", jsonl(rows), talks[:4], tools))
    talks, _ = with_tools(7080)
    rows = [{"messages": openai(t), "tools": ["polish", "sweep"]} for t in talks]
    cases.append(Case("tools: names alone", jsonl(rows), talks, says=("`tools` looks",)))
    talks, tools = with_tools(7060)
    turns = [openai(t) for t in talks]
    for number, many in enumerate(turns):
        for turn in many:
            if turn["role"] == "assistant":
                calls = turn.get("tool_calls", [])
                turn["tool_calls"] = repr(calls) if number % 2 else json.dumps(calls)
    rows = [{"messages": many, "tools": tool} for many, tool in zip(turns, tools, strict=True)]
    odd = [user(question(1)), {**openai_turn(assistant(answer(1))), "tool_calls": "weigh it"}]
    rows.append({"messages": [openai_turn(odd[0]), odd[1]]})
    cases.append(Case("tools: calls as texts", jsonl(rows), talks, tools,
                      drops={"not_text": 1}))  # fmt: skip
    talks = [[t[0], {**t[1], "text": "", "thought": f"{t[1]['text']} Surely."}]
             for t in pairs(7050)]  # fmt: skip
    rows = [{"messages": openai(t)} for t in talks]
    cases.append(Case("reasoning alone", jsonl(rows), talks))
    return cases


def _legacy(turn: Turn) -> Turn:
    message: Turn = {"role": turn["role"], "content": turn["text"]}
    if turn["role"] == "tool":
        message |= {"role": "function", "name": "t"}
    if "thought" in turn:
        message["thinking"] = turn["thought"]
    for name, arguments in turn.get("calls", ()):
        message["function_call"] = {"name": name, "arguments": json.dumps(arguments)}
    return message


def _sharegpt(talk: Talk) -> list[Turn]:
    speakers = {"user": "human", "assistant": "gpt", "tool": "observation"}
    turns: list[Turn] = []
    for turn in talk:
        if "calls" in turn:
            [(name, arguments)] = turn["calls"]
            value: Any = {"name": name, "arguments": arguments}
            turns.append({"from": "function_call", "value": value, "thinking": turn["thought"]})
        else:
            turns.append({"from": speakers[turn["role"]], "value": turn["text"]})
    return turns


SHAPE_CASES = [
    *_pair_cases(), *_system_cases(), *_role_cases(), *_turn_column_cases(), *_preference_cases(),
    *_answer_cases(), *_tool_cases(),
]  # fmt: skip
