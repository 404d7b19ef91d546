"""The command line: one file a command; each parses, calls one library function, and renders what it returns.

No torch here at module level, so that `imtok --help` stays quick.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from imtok.cli.console import os_error, reports_errors
from imtok.cli.decode import decode
from imtok.cli.demo import demo
from imtok.cli.encode import encode
from imtok.cli.evaluate import evaluate
from imtok.cli.export import export
from imtok.cli.import_ import import_
from imtok.cli.info import info
from imtok.cli.push import push
from imtok.cli.stats import stats
from imtok.cli.status import status
from imtok.cli.streams import flush_output, prepare_streams
from imtok.cli.train import train
from imtok.cli.verify import verify
from imtok.signals import GOES_ON, NOTHING_SAVED, end_on_signals
from imtok.version import __version__

app = typer.Typer(
    help="Turn images into discrete tokens and back, and see whether the codebook is alive.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Begin with: imtok demo",
)


def _reflowed(text: str) -> str:
    """Join the lines of each paragraph of a docstring, for a help page to wrap at its own width."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(paragraph.replace("\n", " ") for paragraph in paragraphs)


_COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "train": train,
    "encode": encode,
    "status": status,
    "decode": decode,
    "stats": stats,
    "eval": evaluate,
    "import": import_,
    "info": info,
    "verify": verify,
    "export": export,
    "push": push,
}
_SAVING = {"demo", "train", "encode", "decode", "import", "export"}
for _name, _command in _COMMANDS.items():
    _stopped = GOES_ON if _name in _SAVING else NOTHING_SAVED
    app.command(_name, help=_reflowed(_command.__doc__ or ""))(reports_errors(_command, stopped=_stopped))


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"imtok {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of the `imtok` command."""
    # OpenMP threads that spin while they wait slow training beside other busy processes (62 to 85 images/s without
    # it against 52 to 60 beside one, on two cores); on an idle machine there was no difference.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    end_on_signals()
    prepare_streams()
    code: str | int | None = 0
    lost: OSError | None = None
    try:
        app(prog_name="imtok")
    except SystemExit as end:
        code = end.code
    except OSError as error:  # in what Typer prints itself, such as help
        lost = error
    lost = flush_output() or lost
    if lost is not None and not code:
        text, code = os_error(lost)
        sys.stderr.write(f"error: {text}\n")
    sys.exit(code)
