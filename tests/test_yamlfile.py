"""YAML with lines, and the environment in it."""

import pytest

from relay.yamlfile import YamlFile, show


def read(text: str, **environ: str) -> YamlFile:
    return YamlFile(text, environ)


def told(file: YamlFile) -> list[str]:
    return [str(problem) for problem in file.problems]


def test_every_value_knows_its_line() -> None:
    file = read("a: 1\nb:\n  - x\n  - y: 2\n\n# a comment\nc:\n  d: {e: 3}\n")
    assert file.data == {"a": 1, "b": ["x", {"y": 2}], "c": {"d": {"e": 3}}}
    lines = {show(path): line for path, line in file.lines.items()}
    assert lines["a"] == 1
    assert lines["b[1].y"] == 4
    assert lines["c.d.e"] == 8


def test_a_path_without_a_line_has_that_of_what_is_around_it() -> None:
    file = read("a:\n  b:\n    c: 1\n")
    assert file.line(("a", "b", "missing", "more")) == 2
    assert file.line(("elsewhere",)) == 1


def test_the_environment_stands_in_for_names() -> None:
    file = read("a: ${ONE}\nb: x-${ONE}-${TWO:-two}\nc: ${THREE:-}", ONE="1")
    assert file.data == {"a": "1", "b": "x-1-two", "c": ""}
    assert not file.problems


def test_a_name_that_is_set_outweighs_its_default() -> None:
    assert read("a: ${ONE:-default}", ONE="set").data == {"a": "set"}


def test_a_value_from_the_environment_cannot_change_the_structure() -> None:
    file = read("a: ${ONE}", ONE="x\nb: {c: 1} # ${TWO} ${THREE:-3}")
    assert file.data == {"a": "x\nb: {c: 1} # ${TWO} ${THREE:-3}"}
    assert not file.problems


def test_a_name_in_a_comment_need_not_be_set() -> None:
    assert not read("a: 1 # ${NOT_SET}\n# b: ${NOT_SET}").problems


@pytest.mark.parametrize(("environ", "state"), [({}, "not set"), ({"ONE": ""}, "empty")])
def test_a_name_that_is_missing_or_empty_is_said_with_its_line(
    environ: dict[str, str], state: str
) -> None:
    file = read("a:\n  - x\n  - ${ONE}\n", **environ)
    assert told(file) == [
        f"line 3, a[1]: the environment variable ONE is {state}; set it and try again"
    ]


@pytest.mark.parametrize("text", ["${ONE", "${1A}", "${ONE:default}", "${}", "x${ ONE }"])
def test_a_misspelt_name_is_not_taken_as_it_stands(text: str) -> None:
    file = read(f"a: '{text}'", ONE="1")
    assert told(file) == [
        "line 1, a: write ${NAME} or ${NAME:-default}; NAME is letters, digits and _"
    ]


def test_what_is_wrong_besides_with_a_value_that_is_not_there_is_not_said() -> None:
    file = read("a: ${ONE}")
    file.problem(("a",), "this is no number")
    assert len(file.problems) == 1


def test_a_key_that_stands_twice_is_found_at_its_second_line() -> None:
    file = read("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n")
    assert told(file) == [
        "line 4, b.c: this key is here twice; keep one",
        "line 5, a: this key is here twice; keep one",
    ]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\n\tb: 2\n", 2, "blanks, not with tabs"),
        ("a: b: c\n", 1, "quotes"),
        ("a: 'open\nb: 1\n", 3, "a quotation mark is not closed"),
        ("a: 1\n  b: 2\n", 2, "indentation"),
        ("a:\n  - 1\n b: 2\n", 3, "indentation"),
        ("a: [1, 2\n", 2, "not YAML"),
        ("a: *nowhere\n", 1, "begins with *"),
        ("a: @home\n", 1, "in quotes"),
        ("a: 1\n---\nb: 2\n", 2, "one document"),
        ("a: !!python/object:os.system x\n", 1, "not YAML"),
        ("a: \x01\n", None, "special characters are not allowed"),
    ],
    ids=[
        "tab",
        "colon",
        "quote",
        "indent",
        "dedent",
        "open",
        "alias",
        "at",
        "two",
        "tag",
        "control",
    ],
)
def test_broken_yaml_is_one_mistake_with_its_line(text: str, line: int | None, words: str) -> None:
    file = read(text)
    (problem,) = file.problems
    assert problem.line == line
    assert not file.is_readable
    assert words in problem.message


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5_000,
        "a: &a [*a]",
        "a: &a\n  b: *a",
        (
            "a: &a [x, x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\n"
            "c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c]\n"
            "e: [*d, *d, *d, *d, *d, *d, *d, *d, *d, *d]\n"
        ),
    ],
    ids=["deep", "list_in_itself", "block_in_itself", "aliases_of_aliases"],
)
def test_what_would_never_end_is_refused(text: str) -> None:
    file = read(text)
    (problem,) = file.problems
    assert problem.line or text.startswith("[[")
    assert not file.is_readable


def test_an_alias_is_read_and_a_merge_is_named() -> None:
    file = read("a: &a {b: 1}\nc: *a\nd:\n  <<: *a\n  e: 2\n")
    assert file.data == {"a": {"b": 1}, "c": {"b": 1}, "d": {"e": 2}}
    assert told(file) == ["line 4, d: a merge (<<) is not read; write each setting out"]


@pytest.mark.parametrize("text", ["? [a, b]\n: 1\n", "? {a: b}\n: 1\n"])
def test_a_key_that_is_no_text_is_a_mistake(text: str) -> None:
    assert "a key is plain text" in told(read(text))[0]


@pytest.mark.parametrize(
    "text", ["2026-99-99", "!!int x", "!!float x", "!!timestamp x", "!!bool x", "9" * 5_000]
)
def test_what_only_looks_like_a_number_or_a_date_stays_text(text: str) -> None:
    file = read(f"a: {text}")
    assert file.data == {"a": text.rpartition(" ")[2]}
    assert not file.problems


def test_an_empty_file_holds_nothing() -> None:
    assert read("").data == {}
    assert read("# only this\n").data == {}


def test_a_path_is_shown_as_people_write_it() -> None:
    assert show(("sources", "mollie", "secrets", 0)) == "sources.mollie.secrets[0]"
    assert show(()) == ""
