"""Units opened in order; what lies on other machines is fetched while the units before are encoded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from imtok.encoding.inputs import OnDuplicate, OpenUnit, Plan
from imtok.errors import SourceError

_MOST_AHEAD = 8  # units
_BYTES_AHEAD = 2**28  # enough for small tars; of large ones a single one is fetched ahead
_GUESSED_BYTES = 2**27  # of a unit whose bytes are not known

_Opened = Callable[[], OpenUnit | SourceError]


def open_ahead(
    plan: Plan, units: Iterable[int], *, salvage: bool, on_duplicate: OnDuplicate
) -> Iterator[tuple[int, OpenUnit | SourceError | None]]:
    """Open units in order, or return the error that says why one cannot be used; None while one is waited for.

    Units of this machine are taken one at a time. Of others up to eight are taken ahead, as they have to be fetched.
    """

    def begin(unit: int, *, ahead: bool) -> _Opened | None:
        """Begin to fetch a unit; None where there is no room for it yet."""
        container = plan.container(unit)
        let_go = container.fetch_ahead(ahead=ahead) if container is not None else None
        if container is not None and let_go is None:
            return None
        opened = _attempt(plan, unit, salvage, on_duplicate) if container is None else None

        def finish() -> OpenUnit | SourceError:
            if opened is not None:
                return opened
            try:
                return _attempt(plan, unit, salvage, on_duplicate)
            finally:
                if let_go is not None:
                    let_go()

        return finish

    waiting: deque[tuple[int, int, _Opened]] = deque()  # units, their bytes, and what opens them
    left, no_room = iter(units), None
    while True:
        while _wants_more(plan, [size for _, size, _ in waiting]):
            unit = no_room if no_room is not None else next(left, None)
            if unit is None:
                break
            opening = begin(unit, ahead=len(waiting) > 1)
            no_room = unit if opening is None else None
            if opening is None:
                break
            waiting.append((unit, _bytes(plan, unit), opening))
        if not waiting:
            return
        unit, _, opening = waiting.popleft()
        container = plan.container(unit)
        while container is not None and not container.ready():
            yield unit, None
        yield unit, opening()


def _wants_more(plan: Plan, sizes: list[int]) -> bool:
    if not sizes or not plan.is_remote:
        return not sizes
    return len(sizes) < 2 or (len(sizes) <= _MOST_AHEAD and sum(sizes[1:]) < _BYTES_AHEAD)


def _bytes(plan: Plan, unit: int) -> int:
    container = plan.container(unit)
    return container.size if container is not None and container.size >= 0 else _GUESSED_BYTES


def _attempt(plan: Plan, unit: int, salvage: bool, on_duplicate: OnDuplicate) -> OpenUnit | SourceError:
    try:
        return plan.open(unit, salvage=salvage, on_duplicate=on_duplicate)
    except SourceError as error:
        return error
