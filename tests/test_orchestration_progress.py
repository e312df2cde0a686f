from flows.orchestration.progress import Bars, Lines, Listener, listening, stage


def test_a_stage_tells_every_listener_and_says_what_came_out() -> None:
    first: list[str] = []
    second: list[str] = []
    with listening(Lines(write=first.append)), listening(Lines(write=second.append)):
        with stage("embed", 10, "tokens") as handle:
            handle.advance(4)
            handle.advance(6)
        with stage("rank") as handle:
            handle.detail = "3 targets"
    assert first == second
    assert first[0].startswith("embed: 10 tokens in 0.0 s")
    assert first[1].startswith("rank: 3 targets in")


def test_nobody_listens_outside_the_block() -> None:
    lines: list[str] = []
    with listening(Lines(write=lines.append)):
        pass
    with stage("quiet") as handle:
        handle.advance(1)
    assert lines == []


def test_a_stage_that_fails_still_ends() -> None:
    lines: list[str] = []
    try:
        with listening(Lines(write=lines.append)), stage("doomed", 2) as handle:
            handle.advance(1)
            raise RuntimeError("no")
    except RuntimeError:
        pass
    assert lines[0].startswith("doomed: stopped")


def test_a_stage_within_another_is_a_part_of_it() -> None:
    """Listeners keep one stage: a bar at a terminal would move one that is gone."""
    lines: list[str] = []
    clock = Listener()
    with listening(Lines(write=lines.append), clock):
        with stage("embed", 2, "tokens") as outer:
            with stage("model") as inner:
                inner.detail = "loaded"
            outer.advance(2)
        with stage("rank"):
            pass
    assert [line.partition(":")[0] for line in lines] == ["embed", "rank"]
    assert [record.name for record in clock.stages] == ["embed", "rank"]
    bars = Bars()
    with listening(bars), stage("embed", 2) as outer:
        with stage("model") as inner:
            inner.advance(1)
        outer.advance(2)


def test_what_is_done_twice_with_the_same_result_is_said_once() -> None:
    lines: list[str] = []
    with listening(Lines(write=lines.append)):
        for detail in ("2 files", "2 files", "3 files"):
            with stage("check") as handle:
                handle.detail = detail
                handle.notes.append("one column is not read")
    assert [line.partition(" in ")[0] for line in lines] == [
        "check: 2 files",
        "one column is not read",
        "check: 3 files",
    ]


def test_in_brief_a_stage_is_one_line_of_a_terminal_and_leaves_no_notes() -> None:
    lines: list[str] = []
    with listening(Lines(write=lines.append, is_brief=True)):
        for detail in ("3 targets", "a long result, " * 9, "a long result, " * 9):
            with stage("rank", 2, "rows") as handle:
                handle.detail = detail
                handle.notes.append("one column is not read")
    assert lines[0] == "rank: 3 targets in 0.0 s"
    assert len(lines) == 2
    assert len(lines[1]) <= 80
    assert lines[1].startswith("rank: a long result, a long")
    assert lines[1].endswith("… in 0.0 s")
