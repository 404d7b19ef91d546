"""`imtok status`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from imtok.cli.console import escaped, out, print_result, stop_on_signals
from imtok.cli.options import AsJson, Tokens
from imtok.counted import counted

if TYPE_CHECKING:
    from imtok.encoding.claims import Claim
    from imtok.encoding.status import EncodeStatus

_LISTED = 10  # units that are held, and units that failed
_POLL = 0.2  # seconds between two looks for a signal


def status(
    tokens: Tokens,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again and again, until the set is complete or Ctrl-C comes.")
    ] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks of --watch.")] = 5.0,
    as_json: AsJson = False,
) -> None:
    """Say how far the encoding of a token folder is: units, who works on them, images, skips, rate and time left.

    Nothing is changed, so it may be called while others work. With --json and --watch, one object a line.
    """
    from imtok.encoding.status import StatusReader

    reader = StatusReader(tokens)
    formatted = (lambda state: json.dumps(state.to_json())) if as_json else _formatted
    if not watch:
        print_result(formatted(reader.read()))
        return
    with stop_on_signals() as should_stop:
        _watch(reader.read, formatted, every, should_stop, redraw=not as_json and out().is_terminal)


def _watch(
    read: Callable[[], EncodeStatus],
    formatted: Callable[[EncodeStatus], str],
    every: float,
    should_stop: Callable[[], bool],
    *,
    redraw: bool,
) -> None:
    """Print the state where it has changed, until it is complete; on a terminal in one place."""
    if redraw:
        from rich.live import Live

        with Live(console=out(), auto_refresh=False) as live:
            _look(
                read, lambda state: live.update(escaped(formatted(state), lines=True), refresh=True), every, should_stop
            )
        return
    last = ""

    def show(state: EncodeStatus) -> None:
        nonlocal last
        text = formatted(state)
        if text != last:
            print_result(text)
        last = text

    _look(read, show, every, should_stop)


def _look(
    read: Callable[[], EncodeStatus],
    show: Callable[[EncodeStatus], None],
    every: float,
    should_stop: Callable[[], bool],
) -> None:
    while True:
        state = read()
        show(state)
        until = time.monotonic() + every
        while not state.complete and not should_stop() and time.monotonic() < until:
            time.sleep(min(_POLL, every))
        if state.complete or should_stop():
            return


def _formatted(state: EncodeStatus) -> str:
    """Format the state for a person."""
    lines = [
        f"{state.path}: {state.units_done:,} of {counted(state.units, 'unit', form=',')} committed, "
        f"{counted(state.images, 'image', form=',')}, {state.skipped:,} skipped"
    ]
    lines += [f"skipped {count:,}: {reason}" for reason, count in state.skips.items()]
    lines += [f"held: {_holder(claim)}" for claim in state.held[:_LISTED]]
    lines += _more(len(state.held), "held")
    lines += [f"failed: unit {one.unit}, {one.name}: {one.reason}" for one in state.failed[:_LISTED]]
    lines += _more(len(state.failed), "failed")
    lines += [f"damaged: unit {unit}; `imtok verify` says why" for unit in state.damaged[:_LISTED]]
    lines += _more(len(state.damaged), "damaged")
    if state.units_missing:
        lines.append(
            f"missing: {counted(state.units_missing, 'unit', form=',')}, {state.units_held:,} held, "
            f"{state.units_failed:,} failed, {state.units_waiting:,} waiting"
        )
    lines.append(_end(state))
    return "\n".join(lines)


def _holder(claim: Claim) -> str:
    process = f"process {claim.process} (pid {claim.pid} on {claim.host})"
    return f"unit {claim.unit} by {process} since {_clock(claim.since)}"


def _more(count: int, word: str) -> list[str]:
    return [f"{word}: {counted(count - _LISTED, 'other unit', form=',')}"] if count > _LISTED else []


def _end(state: EncodeStatus) -> str:
    if state.complete:
        return f"complete: data set {str(state.dataset_id)[:12]}"
    if state.manifest_problem:
        return f"not complete: {state.manifest_problem}"
    if not state.units_missing:
        return "not complete: the manifest is not written yet; the same `imtok encode` writes it"
    if state.images_per_second is None:
        return "rate: not known" if state.held else "rate: nobody works here; the same `imtok encode` goes on"
    left = "" if state.seconds_left is None else f", about {timedelta(seconds=round(state.seconds_left))} left"
    return f"rate: {state.images_per_second:,.0f} images/s{left}"


def _clock(since: str) -> str:
    """Return a moment in the time of this machine."""
    try:
        return datetime.fromisoformat(since).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return since
