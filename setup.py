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
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FOLDER = Path("search_spaces/kernels")
# relative to this file, as setuptools wants them
SOURCES = sorted(str(FOLDER / path.name) for path in (Path(__file__).parent / FOLDER).glob("*.cc"))
HEADERS = sorted(str(FOLDER / path.name) for path in (Path(__file__).parent / FOLDER).glob("*.h"))
FLAGS = ["-std=c++17", "-O3", "-fPIC", "-pthread"]


class BuildKernel(build_ext):
    """Compiles the kernel by direct calls of the compiler, and records the outcome in a JSON file beside it."""

    def build_extension(self, ext: Extension) -> None:
        """Compile `ext`; a failure is recorded, not raised."""
        library = Path(self.get_ext_fullpath(ext.name))
        library.parent.mkdir(parents=True, exist_ok=True)
        library.unlink(missing_ok=True)
        record = compile_kernel([Path(source) for source in ext.sources], library)
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


def source_hash(sources: list[Path]) -> str:
    """SHA-256 of sources and headers in the order of their names; the package computes the same when it loads."""
    files = sorted({*sources, *(path for source in sources for path in source.parent.glob("*.h"))})
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(files, key=lambda path: path.name))).hexdigest()


def compile_kernel(sources: list[Path], library: Path) -> dict[str, object]:
    """Compile `sources` to `library`; returns the record of how it went."""
    record: dict[str, object] = {
        "built": False,
        "reason": "",
        "library": library.name,
        "source_sha256": source_hash(sources),
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
    record |= {"compiler": _version(compiler), "flags": " ".join(FLAGS)}

    def run(command: list[str]) -> str:
        """The reason why it failed, or nothing."""
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        except (OSError, subprocess.SubprocessError) as error:
            return f"the C++ compiler could not be run ({error})"
        if done.returncode == 0:
            return ""
        errors = [line for line in done.stderr.splitlines() if "error" in line] or ["no message"]
        return f"the C++ compiler failed ({errors[0]})"

    with tempfile.TemporaryDirectory() as folder:
        objects = [str(Path(folder, source.stem).with_suffix(".o")) for source in sources]
        # one instruction set per source, and the compiler is busy for half a minute with all of them
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            compiling = [
                [*compiler, *FLAGS, "-isystem", str(include), "-c", str(source), "-o", target]
                for source, target in zip(sources, objects, strict=True)
            ]
            reasons = list(pool.map(run, compiling))
        reasons.append("" if any(reasons) else run([*compiler, "-shared", "-pthread", *objects, "-o", str(library)]))
    return record | {"built": not any(reasons), "reason": next(filter(None, reasons), "")}


def _version(compiler: list[str]) -> str:
    try:
        shown = subprocess.run([*compiler, "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return compiler[0]
    return (shown.stdout.splitlines() or [compiler[0]])[0]


setup(
    ext_modules=[Extension("search_spaces.kernels._depthwise", SOURCES, depends=HEADERS, optional=True)],
    cmdclass={"build_ext": BuildKernel},
)
