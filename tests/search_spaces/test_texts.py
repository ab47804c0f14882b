"""What a person may type where a network is wanted."""

import json

import pytest

from hw_models.errors import InputError
from search_spaces.encoding import FORMAT, SCHEMA
from search_spaces.spaces import tiny
from search_spaces.texts import resolve


def test_every_form_resolves_to_the_same_network(tmp_path, monkeypatch):
    space = tiny.space()
    text = space.text([1, 0, 1, 1, 2, 0])
    frozen = resolve(text).network()
    assert frozen == space.freeze([1, 0, 1, 1, 2, 0])
    file = tmp_path / "architecture.json"
    file.write_text(json.dumps({"format": FORMAT, "schema": SCHEMA, "space": frozen.to_json()}))
    assert resolve(str(file)).network() == frozen
    assert resolve(str(tmp_path) + "/").network() == frozen
    monkeypatch.chdir(tmp_path.parent)
    assert resolve(tmp_path.name).network() == frozen, "a folder in the working directory, without a slash"
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "architecture.json").write_text("{")
    monkeypatch.chdir(tmp_path)
    assert resolve("tiny").space == space, "what has a name is meant before a folder of that name"


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
        ("mobilenet_v3_small:", "has no genes"),
        ("mobilenet_v2:", "space mobilenet_v2 has 42 decisions"),
        ("nowhere/architecture.json", "no such file"),
        ("my_lab.spaces:1", "no module of that dotted name"),
        (".hidden", "unknown network or space '.hidden'"),
        ("a..b", "unknown network or space"),
        ("./tiny", "no such file"),
        ("tiny[classes=x]:1.0.0.0.0.0", "tiny: option classes=x is not allowed: give a whole number"),
        ("tiny[classes=5.5]:1.0.0.0.0.0", "give a whole number"),
        ("tiny[classes=True]:1.0.0.0.0.0", "give a whole number"),
        ("tiny[classes=5,classes=6]:1.0.0.0.0.0", "'classes' is given twice"),
        ("tiny[classes=3000000000]:1.0.0.0.0.0", "classes=3000000000 is not allowed"),
        ("mobilenet_v2#deadbeef", "fingerprint deadbeef"),
        ("tiny#deadbeef", "fingerprint deadbeef"),
        ("tiny:0.0.0.0.0.0#deadbeef", "fingerprint deadbeef"),
        ("tiny:" + "0." * 400, "genes"),
    ],
)
def test_bad_text_is_one_clear_line(text, said):
    with pytest.raises(InputError, match=said) as caught:
        resolve(text).network()
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_architecture(tmp_path):
    file = tmp_path / "architecture.json"
    newer = json.dumps({"format": FORMAT, "schema": 99, "space": tiny.space().to_json()})
    other = json.dumps({"format": "model", "schema": 1, "space": {}})
    bare = json.dumps({"format": FORMAT, "schema": SCHEMA, "space": {"name": "x"}})
    for content, said in (
        ("{", "is no exported network"),
        ("[]", "is no exported network"),
        ('{"space": {"name": "x"}}', "it lacks 'format'"),
        (newer, "schema 99, this version reads"),
        (other, "is 'model'"),
        (bare, "not a search space"),
    ):
        file.write_text(content)
        with pytest.raises(InputError, match=said):
            resolve(str(file))


def test_published_networks_say_how_small_images_may_be():
    with pytest.raises(InputError, match=r"resnet18: input_hw=32 is too small .* give at least 33$"):
        resolve("resnet18[input_hw=32,classes=10]")
    assert resolve("resnet18[input_hw=33,classes=10]").network().input_hw == 33
    for text, said in (("resnet18[input_hw=0]", "input_hw=0"), ("resnet18[input_hw=32,classes=x]", "option classes=x")):
        with pytest.raises(InputError, match=said):
            resolve(text)


def test_a_text_carries_the_options_it_was_made_with():
    space = tiny.space(classes=5, input_channels=3)
    text = space.text([0, 0, 0, 0, 0, 0])
    assert text.startswith("tiny[classes=5,input_channels=3]:")
    assert resolve(text).network() == space.freeze([0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("text", ["mobilenet_v2", "tiny", "tiny[classes=5]"])
def test_the_right_fingerprint_is_accepted_wherever_one_may_stand(text):
    space = resolve(text).space
    assert resolve(f"{text}#{space.fingerprint}").space == space


@pytest.mark.parametrize(("option", "value"), [("classes", 5.5), ("classes", True), ("input_hw", "8"), ("input_hw", 1)])
def test_sizes_of_a_space_are_whole_numbers(option, value):
    with pytest.raises(InputError, match=f"{option}={value!r} is not allowed"):
        tiny.space(**{option: value})


def test_a_space_of_ones_own_may_need_an_option(tmp_path, monkeypatch):
    body = """
from search_spaces.spaces import tiny

def space(classes, wide: bool = False):
    return tiny.space(classes=classes)
"""
    (tmp_path / "needy").mkdir()
    (tmp_path / "needy" / "mine.py").write_text(body)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert resolve("needy.mine[classes=3]").space.classes == 3
    for text, said in (
        ("needy.mine", "needs option 'classes'"),
        ("needy.mine[classes=3,wide=2]", "give True or False"),
    ):
        with pytest.raises(InputError, match=said):
            resolve(text)
