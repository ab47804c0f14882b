"""The README's Python story runs as printed, and its commands exist with the options it shows."""

import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def test_the_python_story_runs_in_an_empty_folder(tmp_path):
    (story,) = blocks("python")
    done = subprocess.run([sys.executable, "-c", story], cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    accuracy, predicted_s, measured_s = map(float, done.stdout.split())
    assert 0.2 < accuracy <= 1 and 0 < predicted_s < 0.1 and 0 < measured_s < 0.1
    assert (tmp_path / "front.png").stat().st_size > 5000
    for name in ("architecture.json", "weights.safetensors", "model.onnx", "report.json"):
        assert (tmp_path / "model" / name).stat().st_size > 100
    for name in ("run.json", "records.jsonl", "state.msgpack"):
        assert (tmp_path / "runs/tiny" / name).exists()


COMMANDS = [shlex.split(line, comments=True) for block in blocks("sh") for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize(
    "words", [words for words in COMMANDS if words and words[0] == "flynas" and len(words) > 2], ids=" ".join
)
def test_every_command_shown_exists_with_its_options(words):
    help_text = subprocess.run(
        [Path(sys.executable).parent / "flynas", words[1], "--help"],
        capture_output=True,
        text=True,
        env={"COLUMNS": "200"},
    )
    assert help_text.returncode == 0, help_text.stderr
    for option in (word for word in words[2:] if word.startswith("--")):
        assert option in help_text.stdout


@pytest.mark.parametrize(
    "words", [words for words in COMMANDS if words[:2] == ["flynas", "search"] and "--set" in words], ids=" ".join
)
def test_every_setting_shown_is_one_of_the_configuration_named(words):
    from experiments.config import load_config
    from experiments.overrides import override

    changes = [value for option, value in itertools.pairwise(words) if option == "--set"]
    assert override(load_config(words[2]), changes) != load_config(words[2])


@pytest.mark.parametrize(
    "words", [words for words in COMMANDS if words and words[0].startswith("scripts/")], ids=" ".join
)
def test_every_script_shown_is_executable(words):
    import os

    assert os.access(Path(__file__).parent.parent / words[0], os.X_OK)
