"""Builds the optional compiled kernel; everything else about the package is in setup.cfg.

The kernel is a plain shared library (no Python interface), compiled with the C++ compiler of the machine against the
headers inside jaxlib. If there is no compiler, or it fails, the installation goes on without the library; the record
beside it says why, and `search_spaces.kernels.depthwise.status()` repeats it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shlex
import shutil
import subprocess
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCE = "search_spaces/kernels/depthwise.cc"
FLAGS = ["-std=c++17", "-O3", "-fPIC", "-shared", "-pthread"]


class BuildKernel(build_ext):
    """Compiles the kernel by one direct call of the compiler, and records the outcome in a JSON file beside it."""

    def build_extension(self, ext: Extension) -> None:
        """Compile `ext`; a failure is recorded, not raised."""
        library = Path(self.get_ext_fullpath(ext.name))
        library.parent.mkdir(parents=True, exist_ok=True)
        library.unlink(missing_ok=True)
        record = compile_kernel(Path(ext.sources[0]), library)
        if not record["built"]:
            self.warn(f"flynas is installed without its compiled kernel: {record['reason']}")
        library.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")

    def get_ext_filename(self, ext_name: str) -> str:
        """A plain name: the library does not depend on the Python version."""
        return os.path.join(*ext_name.split(".")) + ".so"

    def copy_extensions_to_source(self) -> None:
        """For an editable installation: the library and its record, whichever of them exist."""
        for ext in self.extensions:
            built = Path(self.build_lib, self.get_ext_filename(ext.name))
            place = Path(self.get_ext_filename(ext.name))
            for suffix in (".so", ".json"):
                place.with_suffix(suffix).unlink(missing_ok=True)
                if built.with_suffix(suffix).exists():
                    shutil.copyfile(built.with_suffix(suffix), place.with_suffix(suffix))

    def get_outputs(self) -> list[str]:
        """The record always; the library where it was built."""
        outputs = []
        for ext in self.extensions:
            library = Path(self.build_lib, self.get_ext_filename(ext.name))
            outputs += [str(path) for path in (library, library.with_suffix(".json")) if path.exists()]
        return outputs

    def get_output_mapping(self) -> dict[str, str]:
        """Built file to its place in the source tree, for editable installations."""
        return (
            {output: os.path.relpath(output, self.build_lib) for output in self.get_outputs()} if self.inplace else {}
        )


def compile_kernel(source: Path, library: Path) -> dict[str, object]:
    """Compile `source` to `library`; returns the record of how it went."""
    record: dict[str, object] = {
        "built": False,
        "reason": "",
        "library": library.name,
        "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "machine": platform.machine(),
    }
    jaxlib = importlib.util.find_spec("jaxlib")
    if jaxlib is None or jaxlib.origin is None:
        return record | {"reason": "jaxlib was not there when flynas was installed"}
    include = Path(jaxlib.origin).parent / "include"
    record["jaxlib"] = importlib.metadata.version("jaxlib")
    if not (include / "xla" / "ffi" / "api" / "ffi.h").is_file():
        return record | {"reason": f"jaxlib {record['jaxlib']} came without the headers of XLA's function interface"}
    if platform.system() != "Linux":
        return record | {"reason": f"the kernel is built on Linux only, and this is {platform.system()}"}
    wanted = os.environ.get("CXX")
    compiler = (
        shlex.split(wanted)
        if wanted
        else [found for name in ("g++", "clang++", "c++") if (found := shutil.which(name))][:1]
    )
    if not compiler:
        return record | {"reason": "no C++ compiler was found when flynas was installed"}
    command = [*compiler, *FLAGS, "-isystem", str(include), str(source), "-o", str(library)]
    record |= {"compiler": _version(compiler), "flags": " ".join(FLAGS)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    except (OSError, subprocess.SubprocessError) as error:
        return record | {"reason": f"the C++ compiler could not be run ({error})"}
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if "error" in line] or ["no message"]
        return record | {"reason": f"the C++ compiler failed ({errors[0]})"}
    return record | {"built": True}


def _version(compiler: list[str]) -> str:
    try:
        shown = subprocess.run([*compiler, "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return compiler[0]
    return (shown.stdout.splitlines() or [compiler[0]])[0]


setup(
    ext_modules=[Extension("search_spaces.kernels._depthwise", [SOURCE], optional=True)],
    cmdclass={"build_ext": BuildKernel},
)
