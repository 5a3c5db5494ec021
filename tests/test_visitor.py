"""The visitor's id, wherever founders put it and however providers hand it back."""

import json
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import visitor
from relay.payload import Payload
from relay.visitor import SPELLINGS

ID = "a3ab2331-989f-4cfa-91c6-2461c9e3c6bd"
OTHER = "0b6f4f0e-5d39-4f0c-8a53-3f9d5ad9f1c2"
V1 = "c232ab00-9414-11ec-b3c8-9f6bdeced846"

each_spelling = pytest.mark.parametrize("spelling", SPELLINGS)


def find(*places: Any) -> str | None:
    return visitor.find(*(Payload(place) for place in places))


def test_the_spellings_are_those_that_are_known() -> None:
    assert set(SPELLINGS) == {
        "datafast_visitor_id",
        "datafastVisitorId",
        "df_visitor_id",
        "_df_vid",
    }


@each_spelling
def test_it_is_found_in_an_object(spelling: str) -> None:
    assert find({"order": "1", spelling: ID}) == ID


@each_spelling
def test_it_is_found_url_encoded_and_with_blanks(spelling: str) -> None:
    assert find({spelling: f" {quote(ID.replace('-', '%2D'), safe='%')} "}) == ID
    assert find({spelling: quote(f" {ID}\n")}) == ID


@each_spelling
def test_it_is_found_in_json_in_a_text(spelling: str) -> None:
    text = json.dumps({"order": 1, spelling: ID})
    assert find(text) == ID
    assert find(quote(text)) == ID
    assert find(f"  {text}\n") == ID


@each_spelling
def test_it_is_found_in_a_query(spelling: str) -> None:
    query = urlencode({"utm_source": "x", spelling: ID})
    assert find(query) == ID
    assert find(f"?{query}") == ID
    assert find(quote(query)) == ID


def test_it_is_found_bare() -> None:
    assert find(ID) == ID
    assert find(f" {ID.upper()} ") == ID.upper()


def test_an_id_that_is_broken_but_named_is_kept_to_be_shown() -> None:
    assert find({"datafast_visitor_id": "undefined"}) == "undefined"
    assert find('{"datafast_visitor_id": "abc"}') == "abc"


@pytest.mark.parametrize("text", ["abc", V1, "order-17", ID[:-1], f"x{ID}", f"{ID} {OTHER}"])
def test_a_bare_text_counts_only_as_a_whole_uuid_v4(text: str) -> None:
    assert find(text) is None


def test_the_first_place_that_has_one_counts() -> None:
    assert find({}, None, {"datafast_visitor_id": ID}, {"datafast_visitor_id": OTHER}) == ID
    assert find({"datafast_visitor_id": ""}, OTHER) == OTHER


def test_the_first_spelling_counts() -> None:
    assert find({"_df_vid": OTHER, "datafast_visitor_id": ID}) == ID


@pytest.mark.parametrize(
    "place",
    [
        *(
            None,
            "",
            " ",
            7,
            True,
            [],
            {},
            [ID],
            "{",
            "[]",
            "{}",
            "null",
            "=",
            "a=b",
            "?",
            "%",
            "%ff",
        ),
        *({"datafast_visitor_id": None}, {"datafast_visitor_id": 7}, {"datafast_visitor_id": ""}),
        *({"datafast_visitor_id": [ID]}, {"DATAFAST_VISITOR_ID": ID}, {"visitor": ID}),
        *("{" * 5_000, '{"a":' * 1_000, "x" * 2_001, f"{' ' * 2_001}{ID}", '{"a": NaN}'),
    ],
    ids=lambda it: repr(it)[:24],
)
def test_where_there_is_none_none_is_found(place: Any) -> None:
    assert find(place) is None


def test_nowhere_to_look_is_nothing_found() -> None:
    assert visitor.find() is None


@pytest.mark.parametrize(
    ("text", "good"),
    [(ID, True), (ID.upper(), True), (V1, False), (str(UUID(int=0)), False), (ID + "\n", False),
     (ID.replace("-", ""), False), (f"{{{ID}}}", False), (f" {ID}", False), ("", False),
     ("a3ab2331-989f-4cfa-c1c6-2461c9e3c6bd", False), ("a3ab2331-989f-5cfa-91c6-2461c9e3c6bd", False)],
)  # fmt: skip
def test_only_a_uuid_of_version_4_is_good(text: str, good: bool) -> None:  # noqa: FBT001
    assert visitor.is_valid(text) is good


@given(st.uuids(version=4))
def test_every_uuid_of_version_4_is_good(id: UUID) -> None:
    assert visitor.is_valid(str(id))
    assert find(str(id)) == str(id)


def test_what_the_standard_library_makes_is_good() -> None:
    assert visitor.is_valid(str(uuid4()))


@given(st.recursive(st.text() | st.none() | st.integers(), lambda it: st.lists(it) | st.dictionaries(
    st.sampled_from([*SPELLINGS, "x"]), it), max_leaves=6))  # fmt: skip
def test_nothing_that_somebody_wrote_breaks_the_search(value: Any) -> None:
    found = find(value)
    assert found is None or isinstance(found, str)
    find(json.dumps(value))
