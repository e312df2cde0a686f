"""BOS, truncation, batches and refusals of rendering."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from selection.core.errors import InputError
from selection.interactive.reader import DEMO_FOLDER
from selection.records import Rendered
from selection.rendering.renderer import load_renderer, render_key
from tests import chat_templates, tiny_tokenizers
from tests.rendering_cases import CONVERSATIONS, LONG, assistant, user, with_template


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


@pytest.fixture(scope="module")
def byte_tokenizer(folder: Path) -> Path:
    return tiny_tokenizers.byte_level(folder / "bytes")


@pytest.mark.parametrize("adds_bos", [False, True])
@pytest.mark.parametrize("template", ["auto", "plain"])
def test_bos_comes_exactly_once_and_never_counts(
    adds_bos: bool, template: str, tmp_path: Path
) -> None:
    tokenizer = tiny_tokenizers.byte_level(tmp_path / "t", chat_templates.LLAMA3, adds_bos)
    renderer = load_renderer(tokenizer, template=template, max_length=LONG)
    rendered = renderer.render([user("Hi"), assistant("Hello")])
    bos = AutoTokenizer.from_pretrained(tokenizer).bos_token_id
    assert rendered.tokens[0] == bos
    assert (rendered.tokens == bos).sum() == 1
    assert not rendered.content_mask[0]


@pytest.mark.parametrize("adds_bos", [False, True])
def test_template_tokens_and_bos_count_where_that_is_asked(adds_bos: bool, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizers.byte_level(tmp_path / "t", chat_templates.LLAMA3, adds_bos)
    sample = [user("Hi"), assistant("Hello")]
    masks = {
        counted: load_renderer(tokenizer, counted=counted, max_length=LONG).render(sample)
        for counted in ("all", "all_and_template", "every_token")
    }
    everything = masks["every_token"]
    assert everything.content_mask.all()
    assert masks["all_and_template"].content_mask.tolist() == [False] + [True] * (
        len(everything.tokens) - 1
    )
    assert 0 < masks["all"].content_mask.sum() < len(everything.tokens) - 1
    assert len({render_key(found) for found in masks.values()}) == 3


def test_what_stands_around_an_encoders_text_counts_where_that_is_asked(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizers.word_piece(tmp_path / "t")
    counted = [
        load_renderer(tokenizer, counted=how, max_length=LONG)
        .render([user("the user")])
        .content_mask
        for how in ("all_and_template", "every_token")
    ]
    assert counted[0].tolist() == [False] + [True] * (len(counted[0]) - 1)
    assert counted[1].all()


def test_counted_text_is_the_content_alone(byte_tokenizer: Path) -> None:
    renderer = load_renderer(byte_tokenizer, max_length=LONG)
    rendered = renderer.render([user("Größe 猫"), assistant("two\nlines")])
    assert renderer.counted_text(rendered).split() == ["Größe", "猫", "two", "lines"]
    ids = rendered.tokens[rendered.content_mask]
    assert renderer.token_text(int(ids[0])) == "G"
    assert renderer.n_token_ids > int(ids.max())


def test_bos_is_added_where_the_tokenizer_adds_it_and_the_template_does_not(
    tmp_path: Path,
) -> None:
    tokenizer = tiny_tokenizers.byte_level(tmp_path / "t", chat_templates.CHATML, adds_bos=True)
    rendered = load_renderer(tokenizer, max_length=LONG).render([user("Hi"), assistant("Hello")])
    bos = AutoTokenizer.from_pretrained(tokenizer).bos_token_id
    assert rendered.tokens.tolist().count(bos) == 1
    assert rendered.tokens[0] == bos
    assert rendered.n_full == len(rendered.tokens)


def test_a_model_without_bos_gets_none(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizers.byte_level(tmp_path / "t", chat_templates.CHATML)
    rendered = load_renderer(tokenizer, max_length=LONG).render([user("Hi"), assistant("Hello")])
    bos = AutoTokenizer.from_pretrained(tokenizer).bos_token_id
    assert bos not in rendered.tokens


def test_encoders_get_their_tokens_around_the_text(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizers.word_piece(tmp_path / "t")
    renderer = load_renderer(tokenizer, max_length=LONG)
    rendered = renderer.render([user("The USER asks"), assistant("日 the system")])
    reader = AutoTokenizer.from_pretrained(tokenizer)
    expected = reader("User: The USER asks\n\nAssistant: 日 the system\n\n").input_ids
    assert rendered.tokens.tolist() == expected
    counted = reader.convert_ids_to_tokens(rendered.tokens[rendered.content_mask].tolist())
    assert counted == [*reader.tokenize("The USER asks"), "[UNK]", *reader.tokenize("the system")]
    short = load_renderer(tokenizer, max_length=8).render([user("the user asks a question")])
    assert len(short.tokens) == 8
    assert short.tokens[[0, -1]].tolist() == [reader.cls_token_id, reader.sep_token_id]
    assert not short.content_mask[[0, -1]].any()


def test_tokenizers_that_bind_spaces_to_words_count_the_word(tmp_path: Path) -> None:
    template = (
        "{{ bos_token }}{% for m in messages %}"
        "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        "{% else %} {{ m.content }} {% endif %}{% endfor %}"
    )
    tokenizer = tiny_tokenizers.metaspace(tmp_path / "t", template)
    renderer = load_renderer(tokenizer, max_length=LONG)
    rendered = renderer.render([user("the user"), assistant("naïve 😀 system")])
    counted = [text for text, counts in renderer.marked_text(rendered) if counts]
    assert [text.strip() for text in counted] == ["the user", "naïve 😀 system"]
    assert rendered.tokens.tolist().count(1) == 1


def slow_truncation(rendered: Rendered, prompt: Rendered, limit: int, how: str) -> list[int]:
    """Positions kept, by dropping one token after the other."""
    kept = list(range(len(rendered.tokens)))
    while len(kept) > limit:
        if how == "end":
            kept.pop()
        elif how == "start":
            kept.pop(1)  # Position 0 is BOS.
        else:
            left = [at for at in kept if prompt.content_mask[at]]
            kept.remove(left[0] if left else kept[-1])
    return kept


@pytest.mark.parametrize("how", ["end", "start", "keep_response"])
def test_truncation_equals_dropping_tokens_one_by_one(how: str, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizers.byte_level(tmp_path / "t", chat_templates.CHATML, adds_bos=True)
    messages = [user("One long question?"), assistant("1 and 1"), user("Two?"), assistant("2")]
    whole = load_renderer(tokenizer, max_length=LONG).render(messages)
    prompt = load_renderer(tokenizer, max_length=LONG, counted="prompt").render(messages)
    for limit in (8, 9, 15, 20, 30, 31, len(whole.tokens) - 1, len(whole.tokens)):
        renderer = load_renderer(tokenizer, max_length=limit, truncation=how)
        found = renderer.render(messages)
        kept = slow_truncation(whole, prompt, limit, how)
        assert found.tokens.tolist() == whole.tokens[kept].tolist()
        assert found.content_mask.tolist() == whole.content_mask[kept].tolist()
        assert found.n_full == len(whole.tokens)
        assert found.truncated == (limit < len(whole.tokens))


def test_a_response_never_vanishes_silently(byte_tokenizer: Path, tmp_path: Path) -> None:
    messages = [user("long " * 50), assistant("short")]
    lost = with_template(byte_tokenizer, chat_templates.CHATML, tmp_path, max_length=60)
    assert lost.render(messages).response_lost
    assert lost.counts["response_lost"] == lost.counts["truncated"] == 1
    for how in ("start", "keep_response"):
        kept = with_template(
            byte_tokenizer, chat_templates.CHATML, tmp_path, max_length=60, truncation=how
        )
        rendered = kept.render(messages)
        assert rendered.truncated
        assert not rendered.response_lost
    whole = with_template(byte_tokenizer, chat_templates.CHATML, tmp_path)
    assert not whole.render(messages).response_lost
    assert not lost.render([user("long " * 50)]).response_lost  # There never was one.


def test_samples_without_anything_to_count_are_reported(
    byte_tokenizer: Path, tmp_path: Path
) -> None:
    renderer = with_template(byte_tokenizer, chat_templates.CHATML, tmp_path, counted="response")
    rendered = renderer.render([user("A question without an answer")])
    assert not rendered.content_mask.any()
    assert renderer.counts["nothing_counted"] == 1


def test_a_batch_renders_as_its_samples_do_alone(byte_tokenizer: Path, tmp_path: Path) -> None:
    pairs = [(messages, None) for messages in CONVERSATIONS.values()]
    renderer = with_template(byte_tokenizer, chat_templates.LLAMA3, tmp_path)
    together = [render_key(rendered) for rendered in renderer.render_batch(pairs)]
    backwards = [render_key(rendered) for rendered in renderer.render_batch(pairs[::-1])]
    fresh = with_template(byte_tokenizer, chat_templates.LLAMA3, tmp_path)
    assert together == [render_key(fresh.render(messages)) for messages, _ in pairs]
    assert together == backwards[::-1]


def test_the_key_depends_on_tokens_and_mask_alone() -> None:
    def rendered(tokens: Sequence[int], counted: Sequence[bool], n_full: int = 9) -> Rendered:
        ids, mask = np.array(tokens, dtype=np.uint32), np.array(counted, dtype=np.bool_)
        return Rendered(ids, mask, n_full, True, False)

    base = render_key(rendered([1, 2], [False, True]))
    assert len(base) == 16
    assert render_key(rendered([1, 2], [False, True], n_full=5)) == base
    others = [rendered([1, 3], [False, True]), rendered([1, 2], [True, True]), rendered([], [])]
    assert len({base, *map(render_key, others)}) == 4


def test_the_rendering_id_names_every_setting(byte_tokenizer: Path, tmp_path: Path) -> None:
    def renderer_id(template: str = chat_templates.CHATML, **choices: Any) -> str:
        return with_template(byte_tokenizer, template, tmp_path, **choices).rendering_id

    other = tiny_tokenizers.byte_level(tmp_path / "other", adds_bos=True)
    ids = [
        renderer_id(),
        renderer_id(chat_templates.GEMMA),
        renderer_id(counted="response"),
        renderer_id(max_length=77),
        renderer_id(truncation="start"),
        renderer_id(constant_system=["x"]),
        with_template(other, chat_templates.CHATML, tmp_path).rendering_id,
    ]
    assert len(set(ids)) == len(ids)
    assert renderer_id() == ids[0]


def test_all_rows_of_the_tiny_pool_render(
    tiny_model_dir: Path, tiny_pool_rows: list[Mapping[str, Any]]
) -> None:
    renderer = load_renderer(tiny_model_dir, max_length=512)
    for row, rendered in zip(
        tiny_pool_rows,
        renderer.render_batch([(row["messages"], None) for row in tiny_pool_rows]),
        strict=True,
    ):
        counted = [text for text, counts in renderer.marked_text(rendered) if counts]
        assert counted == [message["content"] for message in row["messages"]]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"counted": "answers"}, r"`counted`.*'answers'.*all, response, prompt"),
        ({"truncation": "middle"}, r"`truncation`.*end, start, keep_response"),
        ({"max_length": 2}, r"`max_length`.*found: 2"),
        ({"template": "missing.jinja"}, r"missing.jinja.*cannot be read"),
    ],
)
def test_wrong_settings_are_refused(
    byte_tokenizer: Path, choices: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_renderer(byte_tokenizer, **({"max_length": 100} | choices))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}", "line 1.*does not render"),
        ("{{ raise_exception('never') }}", "does not render.*never"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "leaves out the content"),
    ],
)
def test_broken_template_files_are_refused(
    byte_tokenizer: Path, tmp_path: Path, template: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        with_template(byte_tokenizer, template, tmp_path)


def test_a_tokenizers_own_broken_template_falls_back_to_plain(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tiny_tokenizers.byte_level(tmp_path / "t", "{{ raise_exception('no') }}")
    with caplog.at_level(logging.WARNING):
        renderer = load_renderer(broken, max_length=LONG)
    assert "plain text" in caplog.text
    text = renderer.marked_text(renderer.render([user("Hi"), assistant("Hello")]))
    assert "".join(piece for piece, _ in text) == "User: Hi\n\nAssistant: Hello\n\n"


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no tokenizer can be loaded"):
        load_renderer(tmp_path, max_length=100)


def test_a_trainer_gets_the_messages_as_they_are() -> None:
    """Thoughts that a template leaves out do not count, nor is a call's JSON parsed."""
    call = {"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    tools = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
    question = {"role": "user", "content": "How many?"}
    samples: list[tuple[list[dict[str, Any]], list[Any] | None]] = [
        ([{"role": "system", "content": "Be short."}, question], None),
        ([question, {"role": "assistant", "content": "Two.", "reasoning_content": "1 + 1"}], None),
        ([question, {"role": "assistant", "content": "", "tool_calls": [call]}], tools),
        ([question, {"role": "assistant", "content": "no end " * 9000}], None),
    ]
    model = DEMO_FOLDER / "model"
    tokenizer, renderer = AutoTokenizer.from_pretrained(model), load_renderer(model, max_length=64)
    texts = [
        tokenizer.apply_chat_template(messages, tools=given, tokenize=False)
        for messages, given in samples
    ]
    slow = [len(tokenizer(text, add_special_tokens=False).input_ids[:64]) for text in texts]
    assert renderer.count_tokens(samples) == slow
    refused = [{"role": "critic", "content": "No."}, question]
    [n] = renderer.count_tokens([(refused, None)])
    assert n == len(renderer.render(refused).tokens)
