"""Chats as ChatGPT exports them: nodes by id, each with a message, its parent and its children."""

from collections.abc import Mapping

from selection.data.messages.problems import Message

_OF_THE_APP = ("user_editable_context", "reasoning_recap", "model_editable_context")
"""Kinds of content that the application shows or hides, and that nobody said."""


def tree_of_nodes(nodes: Mapping[str, object]) -> list[object]:
    """The first turns of a chat, each with its `replies`; empty for an object of anything else.

    Nodes that say nothing are left out; what follows them follows what came before.
    """
    known = {name: node for name, node in nodes.items() if isinstance(node, dict)}
    if len(known) != len(nodes) or not all("message" in node for node in known.values()):
        return []
    turns = {name: _turn(node["message"]) for name, node in known.items()}
    above: dict[str, str | None] = {}
    for name, node in known.items():
        parent, seen = node.get("parent"), {name}
        while parent in known and turns[parent] is None and parent not in seen:
            seen.add(parent)
            parent = known[parent].get("parent")
        above[name] = parent if parent in known and parent not in seen else None
    roots: list[object] = []
    for name in _in_order(known):
        if (turn := turns[name]) is not None:
            parent_turn = turns.get(above[name] or "")
            siblings = roots if parent_turn is None else parent_turn["replies"]
            assert isinstance(siblings, list)
            siblings.append(turn)
    return roots


def _in_order(nodes: Mapping[str, Message]) -> list[str]:
    """Names of the nodes, children in the order that their parent gives."""
    listed = [child for node in nodes.values() for child in _children(node)]
    first = [name for name in nodes if name not in set(listed)]
    return first + [name for name in dict.fromkeys(listed) if name in nodes]


def _children(node: Message) -> list[str]:
    children = node.get("children")
    return (
        [child for child in children if isinstance(child, str)]
        if isinstance(children, list)
        else []
    )


def _turn(message: object) -> Message | None:
    """A turn {role, content, replies}; None for a node that says nothing."""
    if not isinstance(message, dict) or not isinstance(author := message.get("author"), dict):
        return None
    content = message.get("content")
    if not isinstance(content, dict) or content.get("content_type") in _OF_THE_APP:
        return None
    if isinstance(thoughts := content.get("thoughts"), list):
        parts = [{"type": "thinking", "thinking": thought.get("content")} for thought in thoughts
                 if isinstance(thought, dict) and thought.get("content")]  # fmt: skip
        spoken: object = parts
    elif isinstance(parts_of := content.get("parts"), list):
        spoken = [{"type": part.get("content_type"), **part} if isinstance(part, dict) else part
                for part in parts_of]  # fmt: skip
        if all(isinstance(part, str) for part in parts_of):
            spoken = "".join(parts_of)
    else:
        spoken = content.get("text", content.get("result"))
    if not spoken:
        return None
    return {"role": author.get("role"), "content": spoken, "replies": []}
