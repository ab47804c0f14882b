"""Watching a search: bars and a live front on a terminal, plain lines anywhere else.

Both implement `nas.progress.Progress`. `watcher` chooses.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.output import console, table
from experiments.quantities import shown
from experiments.results import front_header, front_rows

LIVE_ROWS = 8  # of the front on a terminal


def watcher(objectives: Sequence[str], per_step: int | None) -> Bars | Lines:
    """What fits the standard output. `per_step` is how many candidates a step has, where that is known.

    Example:
        >>> type(watcher(("error",), 8)).__name__
        'Lines'
    """
    return Bars(objectives, per_step) if console().is_terminal else Lines(objectives, per_step)


def clock(seconds: float) -> str:
    """Seconds as `m:ss` or `h:mm:ss`.

    Example:
        >>> clock(75.2), clock(3700)
        ('1:15', '1:01:40')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def measured(metrics: Mapping[str, float]) -> str:
    """Metrics of a training round in one line.

    Example:
        >>> measured({"loss": 1.25, "images_per_s": 830.1})
        'loss 1.25, 830 images/s'
    """
    parts = []
    for name, value in metrics.items():
        if name.endswith("_per_s"):
            parts.append(f"{value:,.0f} {name.removesuffix('_per_s').replace('_', ' ')}/s")
        else:
            parts.append(f"{name.replace('_', ' ')} {value:.4g}")
    return ", ".join(parts)


class Pace:
    """How much time is left, judged from the second thing on: the first one compiles.

    Example:
        >>> pace = Pace(iter([0.0, 10.0]).__next__)
        >>> pace.left(1, 4), pace.left(2, 4)
        ('', '0:20')
    """

    def __init__(self, now: Callable[[], float] = time.monotonic):
        self.now = now
        self.first: tuple[int, float] | None = None

    def left(self, done: int, total: int) -> str:
        """Time left with `done` of `total` done, or nothing while it cannot be told; to be asked after each."""
        moment = self.now()
        if self.first is None:
            self.first = (done, moment)
        before, began = self.first
        return clock((total - done) * (moment - began) / (done - before)) if done > before else ""


class _Counting:
    """What both views count: candidates and steps done, also after a search was continued in the middle."""

    def __init__(self, objectives: Sequence[str], per_step: int | None):
        self.objectives, self.per_step = tuple(objectives), per_step
        self.pace = Pace()
        self.began = time.monotonic()
        self.total = self.step = self.in_step = self.candidates = self.rounds = 0
        self.statuses: dict[str, int] = {}

    def _start_search(self, total: int) -> None:
        self.pace, self.total, self.began = Pace(), total, time.monotonic()
        self.step, self.in_step, self.candidates, self.fresh = 0, 0, 0, True
        self.statuses = {}

    def _evaluated(self, record: Mapping[str, Any]) -> None:
        if record["step"] != self.step:
            self.step, self.in_step = record["step"], 0
        self.in_step += 1
        self.candidates += 1
        self.fresh = False
        self.statuses[record["status"]] = self.statuses.get(record["status"], 0) + 1

    def _stepped(self) -> int:
        """Steps done, counted at the end of one; a step whose records were all there before reports none of them."""
        self.step += self.fresh and self.candidates > 0
        self.fresh = True
        return self.step + 1

    @property
    def steps_done(self) -> float:
        """Steps, the current one in part where its size is known."""
        return self.step + (min(self.in_step / self.per_step, 1.0) if self.per_step else 0.0)

    def speed(self) -> str:
        """Candidates per second since the search started or was continued."""
        return f"{self.candidates / max(time.monotonic() - self.began, 1e-9):.1f} candidates/s"

    def _outcomes(self) -> str:
        words = {"ok": "evaluated", "cached": "repeated", "infeasible": "beyond a limit", "failed": "failed"}
        words |= {"relaxed": "relaxed", "partial": "trained in part"}
        return ", ".join(f"{self.statuses[s]} {word}" for s, word in words.items() if s in self.statuses)

    def _best(self, records: Sequence[Mapping[str, Any]]) -> str:
        if not records:
            return "nothing within the limits yet"
        name = self.objectives[0]
        known = {**records[0]["costs"], **records[0]["objectives"]}
        return f"front of {len(records)}, lowest {name} {shown(name, known[name])}"


class Lines(_Counting):
    """A line per training round and per step, at most one every `every_s` seconds; the last ones always.

    Example:
        >>> Lines(("error",), None).message("a sentence")
        a sentence
    """

    def __init__(self, objectives: Sequence[str], per_step: int | None, every_s: float = 1.0):
        super().__init__(objectives, per_step)
        self.every_s, self.printed = every_s, float("-inf")

    def _say(self, text: str, always: bool) -> None:
        if always or time.monotonic() - self.printed >= self.every_s:
            self.printed = time.monotonic()
            print(text, flush=True)

    def start_training(self, total: int) -> None:
        """See `nas.progress.Progress`, here and below."""
        self.pace, self.rounds = Pace(), total
        print(f"training, rounds: {total} (the first one compiles)", flush=True)

    def training(self, round: int, metrics: Mapping[str, float]) -> None:
        left = self.pace.left(round + 1, self.rounds)
        last = round + 1 == self.rounds
        text = f"training {round + 1}/{self.rounds}: {measured(metrics)}"
        self._say(text + (f", {left} left" if left and not last else ""), last or not round)

    def start_search(self, total: int) -> None:
        self._start_search(total)
        print(f"search, steps: {total}", flush=True)

    def evaluated(self, record: Mapping[str, Any]) -> None:
        self._evaluated(record)
        if self.per_step and self.in_step < self.per_step:
            self._say(f"search {self.step + 1}/{self.total}: {self.in_step}/{self.per_step} candidates", False)

    def front(self, records: Sequence[Mapping[str, Any]]) -> None:
        done = self._stepped()
        left = self.pace.left(done, self.total)
        end = f", {left} left" if left and done < self.total else ""
        text = f"search {done}/{self.total}: {self._outcomes()}, {self.speed()}; {self._best(records)}{end}"
        self._say(text, True)

    def message(self, text: str) -> None:
        print(text, flush=True)

    def close(self) -> None: ...


class Bars(_Counting):
    """Progress bars with rates and time left, and below them the current front."""

    def __init__(self, objectives: Sequence[str], per_step: int | None):
        super().__init__(objectives, per_step)
        from rich.live import Live
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.console = console()
        self.bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<8}"),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
        )
        self.records: Sequence[Mapping[str, Any]] = ()
        self.live = Live(console=self.console, get_renderable=self._picture, refresh_per_second=4, transient=True)
        self.live.start()

    def _picture(self) -> Any:
        from rich.console import Group

        if not self.records:
            return self.bars
        rows = front_rows(self.records, self.objectives, LIVE_ROWS)
        header = front_header(self.objectives)
        shown_of = f"front: {len(self.records)} networks" + (
            f", {len(rows)} shown" if len(rows) < len(self.records) else ""
        )
        return Group(self.bars, table(header, rows, shown_of))

    def start_training(self, total: int) -> None:
        """See `nas.progress.Progress`, here and below."""
        self.rounds = total
        self.training_bar = self.bars.add_task("training", total=total, count=f"0/{total}", note="compiling")

    def training(self, round: int, metrics: Mapping[str, float]) -> None:
        count = f"{round + 1}/{self.rounds}"
        self.bars.update(self.training_bar, completed=round + 1, count=count, note=measured(metrics))

    def start_search(self, total: int) -> None:
        self._start_search(total)
        self.search_bar = self.bars.add_task("search", total=total, count=f"0/{total}", note="compiling")

    def evaluated(self, record: Mapping[str, Any]) -> None:
        self._evaluated(record)
        note = f"{self._outcomes()}, {self.speed()}"
        self.bars.update(self.search_bar, completed=self.steps_done, count=f"{self.step + 1}/{self.total}", note=note)

    def front(self, records: Sequence[Mapping[str, Any]]) -> None:
        self.records = tuple(records)
        self.bars.update(self.search_bar, completed=self._stepped())

    def message(self, text: str) -> None:
        self.live.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        self.live.stop()


def export_watcher() -> ExportBar | ExportLines:
    """What fits the standard output, for `nas.export.export`.

    Example:
        >>> type(export_watcher()).__name__
        'ExportLines'
    """
    return ExportBar() if console().is_terminal else ExportLines()


class ExportLines:
    """A line per epoch, at most one a second, and every message. Implements `nas.export.Progress`.

    Example:
        >>> ExportLines().message("a sentence")
        a sentence
    """

    def __init__(self) -> None:
        self.total, self.pace, self.printed = 0, Pace(), float("-inf")

    def start(self, total_epochs: int) -> None:
        """See `nas.export.Progress`, here and below."""
        self.total, self.pace = total_epochs, Pace()

    def epoch(self, i: int, loss: float) -> None:
        last, left = i + 1 == self.total, self.pace.left(i + 1, self.total)
        if last or not i or time.monotonic() - self.printed >= 1:
            self.printed = time.monotonic()
            print(
                f"epoch {i + 1}/{self.total}: loss {loss:.4g}{f', {left} left' if left and not last else ''}",
                flush=True,
            )

    def message(self, text: str) -> None:
        print(text, flush=True)

    def close(self) -> None: ...


class ExportBar:
    """A bar over the epochs."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (SpinnerColumn(), TextColumn("training"), BarColumn(bar_width=28), TextColumn("{task.fields[note]}"))
        left = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        self.bars = Progress(*columns, *left, console=console(), transient=True)
        self.bars.start()

    def start(self, total_epochs: int) -> None:
        """See `nas.export.Progress`, here and below."""
        self.total = total_epochs
        self.bar = self.bars.add_task("training", total=total_epochs, note="compiling")

    def epoch(self, i: int, loss: float) -> None:
        self.bars.update(self.bar, completed=i + 1, note=f"{i + 1}/{self.total}, loss {loss:.4g}")

    def message(self, text: str) -> None:
        self.bars.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        self.bars.stop()
