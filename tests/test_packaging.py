"""What is installed: every module and data file of the four packages, the kernel if it could be built, nothing else."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("hw_models", "search_spaces", "nas", "experiments")
BUILT = ("search_spaces/kernels/_depthwise.so", "search_spaces/kernels/_depthwise.json")
BUILD_INPUTS = ("setup.cfg", "setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE")


def shipped_files() -> set[str]:
    """Every file of the four packages as the repository holds them."""
    files = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*"):
            name = path.relative_to(ROOT).as_posix()
            hidden = any(part.startswith(".") or part == "__pycache__" for part in path.parts[len(ROOT.parts) :])
            if path.is_file() and not hidden and path.suffix not in (".pyc", ".so") and name not in BUILT:
                files.add(name)
    return files


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository without what building leaves behind, as after `git clone`."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in sorted(shipped_files()) + [name for name in (*BUILD_INPUTS, "README.md") if (ROOT / name).exists()]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    (folder / "tests").mkdir()
    (folder / "tests" / "test_nothing.py").write_text("")
    (folder / "scripts").mkdir()
    (folder / "scripts" / "nothing.py").write_text("")
    return folder


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `pip install .` would install, but for a kernel that is not optimised: that saves a minute."""
    folder = tmp_path_factory.mktemp("wheel")
    environment = dict(os.environ)
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++", "c++")), None)
    if compiler:
        quick = folder / "quick"
        quick.write_text(f'#!/bin/sh\nexec {compiler} "$@" -O0\n')
        quick.chmod(0o755)
        environment["CXX"] = str(quick)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*command, str(checkout)], env=environment, check=True, capture_output=True, text=True)
    return next(folder.glob("flynas-*.whl"))


def test_the_wheel_holds_every_file_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names - set(BUILT) == shipped_files()
    assert {name.split("/")[0] for name in names} == {name.split("/")[0] for name in shipped_files()}


def test_the_wheel_has_the_kernel_and_the_record_of_its_build(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    record = json.loads(archive.read(BUILT[1]))
    if not any(shutil.which(compiler) for compiler in ("g++", "clang++", "c++")):
        pytest.skip("no C++ compiler on this machine")
    assert record["built"], record["reason"]
    assert record["jaxlib"] == importlib.metadata.version("jaxlib")
    assert BUILT[0] in archive.namelist()
    assert not wheel.name.endswith("-any.whl"), "a wheel with a compiled library must name its platform"


def test_the_installed_kernel_runs_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    """From the unpacked wheel, with neither the repository nor an editable installation of it on the path."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = f"""
import sys
sys.path[:] = [{str(tmp_path)!r}] + [path for path in sys.path if path not in ("", {str(ROOT)!r})]
from search_spaces.kernels import depthwise
from search_spaces.kernels.depthwise import status
assert depthwise.__file__.startswith({str(tmp_path)!r}), depthwise.__file__
print(*[row["name"] for row in status() if row["selected"]])
"""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    run = subprocess.run(
        [sys.executable, "-P", "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    built = json.loads((tmp_path / BUILT[1]).read_text())["built"]
    assert run.stdout.split() == (["native"] if built else ["scan"])


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [("/nonexistent/g++", "could not be run"), ("false", "the C++ compiler failed")],
)
def test_without_a_working_compiler_the_build_goes_on_and_says_why(
    checkout: Path, tmp_path: Path, compiler: str, reason: str
) -> None:
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(tmp_path / "out")]
    command += ["--build-temp", str(tmp_path / "temp")]
    run = subprocess.run(command, cwd=checkout, env=os.environ | {"CXX": compiler}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "installed without its compiled kernel" in run.stderr
    record = json.loads((tmp_path / "out" / BUILT[1]).read_text())
    assert not record["built"] and reason in record["reason"]
    assert not (tmp_path / "out" / BUILT[0]).exists()


def test_no_other_distribution_owns_our_package_names() -> None:
    owners = importlib.metadata.packages_distributions()
    for package in PACKAGES:
        assert set(owners.get(package, ["flynas"])) == {"flynas"}, f"{package} is also installed by {owners[package]}"


def test_the_constraints_allow_what_setup_cfg_requires() -> None:
    """Every required package has an exact version, which the lower bound admits."""
    from packaging.requirements import Requirement

    pinned = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            (exact,) = requirement.specifier
            pinned[requirement.name.lower().replace("_", "-")] = exact.version
    for text in importlib.metadata.requires("flynas") or []:
        requirement = Requirement(text)
        assert pinned[requirement.name.lower()] in requirement.specifier, text


def test_the_quickstart_script_refuses_another_folder() -> None:
    run = subprocess.run([str(ROOT / "scripts" / "quickstart"), "--out=x"], capture_output=True, text=True)
    assert run.returncode == 2 and run.stdout == "" and "flynas search quickstart --out DIR" in run.stderr
