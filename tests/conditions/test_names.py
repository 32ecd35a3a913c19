"""Names of classes: any text can be written on the command line and found again; what is unknown is answered."""

from __future__ import annotations

import contextlib
import unicodedata

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from msd.conditions.names import (
    are_numbers,
    extremes,
    join_names,
    number_of,
    numbered,
    printable,
    share,
    split_names,
    unevenness,
    with_numbers,
)
from msd.errors import ConditionError, PartitionError

NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=20)
CLASSES = ("cat", "Dog", "a, b", 'say "hi"', "Zu\u0308rich", "5", "\u732b")


@given(st.lists(NAMES, min_size=1, max_size=6))
def test_what_is_written_on_the_command_line_is_read_again(names: list[str]) -> None:
    assert split_names(join_names(names)) == names


@given(st.lists(NAMES, min_size=1, max_size=6, unique_by=lambda name: unicodedata.normalize("NFC", name).strip()))
def test_every_class_is_found_by_its_name_in_each_unicode_form(names: list[str]) -> None:
    classes = tuple(names)
    for number, name in enumerate(classes):
        assert number_of(name, classes) == number
        assert number_of(unicodedata.normalize("NFD", name), classes) == number
    assert with_numbers(names, classes) == list(range(len(names)))


@given(st.text(max_size=30))
def test_any_text_is_a_list_of_names_or_a_sentence(text: str) -> None:
    with contextlib.suppress(ConditionError):
        assert all(isinstance(name, str) for name in split_names(text))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cat,dog", ["cat", "dog"]),
        ("cat, dog", ["cat", "dog"]),
        ("3,7", ["3", "7"]),
        ('"a, b",dog', ["a, b", "dog"]),
        ('"say ""hi""", two words', ['say "hi"', "two words"]),
        ('5" disk', ['5" disk']),
        (",", ["", ""]),
    ],
)
def test_a_list_is_read_as_spreadsheets_write_it(text: str, names: list[str]) -> None:
    assert split_names(text) == names


@pytest.mark.parametrize("text", ['"a', '"a"b', "a\nb"])
def test_a_list_with_odd_quotes_is_refused(text: str) -> None:
    with pytest.raises(ConditionError, match=r"is not a list of names .*; write e\.g\. --labels cat,dog"):
        split_names(text)


def test_a_list_of_nothing_is_not_a_list_left_out() -> None:
    with pytest.raises(ConditionError, match=r"--labels names nothing; .* or leave it out for every class"):
        split_names("")


def test_a_text_is_a_name_before_it_is_a_number() -> None:
    """Classes called by numbers in another order: their names count; numbers themselves are never names."""
    classes = ("2", "0", "1", "7")
    assert with_numbers(["2", "0", "1", "7"], classes) == [0, 1, 2, 3]
    assert with_numbers(["3", 2, " 7 "], classes) == [3, 2, 3]
    assert with_numbers([2, 0], classes) == [2, 0]
    assert number_of("-1", classes) == -1  # for the partition to refuse


def test_only_lists_of_names_are_looked_at() -> None:
    tensor, array, numbers = torch.tensor([1, 2]), np.array([1, 2]), [1, 2]
    for labels in (tensor, array, numbers, "cat", None, 3, np.array([["cat"]])):
        assert with_numbers(labels, CLASSES) is labels
    assert with_numbers(np.array(["cat", "5"]), CLASSES) == [0, 5]
    assert with_numbers(("cat", 3, None), CLASSES) == [0, 3, None]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("cta", r"there is no class 'cta'; did you mean cat\?"),
        ("DOG", r"there is no class 'DOG'; did you mean Dog\?"),
        ("a", r"did you mean \"a, b\" or cat\?"),  # as it goes into --labels
        ("Zurich", r"did you mean Z\u00fcrich\?|did you mean Zu\u0308rich\?"),
        ("xyzzy", r"choose one of cat, Dog, \"a, b\", .*\u732b, or a number from 0 to 6\."),
        ("", r"there is no class ''; choose one of"),
        ("1.5", "there is no class '1.5'"),
        ("\u0663", "there is no class '\u0663'"),
        ("\x1b[31m" + "x" * 999, r"there is no class '\\x1b\[31mxxx.*\.\.\.; choose"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, advice: str) -> None:
    with pytest.raises(ConditionError, match=advice) as caught:
        number_of(name, CLASSES)
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


def test_of_many_names_a_few_are_listed() -> None:
    classes = tuple(f"kind{number:04}" for number in range(1000))
    with pytest.raises(
        PartitionError, match=r"there is no class '#' here; choose one of kind0000, .* and 992 more, or a number"
    ):
        number_of("#", classes, " here", error=PartitionError)


def test_a_name_of_two_classes_is_refused() -> None:
    with pytest.raises(ConditionError, match="'cat' is the name of class 0 and 2; give the number instead"):
        number_of("cat", ("cat", "dog", "cat"))
    composed, apart = "\u00fc", "u\u0308"
    assert [number_of(name, (composed, apart)) for name in (composed, apart)] == [0, 1]
    with pytest.raises(ConditionError, match="is the name of class 0 and 1"):
        number_of(" \u00fc", (composed, apart))


def test_names_that_are_numbers_are_known() -> None:
    assert are_numbers(numbered(12))
    assert not are_numbers(("1", "0"))
    assert not are_numbers(("cat",))


@given(st.text())
def test_a_printed_name_has_no_control_characters(name: str) -> None:
    shown = printable(name)
    assert not any(unicodedata.category(sign) == "Cc" for sign in shown)
    assert printable(shown) == shown


def test_uneven_classes_are_told() -> None:
    classes = ("cat", "dog", "emu")
    assert unevenness((0.34, 0.33, 0.33), classes) is None
    assert unevenness((), classes) is None
    assert extremes((0.5, 0.1, 0.4)) == (1, 0)
    told = unevenness((0.004, 0.31, 0.686), classes)
    assert told == "classes differ in how often they occur: from cat (0.4%) to emu (69%)"
    assert unevenness((0.0, 0.5, 0.5), classes) is not None
    assert [share(value) for value in (0, 1e-5, 0.004, 0.31, 1)] == ["0%", "<0.1%", "0.4%", "31%", "100%"]
