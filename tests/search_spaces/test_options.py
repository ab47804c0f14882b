"""Values against annotations: one set of rules for `--set`, network texts and configurations."""

import inspect
from typing import Any

import pytest

from hw_models.errors import InputError
from search_spaces.options import OPEN, annotation_of, check, typed


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        ("int", [1, -3], [1.0, True, "1", None]),
        ("float", [1, 0.5], [True, "1", None]),
        ("bool", [True], [0, "yes"]),
        ("float | None", [None, 1], ["x", False]),
        ("str | tuple[str, ...]", ["a", ("a", "b"), ["a"], ()], [3, ("a", 3), None]),
        ("Mapping[str, float]", [{}, {"a": 1}], [3, {"a": "b"}, {"a": None}, ["a"]]),
        ("tuple[int | None, ...]", [(1, None)], [("a",)]),
        ("Any", [object(), None], []),
        ("", [object()], []),
        ("collections.abc.Mapping[str, int]", [{"a": 1}], [4]),
        ("Callable[..., Any] | str", [print, "a", 3], []),
    ],
)
def test_a_value_is_allowed_or_named(annotation: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        check("path", value, annotation)
    for value in bad:
        with pytest.raises(InputError, match=r"^path(\.a)?=.* is not allowed: give ") as caught:
            check("path", value, annotation)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [
        ("3", "int", 3),
        ("3", "float", 3.0),
        ("3", "str", "3"),
        ("true", "bool", True),
        ("None", "str | None", None),
        ("a,b", "tuple[str, ...]", ("a", "b")),
        ("['a', 'b']", "tuple[str, ...]", ("a", "b")),
        ("a", "str | tuple[str, ...]", "a"),
        ("{[]: 1}", "str", "{[]: 1}"),
        ("[1, 2]", "", [1, 2]),
    ],
)
def test_text_becomes_the_type_that_is_wanted(text: str, annotation: str, value: Any) -> None:
    found = typed("path", text, annotation)
    assert found == value and type(found) is type(value)


def test_without_an_annotation_the_current_value_decides() -> None:
    assert typed("path", "4", "", 1) == 4 and typed("path", "x", "", OPEN) == "x"
    with pytest.raises(InputError, match=r"path=x is not allowed: give a whole number \(now 1\)"):
        typed("path", "x", "", 1)


def test_annotations_are_read_as_text_and_as_objects() -> None:
    def build(a: int, b: "float | None" = None, c: int | None = None, d: tuple[str, ...] = (), e=2.5, f=None): ...

    entries = inspect.signature(build).parameters.values()
    found = [annotation_of(entry, default=True) for entry in entries]
    assert found == ["int", "float | None", "int | None", "tuple[str, ...]", "float", ""]
