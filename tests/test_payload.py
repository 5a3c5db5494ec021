"""Reading what somebody else wrote: the right value, or a PayloadError with the path. Nothing else."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import pytest
import simplejson
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import PayloadError
from relay.payload import Payload

DATA = Payload(
    {
        "text": " Ada ",
        "number": 7,
        "exact": Decimal("24.20"),
        "written": "24.20",
        "yes": True,
        "none": None,
        "blank": "  ",
        "empty": "",
        "list": [{"id": "a"}, {"id": "b"}],
        "object": {"inner": {"id": 9}},
    }
)


def refusal(read: Callable[[], Any]) -> tuple[str, str]:
    """The slug and the path of what is refused."""
    with pytest.raises(PayloadError) as caught:
        read()
    return caught.value.reason, caught.value.path


# Moving about


def test_a_path_is_walked_and_remembered() -> None:
    assert DATA.at("list", 1, "id").value == "b"
    assert DATA.at("list", 1, "id").path == "$.list[1].id"
    assert DATA.at().path == "$"


@pytest.mark.parametrize(
    "keys",
    [("missing",), ("text", "inner"), ("list", "id"), ("list", 2), ("list", -3), ("object", 0),
     ("number", 0), ("none", "x", 3)],
)  # fmt: skip
def test_what_is_not_there_reads_as_nothing_with_its_path(keys: tuple[Any, ...]) -> None:
    found = DATA.at(*keys)
    assert found.value is None
    assert not found
    assert found.path.startswith("$.")


def test_a_list_can_be_walked_from_its_end() -> None:
    assert DATA.at("list", -1, "id").value == "b"


def test_the_members_of_a_list_know_where_they_stand() -> None:
    assert [it.path for it in DATA.items("list")] == ["$.list[0]", "$.list[1]"]
    assert [it.text("id") for it in DATA.items("list")] == ["a", "b"]


def test_an_object_is_an_object() -> None:
    assert DATA.object("object", "inner").integer("id") == 9
    assert refusal(lambda: DATA.object("object", "inner").text("name")) == (
        "missing_field",
        "$.object.inner.name",
    )


@pytest.mark.parametrize(
    ("key", "reason"),
    [("missing", "missing_field"), ("none", "missing_field"), ("text", "wrong_type"),
     ("list", "wrong_type")],
)  # fmt: skip
def test_what_is_no_object_is_refused(key: str, reason: str) -> None:
    assert refusal(lambda: DATA.object(key)) == (reason, f"$.{key}")


@pytest.mark.parametrize(
    ("key", "reason"),
    [("missing", "missing_field"), ("none", "missing_field"), ("text", "wrong_type"),
     ("object", "wrong_type")],
)  # fmt: skip
def test_what_is_no_list_is_refused(key: str, reason: str) -> None:
    assert refusal(lambda: list(DATA.items(key))) == (reason, f"$.{key}")


# Values


@pytest.mark.parametrize(
    ("value", "text"),
    [("Ada", "Ada"), (" Ada ", "Ada"), (7, "7"), (Decimal("24.20"), "24.20"), ("0", "0"), (0, "0")],
)
def test_text_is_stripped_and_a_number_counts_as_its_digits(value: Any, text: str) -> None:
    assert Payload({"a": value}).text("a") == text


@pytest.mark.parametrize("value", [None, "", "  ", "\n\t"])
def test_blank_text_is_none(value: Any) -> None:
    data = Payload({"a": value})
    assert data.text_or_none("a") is None
    assert refusal(lambda: data.text("a")) == ("missing_field", "$.a")


@pytest.mark.parametrize(
    "value", [True, False, [], {}, ["x"], "x" * 20_001, "a\x00b", "\ud800", "a\udfff"]
)
def test_what_is_no_text_or_could_not_be_stored_is_refused(value: Any) -> None:
    assert refusal(lambda: Payload({"a": value}).text_or_none("a")) == ("wrong_type", "$.a")


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (7, "7"),
        (-7, "-7"),
        ("7", "7"),
        (" 24.20 ", "24.20"),
        ("-0.005", "-0.005"),
        (Decimal("24.20"), "24.20"),
        (Decimal("1E+3"), "1000"),
        (10**20, "1" + "0" * 20),
    ],
)
def test_a_number_is_exact_however_it_is_written(value: Any, number: str) -> None:
    found = Payload({"a": value}).decimal("a")
    assert str(found) == number
    assert isinstance(found, Decimal)


@pytest.mark.parametrize(
    "value",
    [True, False, [], {}, "x", "1,5", "1.", ".5", "+1", "1e3", "0x1", "NaN", "Infinity", "--1",
     "1" * 31, 10**31, Decimal("NaN"), Decimal("Infinity"), Decimal("1E+40"), Decimal("1E-40"), 1.5,
     "1 000", "€1", "1_000", "٣"],
)  # fmt: skip
def test_what_is_no_plain_number_is_refused(value: Any) -> None:
    assert refusal(lambda: Payload({"a": value}).decimal("a")) == ("wrong_type", "$.a")


@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_number_is_said_to_be_missing(value: Any) -> None:
    data = Payload({"a": value})
    assert refusal(lambda: data.decimal("a")) == ("missing_field", "$.a")
    assert refusal(lambda: data.integer("a")) == ("missing_field", "$.a")


@pytest.mark.parametrize("value", [7, "7", "7.00", Decimal("7.0")])
def test_a_whole_number_may_have_decimals_that_are_zero(value: Any) -> None:
    assert Payload({"a": value}).integer("a") == 7


@pytest.mark.parametrize("value", ["7.5", Decimal("0.1")])
def test_a_broken_number_is_not_rounded(value: Any) -> None:
    assert refusal(lambda: Payload({"a": value}).integer("a")) == ("wrong_type", "$.a")


@pytest.mark.parametrize(
    ("value", "flag"),
    [(True, True), ("true", True), ("True", True), ("1", True), (1, True), (False, False),
     ("false", False), ("0", False), (0, False), (None, False), ("", False)],
)  # fmt: skip
def test_a_flag_is_read_in_all_its_spellings(value: Any, flag: bool) -> None:  # noqa: FBT001
    assert Payload({"a": value}).flag("a") is flag


@pytest.mark.parametrize("value", ["yes", "2", 2, [], {}, "t", Decimal("1.0")])
def test_what_is_no_flag_is_refused(value: Any) -> None:
    assert refusal(lambda: Payload({"a": value}).flag("a")) == ("wrong_type", "$.a")


NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-01T12:00:00Z",
        "2026-03-01T12:00:00.000Z",
        "2026-03-01T13:00:00+01:00",
        "2026-03-01 07:00:00-05:00",
        "20260301T120000Z",
    ],
)
def test_a_time_is_read_in_utc(text: str) -> None:
    found = Payload({"a": text}).time("a")
    assert (found, found.tzinfo) == (NOON, UTC)


def test_a_time_without_a_zone_is_not_guessed() -> None:
    assert refusal(lambda: Payload({"a": "2026-03-01T12:00:00"}).time("a")) == ("naive_time", "$.a")


@pytest.mark.parametrize(
    "value",
    ["noon", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", 12],
)
def test_what_is_no_time_is_refused(value: Any) -> None:
    data = Payload({"a": value})
    assert refusal(lambda: data.time("a"))[1] == "$.a"
    assert data.time_or_none("a") is None


def test_a_missing_time_is_none_or_missing() -> None:
    assert Payload({}).time_or_none("a") is None
    assert refusal(lambda: Payload({}).time("a")) == ("missing_field", "$.a")


@pytest.mark.parametrize(
    ("value", "unit"), [(1772366400, 1), ("1772366400", 1), (1772366400000, 1000)]
)
def test_unix_time_is_read_in_its_unit(value: Any, unit: int) -> None:
    assert Payload({"a": value}).unix_time("a", unit=unit) == NOON


@pytest.mark.parametrize("value", [10**18, -(10**18), "9" * 29])
def test_a_unix_time_outside_of_all_calendars_is_refused(value: Any) -> None:
    assert refusal(lambda: Payload({"a": value}).unix_time("a")) == ("wrong_type", "$.a")


# JSON


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b" ", b"{", b"nonsense", b"{'a': 1}", b"\xff", b"\x00", b"[" * 100_000, b'{"a":1}x'),
        *(b'{"a": NaN}', b'{"a": Infinity}', b'{"a": -Infinity}', b"9" * 10_000, b"1." + b"1" * 99),
        b'{"a": 1e' + b"9" * 60 + b"}",
    ],
    ids=lambda it: repr(it[:16]),
)  # fmt: skip
def test_what_is_no_json_is_refused_at_its_root(body: bytes) -> None:
    assert refusal(lambda: Payload.json(body)) == ("malformed_json", "$")


@pytest.mark.parametrize("body", [b'{"a": "\\ud800"}', b'{"a": "\xed\xa0\x80"}'])
def test_half_a_character_is_json_and_yet_no_text(body: bytes) -> None:
    assert refusal(lambda: Payload.json(body).text("a")) == ("wrong_type", "$.a")


def test_the_path_of_a_document_goes_before_everything_in_it() -> None:
    assert refusal(lambda: Payload.json(b"{", "$[/v1/x]")) == ("malformed_json", "$[/v1/x]")
    assert Payload.json(b'{"a": 1}', "$[/v1/x]").at("a").path == "$[/v1/x].a"


def test_numbers_keep_their_digits() -> None:
    data = Payload.json(b'{"a": 24.20, "b": 9007199254740993, "c": 0.1, "d": 1e2}')
    assert [str(data.decimal(key)) for key in "abcd"] == ["24.20", "9007199254740993", "0.1", "100"]


def test_of_a_key_that_stands_twice_the_last_counts() -> None:
    assert Payload.json(b'{"a": 1, "a": 2}').integer("a") == 2


def test_a_huge_exponent_costs_nothing() -> None:
    for exponent in (b"999999", b"999999999", b"-999999999"):
        data = Payload.json(b'{"a": 1e' + exponent + b"}")
        assert refusal(lambda it=data: it.decimal("a")) == ("wrong_type", "$.a")


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.decimals(allow_nan=True)
    | st.text()
    | st.floats()
    | st.datetimes().map(str)
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=12,
)
KEYS = st.lists(st.sampled_from(["a", "b", "c", 0, 1, -1]), max_size=4)
READS = ("object", "text", "text_or_none", "integer", "decimal", "flag", "time", "unix_time")


@given(value=TREES, keys=KEYS, read=st.sampled_from([*READS, "items", "time_or_none"]))
def test_any_read_of_anything_is_a_value_or_a_payload_error(
    value: Any, keys: list[Any], read: str
) -> None:
    data = Payload(value)
    try:
        found = getattr(data, read)(*keys)
        list(found) if read == "items" else found
    except PayloadError as error:
        told = error.path
    else:
        told = data.path
    assert told.startswith("$")


@given(st.binary() | st.text('{}[]",:0123456789.eE-ntfalsu\\ ').map(str.encode))
def test_any_bytes_are_json_or_a_payload_error(body: bytes) -> None:
    try:
        found = Payload.json(body).value
    except PayloadError:
        return
    assert not isinstance(found, float)


@given(st.decimals(-(10**15), 10**15, places=3) | st.integers(-(10**20), 10**20).map(Decimal))
def test_any_number_survives_json_digit_by_digit(number: Decimal) -> None:
    body = simplejson.dumps({"n": number, "t": f"{number:f}"}, use_decimal=True).encode()
    data = Payload.json(body)
    assert data.decimal("n") == data.decimal("t") == number


@given(
    st.datetimes(datetime(1970, 1, 2), datetime(9998, 1, 1)),  # noqa: DTZ001 - the zone comes next
    st.integers(-14 * 60, 14 * 60),
)
def test_any_time_is_the_same_moment_in_utc(moment: datetime, minutes: int) -> None:
    aware = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert Payload({"a": aware.isoformat()}).time("a") == aware


# Forms


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"a=1&b=two", {"a": "1", "b": "two"}),
        (b"a=&b", {"a": "", "b": ""}),
        (b"a=x+y%20z%C3%A9", {"a": "x y zé"}),
        (b"a[b]=1&a[c]=2", {"a": {"b": "1", "c": "2"}}),
        (b"a%5Bb%5D=1", {"a": {"b": "1"}}),
        (b"a[b][c]=1", {"a": {"b": {"c": "1"}}}),
        (b"a[0]=x&a[1]=y", {"a": {"0": "x", "1": "y"}}),
        (b"a=1&a=2", {"a": "1"}),
        (b"a[b]=1&a[b]=2", {"a": {"b": "1"}}),
        (b"a=1&a[b]=2", {"a": "1", "a[b]": "2"}),
        (b"a[b]=1&a=2", {"a": {"b": "1"}}),
        (b"", {}),
    ],
)
def test_a_form_becomes_an_object(body: bytes, value: Any) -> None:
    assert Payload.form(body).value == value


@pytest.mark.parametrize("body", [b"\xff=1", b"&".join(b"a%d=1" % i for i in range(2_001))])
def test_what_is_no_form_is_refused(body: bytes) -> None:
    assert refusal(lambda: Payload.form(body)) == ("malformed_form", "$")


def test_a_key_of_many_brackets_is_only_so_deep() -> None:
    value, depth = Payload.form(b"a" + b"[b]" * 1_000 + b"=1").value, 0
    while isinstance(value, dict):
        (value,) = value.values()
        depth += 1
    assert (value, depth) == ("1", 9)


@given(st.dictionaries(st.text("abc", min_size=1), st.text()))
def test_any_plain_form_survives(pairs: dict[str, str]) -> None:
    assert Payload.form(urlencode(pairs).encode()).value == pairs


@given(st.binary() | st.text("ab[]=&%+0", max_size=40).map(str.encode))
def test_any_bytes_are_a_form_or_a_payload_error(body: bytes) -> None:
    try:
        found = Payload.form(body).value
    except PayloadError:
        found = {}
    assert isinstance(found, dict)
