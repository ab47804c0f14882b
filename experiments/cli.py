"""`flynas`: the command line. Each command is a file in `experiments/commands`.

What a person can fix is one line on standard error, `error: ...`, and exit code 2; what was stopped ends with 130.
Anything else is a mistake in the program and shows its traceback. Nothing slow is imported before a command runs.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from experiments import commands
from experiments.compilation_cache import switch_on

STOPPED = 130  # what shells give a command that was interrupted
STOPPING = {
    "search": "stopped; the same command continues it",
    "export": "stopped; the same command goes on from the last checkpoint, of a training of more than half a minute",
}


def _fail(sentence: str, code: int = 2) -> typer.Exit:
    print(f"error: {' '.join(sentence.split())}", file=sys.stderr)
    return typer.Exit(code)


class Commands(TyperGroup):
    """Prints every error as one line."""

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order in which a person needs them; commands that are not in it come last."""
        order = [
            "data",
            "list",
            "cost",
            "explain",
            "show",
            "search",
            "plot",
            "export",
            "calibrate",
            "validate",
            "import-table",
        ]
        return sorted(self.commands, key=lambda name: (order.index(name) if name in order else len(order), name))

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print(STOPPING.get(str(ctx.invoked_subcommand), "stopped"), file=sys.stderr)
            raise typer.Exit(STOPPED) from None
        except PermissionError as error:
            raise _fail(f"{error.filename}: {error.strerror}: change its rights, or give another place") from error
        except ValueError as error:
            # by name: importing the class would import jax, and a command that fails early should stay fast
            if "InputError" not in (each.__name__ for each in type(error).__mro__):
                raise
            # what a search adds: what is kept, what could not be written. JAX adds a note on its tracebacks.
            notes = [note for note in getattr(error, "__notes__", ()) if not note.startswith("-----")]
            raise _fail("; ".join(dict.fromkeys([str(error), *notes]))) from error

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run and exit; also what the test runner calls."""
        extra["standalone_mode"] = False
        try:
            code = super().main(*args, **extra)
        except Exception as error:
            # the parser's own errors: their class has moved between versions of typer
            if not hasattr(error, "format_message"):
                raise
            where = getattr(error, "ctx", None)
            path = where.command_path if where is not None else "flynas"
            print(f"error: {' '.join(error.format_message().split())} (see {path} --help)", file=sys.stderr)
            code = 2
        sys.exit(code if isinstance(code, int) else 0)


app = typer.Typer(cls=Commands, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"flynas {version('flynas')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def about(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Search for neural networks that fit your device.

    Start with: flynas search quickstart --out runs/quickstart
    """
    if context.invoked_subcommand is None:
        print(context.get_help())
    else:
        switch_on()


for _name in sorted(_module.name for _module in pkgutil.iter_modules(commands.__path__)):
    app.command(name=_name.replace("_", "-"))(importlib.import_module(f"{commands.__name__}.{_name}").command)


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
