"""What a person may type where a network is wanted."""

import json

import pytest

from hw_models.errors import InputError
from search_spaces.spaces import tiny
from search_spaces.texts import resolve


def test_every_form_resolves_to_the_same_network(tmp_path):
    space = tiny.space()
    text = space.text([1, 0, 1, 1, 2, 0])
    frozen = resolve(text).network()
    assert frozen == space.freeze([1, 0, 1, 1, 2, 0])
    file = tmp_path / "architecture.json"
    file.write_text(json.dumps({"space": frozen.to_json()}))
    assert resolve(str(file)).network() == frozen
    assert resolve(str(tmp_path) + "/").network() == frozen


def test_options_reach_the_space():
    assert resolve("tiny[classes=7,input_channels=3]").space.classes == 7
    assert resolve("mobilenet_v3_small[classes=10]").network().classes == 10


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mobilenet_v3_smal", "did you mean 'mobilenet_v3_small'"),
        ("tiny", "is a space of 144 networks"),
        ("tiny[clases=3]", "did you mean 'classes'"),
        ("tiny[classes=3", "closing"),
        ("tiny[classes]", "name=value"),
        ("mobilenet_v3_small:1.2", "has no genes"),
        ("nowhere/architecture.json", "no file"),
        ("my_lab.spaces:1", "no module of that dotted name"),
    ],
)
def test_bad_text_is_one_clear_line(text, said):
    with pytest.raises(InputError, match=said) as caught:
        resolve(text).network()
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_architecture(tmp_path):
    file = tmp_path / "architecture.json"
    for content in ("{", "[]", '{"space": {"name": "x"}}'):
        file.write_text(content)
        with pytest.raises(InputError):
            resolve(str(file))


def test_a_text_carries_the_options_it_was_made_with():
    space = tiny.space(classes=5, input_channels=3)
    text = space.text([0, 0, 0, 0, 0, 0])
    assert text.startswith("tiny[classes=5,input_channels=3]:")
    assert resolve(text).network() == space.freeze([0, 0, 0, 0, 0, 0])
