"""Two answers and a verdict, worse answers beside turns, and chats as they are exported."""

import json
from typing import Any

from tests.cases.case import Case, Row, jsonl, raw, table
from tests.cases.talks import Talk, assistant, longer, openai, pairs, user

_BAD = "I would rather not."


def _verdict_cases() -> list[Case]:
    def case(name: str, start: int, names: tuple[str, str], verdicts: list[Row], tie: Row) -> Case:
        """Rows whose first and second answer is the good one in turn, and a tie."""
        talks = pairs(start)
        rows: list[Row] = []
        for i, talk in enumerate(talks):
            texts = [talk[1]["text"], _BAD] if i % 2 == 0 else [_BAD, talk[1]["text"]]
            rows.append({"prompt": talk[0]["text"], **dict(zip(names, texts, strict=True)),
                         **verdicts[i % 2]})  # fmt: skip
        rows.append({**rows[0], **tie})
        drops = {"rejected_answer": 1}
        return Case(f"two answers: {name}", jsonl(rows), talks, drops=drops,
                    says=("as preference",))  # fmt: skip

    cases = [
        case("signed strength", 9600, ("response_1", "response_2"),
             [{"preference_strength": -2}, {"preference_strength": 3}],
             {"preference_strength": 0}),
        case("winner", 9610, ("response_a", "response_b"),
             [{"winner": "model_a"}, {"winner": "model_b"}], {"winner": "tie (bothbad)"}),
        case("winner by its model", 9620, ("answer_a", "answer_b"),
             [{"model_a": "gpt", "model_b": "llama", "winner": "gpt"},
              {"model_a": "gpt", "model_b": "llama", "winner": "llama"}], {"winner": "Tie"}),
        case("winner in two columns", 9630, ("response_a", "response_b"),
             [{"winner_model_a": 1, "winner_model_b": 0}, {"winner_model_a": 0,
                                                           "winner_model_b": 1}],
             {"winner_model_a": 0, "winner_tie": 1}),
        case("scores", 9640, ("answer_0", "answer_1"),
             [{"score_0": 1.0, "score_1": -1.0}, {"score_0": -0.5, "score_1": 0.5}],
             {"score_0": 0.0, "score_1": 0.0}),
    ]  # fmt: skip
    talks = pairs(9650)
    rows: list[Row] = [
        {"prompt": t[0]["text"], "response_0": _BAD, "response_1": t[1]["text"],
         "better_response_id": 1} for t in talks
    ]  # fmt: skip
    cases.append(Case("two answers: number of the better", jsonl(rows), talks))
    return cases


def _conversation_cases() -> list[Case]:
    talks = longer(9700)
    rows: list[Row] = [
        {"conversation_a": openai([*talk[:-1], assistant(_BAD)]), "conversation_b": openai(talk),
         "winner": "model_b"} for talk in talks
    ]  # fmt: skip
    cases = [Case("two conversations", jsonl(rows), talks)]
    talks = longer(9710)
    rows = [{"context": openai(talk[:-1]), "response1": talk[-1]["text"], "response2": _BAD,
             "overall_preference": -3} for talk in talks]  # fmt: skip
    cases.append(Case("two answers to turns in a context", jsonl(rows), talks))
    talks = [talk[1:] for talk in longer(9720)]
    rows = [{"prompt": json.dumps([turn["text"] for turn in talk[::2]]),
             "response_a": json.dumps([turn["text"] for turn in talk[1::2]]),
             "response_b": json.dumps([_BAD, _BAD]), "winner": "model_a"}
            for talk in talks]  # fmt: skip
    cases.append(Case("two answers to each of several prompts", jsonl(rows), talks))
    for number, (key, whole) in enumerate((("rejected_response", False),
                                           ("rejected_messages", True))):  # fmt: skip
        talks = longer(9730 + 10 * number)
        rows = [{"messages": openai(talk),
                 key: openai([*talk[:-1], assistant(_BAD)]) if whole else _BAD}
                for talk in talks]  # fmt: skip
        cases.append(Case(f"turns and {key}", jsonl(rows), talks, says=("as preference",)))
    talks = longer(9760)
    rows = [{side: json.dumps(openai([*talk[:-1], end]))
             for side, end in (("conversation_a", assistant(_BAD)), ("conversation_b", talk[-1]))}
            | {"winner": "model_b"} for talk in talks]  # fmt: skip
    cases.append(Case("two conversations as texts", table(rows), talks))
    talks = longer(9770)
    rows = [{"prompt": json.dumps(openai(talk[:-1])), "chosen": json.dumps(openai(talk[-1:])),
             "rejected": repr(openai([assistant(_BAD)]))} for talk in talks]  # fmt: skip
    cases.append(Case("preference: messages as texts", table(rows), talks))
    talks = longer(9780)
    rows = [{"prompt": json.dumps(openai(talk[:-1])), "completion": json.dumps(openai(talk[-1:]))}
            for talk in talks]  # fmt: skip
    cases.append(Case("prompt and completion of messages as texts", table(rows), talks))
    talks = longer(9750)
    rows = [{"messages": openai(talk), "rejected": False, "response_a": 1, "response_b": 2,
             "winner": "a"} for talk in talks]  # fmt: skip
    cases.append(Case("turns beside flags and scores", jsonl(rows), talks, says=("as messages",)))
    return cases


def _ranked_cases() -> list[Case]:
    """Lists of answers with numbers: the best one is the answer, wherever it stands."""
    shapes: dict[str, tuple[str, str, str, tuple[float, ...]]] = {
        "ranks": ("prompt", "answers", "rank", (3, 1, 2)),
        "scores": ("instruction", "completions", "overall_score", (4.5, 9, -1)),
        "columns of scores": ("question", "generations", "ratings", (1, 5, 5)),
        "columns of ranks": ("instruction", "responses", "ranks", (2, 1, 3)),
    }
    cases = []
    for number, (name, (prompt, column, verdict, numbers)) in enumerate(shapes.items()):
        talks = pairs(9850 + 10 * number)
        rows: list[Row] = []
        for talk in [*talks, talks[0]]:
            texts = [_BAD, talk[1]["text"], "No."]
            given = numbers if len(rows) < len(talks) else (1, 1, 1)
            beside = {column: texts, verdict: list(given)}
            inside = {column: [{"model": "m", "response": text, verdict: value}
                               for text, value in zip(texts, given, strict=True)]}  # fmt: skip
            rows.append({prompt: talk[0]["text"], **(beside if "column" in name else inside)})
        cases.append(Case(f"ranked answers: {name}", jsonl(rows), talks,
                          drops={"rejected_answer": 1}, says=("as preference",)))  # fmt: skip
    talks = pairs(9890)
    rows = [{"prompt": t[0]["text"], "response": t[1]["text"], "responses": ["No.", "Never, no."],
             "scores": [1, 2]} for t in talks]  # fmt: skip
    cases.append(Case("ranked answers beside the answer", jsonl(rows), talks,
                      says=("`responses` looks", "`answers: first` would use it")))  # fmt: skip
    rows = [{"prompt": t[0]["text"], "answers": [{"answer": "a"}, {"answer": "b"}]} for t in talks]
    cases.append(Case("answers of no rank", jsonl(rows), refused="a list of 2 objects with answer"))
    return cases


def _nodes(talk: Talk, other: str) -> Row:
    """A chat of two turns, of which the second was written twice."""

    def node(name: str, parent: str | None, message: Any, children: list[str]) -> Row:
        return {"id": name, "message": message, "parent": parent, "children": children}

    def message(role: str, text: str) -> Row:
        return {"author": {"role": role}, "metadata": {}, "weight": 1.0,
                "content": {"content_type": "text", "parts": [text]}}  # fmt: skip

    return {
        "root": node("root", None, None, ["s"]),
        "s": node("s", "root", message("system", ""), ["q"]),
        "q": node("q", "s", message("user", talk[0]["text"]), ["a", "b"]),
        "a": node("a", "q", message("assistant", talk[1]["text"]), []),
        "b": node("b", "q", message("assistant", other), []),
    }


def _export_cases() -> list[Case]:
    talks = pairs(9800)
    chats = [{"title": "t", "mapping": _nodes(talk, "Another answer."), "current_node": "a"}
             for talk in talks]  # fmt: skip
    both = [t for talk in talks for t in (talk, [talk[0], assistant("Another answer.")])]
    cases = [Case("chats of nodes", raw(json.dumps(chats).encode(), "conversations.json"), both,
                  n_rows=6)]  # fmt: skip
    talks = [[user(f"What is {i} squared?"),
              assistant(None, thought=f"{i} times {i}."), assistant(f"print({i}**2)"),
              {"role": "tool", "text": str(i * i)}, assistant(f"It is {i * i}.")]
             for i in range(9810, 9814)]  # fmt: skip
    rows: list[Row] = []
    for talk in talks:
        contents: list[Row] = [
            {"content_type": "text", "parts": [talk[0]["text"]]},
            {"content_type": "thoughts", "thoughts": [{"content": talk[1]["thought"]}]},
            {"content_type": "reasoning_recap", "content": "Thought for 2 s"},
            {"content_type": "code", "text": talk[2]["text"]},
            {"content_type": "execution_output", "text": talk[3]["text"]},
            {"content_type": "text", "parts": [talk[4]["text"]]},
        ]
        roles = ("user", "assistant", "assistant", "assistant", "tool", "assistant")
        nodes = {
            str(i): {"id": str(i), "parent": str(i - 1) if i else None,
                     "children": [str(i + 1)] if i < 5 else [],
                     "message": {"author": {"role": role}, "content": content}}
            for i, (role, content) in enumerate(zip(roles, contents, strict=True))
        }  # fmt: skip
        rows.append({"mapping": nodes})
    picture = {
        "content_type": "multimodal_text",
        "parts": [{"content_type": "image_asset_pointer", "asset_pointer": "file"}, "What is it?"],
    }
    rows.append(
        {
            "mapping": {
                "1": {
                    "id": "1",
                    "parent": None,
                    "children": [],
                    "message": {"author": {"role": "user"}, "content": picture},
                }
            }
        }
    )
    cases.append(Case("chats with thoughts and code", jsonl(rows), talks,
                      drops={"image_or_audio": 1}))  # fmt: skip
    return cases


def _reply_cases() -> list[Case]:
    talks = pairs(9900)
    text = [{"type": "text", "text": ""}]
    rows: list[Row] = [
        {"params": {"messages": openai(t[:1])}, "result": {"type": "succeeded", "message": {
            "role": "assistant", "content": [{**text[0], "text": t[1]["text"]}]}}} for t in talks
    ]  # fmt: skip
    cases = [Case("a batch and its results", jsonl(rows), talks)]
    talks = pairs(9910)
    rows = [
        {
            "request": {"contents": [{"role": "user", "parts": [{"text": t[0]["text"]}]}]},
            "response": {
                "candidates": [{"content": {"role": "model", "parts": [{"text": t[1]["text"]}]}}]
            },
        }
        for t in talks
    ]
    cases.append(Case("a request and its candidates", jsonl(rows), talks))
    return cases


COMPARED_CASES = [
    *_ranked_cases(),
    *_verdict_cases(),
    *_conversation_cases(),
    *_export_cases(),
    *_reply_cases(),
]
