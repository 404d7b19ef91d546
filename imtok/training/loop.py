"""Training, from top to bottom: log, validate, save, and only then train on, so that the end is always measured.

The loop's place is `state.seen`, the training images seen; the data stream is a function of it, so that a run
stopped anywhere resumes as if it had never stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext, suppress
from pathlib import Path
from typing import Any, NoReturn

from imtok.config import TrainConfig
from imtok.counted import counted
from imtok.data.streaming.source import never
from imtok.distributed import ranks_agree
from imtok.errors import DiskError, Interrupted, TrainingError
from imtok.losses import LossTerm, loss_terms
from imtok.processes import Processes, joined
from imtok.training.codebook_diagnosis import too_short_for_codebook, usage_metrics
from imtok.training.image_notes import enlarged_note
from imtok.training.images import RunImages, check_alike, open_images
from imtok.training.preparation import check_networks, look_at, seeded
from imtok.training.report import ProgressCallback, Reporter, TrainReport
from imtok.training.resolve import device_of
from imtok.training.run import RunFolder
from imtok.training.state import TrainState
from imtok.training.step import train_step
from imtok.training.supply import Supply
from imtok.training.tensorboard import TensorBoardWriter
from imtok.training.throughput import Throughput
from imtok.training.validation import Validation
from imtok.usage import CodebookUsage

_LINES = 200  # lines of the log over a whole run
_NOTED = 10  # shards of a stream whose notes are reported: those of the others are alike


def train(
    sources: Sequence[str | Path],
    run: Path,
    config: TrainConfig,
    *,
    val: Sequence[str | Path] = (),
    resume: bool = False,
    extra_losses: Sequence[LossTerm] = (),
    progress: ProgressCallback | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrainReport:
    """Train a tokenizer on the images of `sources` into the folder `run`, going on where an earlier call stopped.

    `val` names images for validation; without it a part of `sources` is held out. `resume` demands that there is a
    checkpoint. `extra_losses` join those of the configuration; every call for a run has to give the same. Raises
    TrainingError, ConfigError or SourceError for what cannot be used, Interrupted after `should_stop` said so and a
    checkpoint was written.

    Under torchrun, or in a process group of the caller's, the processes train together: each calls with the same
    arguments. The first alone reads and writes `run` and calls `progress`; a `should_stop` of one stops all.
    """
    with joined() as processes, ExitStack() as stack:
        folder = RunFolder(run)
        begun = processes.by_first(lambda: look_at(folder, config, sources, resume))
        config = type(config).model_validate(begun["config"])
        if begun["finished"]:
            return _report(folder, config, begun["end"], seconds=0.0, resumed_from=config.images, already_done=True)
        stopped = processes.stop_of_any(should_stop or never)
        with processes.together():
            check_networks(config, resumed=begun["resumed"] or not processes.first)
            with processes.first_of_machine_first():
                for term in [*loss_terms(config.loss), *extra_losses]:
                    term.check(fetch=True)
            images = open_images(sources, val, config, stopped)
            config = images.config
        check_alike(images, processes)
        processes.by_first(lambda: stack.enter_context(folder.claimed()))
        with processes.together():
            device = device_of(config, processes)
        stack.enter_context(seeded(config, device, processes))
        with processes.together():
            state = TrainState(
                config,
                device,
                resumed=begun["resumed"] or not processes.first,
                extra_losses=extra_losses,
                rank=processes.rank,
                ranks=processes.ranks,
            )
        job = _Job(folder, state, images, processes, progress or (lambda _: None), stopped)
        if begun["new"] and processes.first:
            folder.save_config(config)
        if not val:
            job.validation.warn_of_few_images()
        if images.indexed is not None:
            job.validation.compare_with(images.indexed)
        if state.seen == 0:
            enlarged = processes.by_first(lambda: enlarged_note(images.sample, config.tokenizer.size))
            for note in (*images.notes, too_short_for_codebook(config), enlarged):
                if note:
                    job.reporter.notice(note)
        return job.run()


def _report(folder: RunFolder, config: TrainConfig, end: Mapping[str, Any], **facts: Any) -> TrainReport:
    return TrainReport(
        run=folder.path,
        tokenizer=folder.tokenizer,
        images=config.images,
        validation=end["validation"],
        best=end["best"],
        best_tokenizer=folder.best if end["best_is_written"] else None,
        **facts,
    )


class _Job:
    """One call of `train`: the state, the data and where to report."""

    def __init__(
        self,
        folder: RunFolder,
        state: TrainState,
        images: RunImages,
        processes: Processes,
        callback: ProgressCallback,
        should_stop: Callable[[], bool],
    ) -> None:
        self.folder, self.state, self.config, self.should_stop = folder, state, state.config, should_stop
        self.processes, self.images = processes, images
        self.fingerprints: dict[str, Any] = {**images.fingerprints}
        if state.extra_losses:
            self.fingerprints["extra_losses"] = [[term.name, term.weight] for term in state.extra_losses]
        config = state.config
        self.stream = images.batches(state, processes, should_stop)
        self.reporter = Reporter(state, callback if processes.first else lambda _: None)
        self.validation = Validation(folder, state, images.held_out, processes, self.reporter)
        self.named: set[str] = set()  # images and shards that were reported
        steps = config.adversarial.critic_steps if config.adversarial.enabled else 1
        self.line_interval = max(config.batch_size * steps, config.images // _LINES)  # with a step of the tokenizer

    def run(self) -> TrainReport:
        started, resumed_from = time.perf_counter(), self._resume()
        state, config = self.state, self.config
        events = self.folder.path / "tensorboard" if self.processes.first else None
        writer = TensorBoardWriter(events, state.seen, self.reporter.notice)
        with closing(writer) as self.tensorboard:
            self.throughput = Throughput()
            with closing(self.stream.batches(state.seen, config.images, state.place)) as batches:
                self._train(Supply(batches, self.processes, self.should_stop))
            end = self.processes.by_first(self._finish)
        return _report(
            self.folder,
            config,
            end,
            seconds=time.perf_counter() - started,
            resumed_from=resumed_from,
            already_done=False,
            images_per_second=self.throughput.all_images / max(self.throughput.all_seconds, 1e-9),
            data_wait=self.throughput.all_waited / max(self.throughput.all_seconds, 1e-9),
            skipped_steps=int(state.skipped.all),
            findings=self.validation.findings,
        )

    def _train(self, supply: Supply) -> None:
        """Train from where the state is to the end of the run."""
        state, config = self.state, self.config
        logged = state.seen  # the log is written before a checkpoint is
        if config.start_from and state.seen == 0:  # the initial tokenizer is the first best
            self._validate()
        while True:
            last = state.seen >= config.images
            if state.seen > logged:
                if last or self._due(self.line_interval):
                    self._log()
                if last or self._due(config.validation_interval):
                    self._validate()
                improved = self.validation.best.metrics.get("images") == state.seen
                if improved or (not last and self._due(config.checkpoint_interval)):
                    self._save()
            if last:
                break
            with self.throughput.waiting():
                batch = supply.take()
            if batch is None:
                self._stop(supply.failure)
            train_step(state, batch.images)
            state.place = batch.place
            self.throughput.images += state.joint.size
            self.reporter.report()

    def _stop(self, failure: Exception | None) -> NoReturn:
        """Save and end, on request or as a stream gives no more; where that comes before the first step, just end."""
        state, config = self.state, self.config
        if state.seen > 0 or failure is None:
            self._save(must=True)
        if failure is not None and not (state.seen > 0 and isinstance(failure, Interrupted)):
            raise failure
        raise Interrupted(
            f"{self.folder.path}: {state.seen} of {counted(config.images, 'training image')} done and saved; the same "
            "command resumes the run"
        )

    def _resume(self) -> int:
        """Go back to the newest checkpoint, where there is one, and give all processes the state of the first."""
        processes, state = self.processes, self.state
        self.validation.best.metrics = processes.by_first(self._restore)
        if processes.several:
            data = processes.bytes_of_first(state.to_bytes({}) if processes.first else None)
            if not processes.first:
                state.restore(data)
        return state.seen

    def _restore(self) -> dict[str, Any]:
        """Restore the newest checkpoint and rewind the logs to it; return the metrics of the best so far."""
        facts, notices = self.folder.restore_newest(self.state)
        for notice in notices:
            self.reporter.notice(notice)
        if facts is not None:
            self._check_facts(facts)
        self.folder.timing.rewind()
        if facts is None:
            self.folder.metrics.rewind(0)
        else:
            self.folder.metrics.rewind(facts["metrics_bytes"], facts.get("metrics_waiting", ()))
            self.validation.restore_best()
            self.reporter.notice(f"resumed after {self.state.seen} of {counted(self.config.images, 'training image')}")
        return self.validation.best.metrics

    def _check_facts(self, facts: Mapping[str, Any]) -> None:
        """Raise TrainingError where a checkpoint is of other images or losses."""
        if facts["data"] != self.fingerprints["data"]:
            raise TrainingError(
                f"{self.folder.path}: the training images are not those the run began with "
                f"({self.images.extent} now); give the same SOURCE and --val, or begin another run with "
                "another -o"
            )
        if facts["val"] != self.fingerprints["val"]:
            raise TrainingError(
                f"{self.folder.path}: the validation images are not those the run began with; give the same --val, or "
                "begin another run with another -o"
            )
        if facts.get("extra_losses") != self.fingerprints.get("extra_losses"):
            raise TrainingError(
                f"{self.folder.path}: the extra losses are not those the run began with "
                f"({facts.get('extra_losses', 'none')}); give the same, or begin another run"
            )

    def _due(self, interval: int) -> bool:
        """Return whether the last step has passed a multiple of `interval`."""
        return self.state.seen // interval > (self.state.seen - self.config.batch_size) // interval

    def _log(self) -> None:
        state, reporter = self.state, self.reporter
        problem = state.skipped.problem()
        if problem is not None:
            raise self.validation.given_up(problem)
        state.metrics.gather()
        usage = CodebookUsage.of_codebooks(state.metrics.counts.cpu().numpy().copy(), 0)
        metrics = state.metrics.means() | usage_metrics(usage)
        state.metrics.clear()
        rate, wait = self.throughput.lap()
        timing = {"images_per_second": rate, "data_wait": wait}
        self._name_unreadable()
        if not self.processes.first:
            return
        with reporter.surviving("the log"):
            self.folder.metrics.add({"images": state.seen, **metrics})
        with reporter.surviving("the log"):
            self.folder.timing.add({"images": state.seen, **timing})
        self.tensorboard.add(metrics | timing, state.seen)
        reporter.report(metrics=metrics, usage=usage, **timing)

    def _name_unreadable(self) -> None:
        """Report the images and shards that a process could not read, and notes on shards, each once."""
        stream = self.stream
        lines = {key: f"left out of training ({reason})" for key, reason in list(stream.unreadable.items())}
        lines |= {name: f"{reason}; this shard is left out of training" for name, reason in stream.failures.items()}
        lines |= dict(list(stream.notes.items())[:_NOTED])
        new = {name: line for name, line in lines.items() if name not in self.named}
        for found in self.processes.gather(new):
            for name, line in found.items():
                if name not in self.named:
                    self.named.add(name)
                    self.reporter.notice(f"{name}: {line}")

    def _validate(self) -> None:
        with self.throughput.paused():
            self.validation.run(self.tensorboard)

    def _save(self, *, must: bool = False) -> None:
        """Write a checkpoint, and what waits; a full disk is survived, unless the checkpoint `must` be written."""
        with self.throughput.paused():
            self.state.metrics.gather()
            if not ranks_agree(self.state.agreed()):
                raise TrainingError(
                    f"{self.folder.path}: the processes' weights differ after {self.state.seen} training images, so "
                    "nothing is saved; the same command resumes from the last checkpoint, and please report it"
                )
            if must:
                self.processes.by_first(lambda: self._write(must=True))
            elif self.processes.first:
                self._write(must=False)

    def _write(self, *, must: bool) -> None:
        with self.reporter.surviving("the log"):
            self.folder.metrics.write(durable=True)
        with self.reporter.surviving("the log"):
            self.folder.timing.write()
        with nullcontext() if must else self.reporter.surviving("a checkpoint"):
            self._save_checkpoint()
        self.validation.write_best()

    def _save_checkpoint(self) -> None:
        facts = {
            **self.fingerprints,
            "metrics_bytes": self.folder.metrics.length,
            "metrics_waiting": self.folder.metrics.waiting,  # lines that a full disk refused come back from here
        }
        kept, best = self.config.keep_checkpoints, self.validation.best.metrics.get("images")
        self.folder.save_checkpoint(self.state, facts, kept=kept, best=best)

    def _finish(self) -> dict[str, Any]:
        """Write what stays when the run is done, and return the metrics of its end.

        Where the disk refuses it, the finished state is saved as a checkpoint before DiskError is raised, so that the
        same command has only this left to do.
        """
        with self.reporter.surviving("the log of speeds", last=True):
            self.folder.timing.write()
        self.validation.write_best(last=True)
        try:
            self.folder.metrics.write(durable=True)
            self.folder.write_tokenizer(self.state.ema.model)
        except DiskError:
            if self.state.seen not in self.folder.checkpoints_seen():
                with suppress(DiskError):
                    self._save_checkpoint()
            raise
        best = self.validation.best
        return {
            "validation": self.validation.metrics(),
            "best": best.metrics,
            "best_is_written": best.is_written,
        }
