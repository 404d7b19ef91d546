"""Training, from top to bottom: log, validate, save, and only then train on, so that the end is always measured.

The loop's place is `state.seen`, the training images seen; the data stream is a function of it, so that a run
stopped anywhere resumes as if it had never stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch

from imtok.config import TrainConfig
from imtok.counted import counted
from imtok.data.batch import Batch
from imtok.devices import deterministic, resolve_device
from imtok.errors import DiskError, Interrupted, TrainingError
from imtok.losses import LossTerm, loss_terms
from imtok.tokenizer import check_quantizer
from imtok.training.adversarial import build_discriminator
from imtok.training.best import written_metrics
from imtok.training.codebook_diagnosis import too_short_for_codebook
from imtok.training.image_notes import enlarged_note
from imtok.training.images import RunImages
from imtok.training.initial import initial_tokenizer
from imtok.training.report import ProgressCallback, Reporter, TrainReport
from imtok.training.run import RunFolder
from imtok.training.state import TrainState
from imtok.training.step import train_step
from imtok.training.tensorboard import TensorBoardWriter
from imtok.training.throughput import Throughput
from imtok.training.validation import Validation
from imtok.usage import CodebookUsage

_LINES = 200  # lines of the log over a whole run


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
    """
    check_quantizer(config.tokenizer.quantizer)
    folder = RunFolder(run)
    saved = folder.saved_config()
    config = folder.checked_config(config, saved, resume=resume)
    if folder.finished:
        return _report_of_finished(folder, config)
    _check_networks(config, resumed=folder.has_checkpoint())
    for term in [*loss_terms(config.loss), *extra_losses]:
        term.check(fetch=True)
    images = RunImages.open(sources, val, config)
    with folder.claimed(), _seeded(config):
        state = TrainState(
            config, resolve_device(config.device), resumed=folder.has_checkpoint(), extra_losses=extra_losses
        )
        job = _Job(folder, state, images, progress or (lambda _: None), should_stop or (lambda: False))
        if saved is None:
            folder.save_config(config)
        if not val:
            job.validation.warn_of_few_images()
        job.validation.compare_with(images.training)
        if state.seen == 0:
            enlarged = enlarged_note(images.training, config.tokenizer.size)
            for note in (*images.notes, too_short_for_codebook(config), enlarged):
                if note:
                    job.reporter.notice(note)
        return job.run()


def _check_networks(config: TrainConfig, *, resumed: bool) -> None:
    """Raise ConfigError or TokenizerError where networks cannot be built or begun with, before there is any work."""
    with torch.random.fork_rng(devices=[]):
        if config.adversarial.enabled:
            with torch.device("meta"):
                build_discriminator(config.adversarial.discriminator, config.data.crop)
        if config.start_from and not resumed:
            initial_tokenizer(config)


def _report_of_finished(folder: RunFolder, config: TrainConfig) -> TrainReport:
    best = written_metrics(folder.best)
    return TrainReport(
        run=folder.path,
        tokenizer=folder.tokenizer,
        images=config.images,
        seconds=0.0,
        resumed_from=config.images,
        already_done=True,
        validation=folder.last_validation(),
        best=best,
        best_tokenizer=folder.best if best else None,
    )


class _Job:
    """One call of `train`: the state, the data and where to report."""

    def __init__(
        self,
        folder: RunFolder,
        state: TrainState,
        images: RunImages,
        callback: ProgressCallback,
        should_stop: Callable[[], bool],
    ) -> None:
        self.folder, self.state, self.config, self.should_stop = folder, state, state.config, should_stop
        self.images = images
        self.fingerprints: dict[str, Any] = {**images.fingerprints}
        if state.extra_losses:
            self.fingerprints["extra_losses"] = [[term.name, term.weight] for term in state.extra_losses]
        config = state.config
        self.stream = images.batches(state)
        self.reporter = Reporter(state, callback)
        self.validation = Validation(folder, state, images.held_out, self.reporter)
        self.named: set[str] = set()  # unreadable images that were reported
        steps = config.adversarial.critic_steps if config.adversarial.enabled else 1
        self.line_interval = max(config.batch_size * steps, config.images // _LINES)  # with a step of the tokenizer

    def run(self) -> TrainReport:
        started, resumed_from = time.perf_counter(), self._resume()
        state, config, best = self.state, self.config, self.validation.best
        writer = TensorBoardWriter(self.folder.path / "tensorboard", state.seen, self.reporter.notice)
        with closing(writer) as self.tensorboard:
            self.throughput = Throughput()
            with closing(self.stream.batches(state.seen, config.images, state.place)) as batches:
                self._train(batches)
            self._finish()
        return TrainReport(
            run=self.folder.path,
            tokenizer=self.folder.tokenizer,
            images=config.images,
            seconds=time.perf_counter() - started,
            resumed_from=resumed_from,
            already_done=False,
            validation=self.validation.metrics(),
            best=best.metrics,
            best_tokenizer=self.folder.best if best.is_written else None,
            images_per_second=self.throughput.all_images / max(self.throughput.all_seconds, 1e-9),
            data_wait=self.throughput.all_waited / max(self.throughput.all_seconds, 1e-9),
            skipped_steps=int(state.skipped.all),
            findings=self.validation.findings,
        )

    def _train(self, batches: Iterator[Batch]) -> None:
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
            if self.should_stop():
                self._save(must=True)
                raise Interrupted(
                    f"{self.folder.path}: {state.seen} of {counted(config.images, 'training image')} done and "
                    "saved; the same command resumes the run"
                )
            with self.throughput.waiting():
                batch = next(batches)
            train_step(state, batch.images)
            state.place = batch.place
            self.throughput.images += state.joint.size
            self.reporter.report()

    def _resume(self) -> int:
        facts, notices = self.folder.restore_newest(self.state)
        for notice in notices:
            self.reporter.notice(notice)
        if facts is not None and facts["data"] != self.fingerprints["data"]:
            raise TrainingError(
                f"{self.folder.path}: the training images are not those the run began with "
                f"({len(self.images.training)} now); give the same SOURCE and --val, or begin another run with "
                "another -o"
            )
        if facts is not None and facts["val"] != self.fingerprints["val"]:
            raise TrainingError(
                f"{self.folder.path}: the validation images are not those the run began with; give the same --val, or "
                "begin another run with another -o"
            )
        if facts is not None and facts.get("extra_losses") != self.fingerprints.get("extra_losses"):
            raise TrainingError(
                f"{self.folder.path}: the extra losses are not those the run began with "
                f"({facts.get('extra_losses', 'none')}); give the same, or begin another run"
            )
        self.folder.timing.rewind()
        if facts is None:
            self.folder.metrics.rewind(0)
        else:
            self.folder.metrics.rewind(facts["metrics_bytes"], facts.get("metrics_waiting", ()))
            self.validation.restore_best()
            self.reporter.notice(f"resumed after {self.state.seen} of {counted(self.config.images, 'training image')}")
        return self.state.seen

    def _due(self, interval: int) -> bool:
        """Return whether the last step has passed a multiple of `interval`."""
        return self.state.seen // interval > (self.state.seen - self.config.batch_size) // interval

    def _log(self) -> None:
        state, reporter = self.state, self.reporter
        problem = state.skipped.problem()
        if problem is not None:
            raise self.validation.given_up(problem)
        usage = CodebookUsage.of_codebooks(state.metrics.counts.cpu().numpy().copy(), 0)
        metrics = state.metrics.means() | _usage_metrics(usage)
        state.metrics.clear()
        rate, wait = self.throughput.lap()
        timing = {"images_per_second": rate, "data_wait": wait}
        with reporter.surviving("the log"):
            self.folder.metrics.add({"images": state.seen, **metrics})
        with reporter.surviving("the log"):
            self.folder.timing.add({"images": state.seen, **timing})
        self.tensorboard.add(metrics | timing, state.seen)
        reporter.report(metrics=metrics, usage=usage, **timing)
        for key, reason in list(self.stream.unreadable.items()):
            if key not in self.named:
                self.named.add(key)
                reporter.notice(f"{key}: left out of training ({reason})")

    def _validate(self) -> None:
        with self.throughput.paused():
            self.validation.run(self.tensorboard)

    def _save(self, *, must: bool = False) -> None:
        """Write a checkpoint, and what waits; a full disk is survived, unless the checkpoint `must` be written."""
        with self.throughput.paused():
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

    def _finish(self) -> None:
        """Write what stays when the run is done.

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


def _usage_metrics(usage: CodebookUsage) -> dict[str, float]:
    """Return the statistics of `imtok stats` that counts alone give, by their names in the log."""
    use = usage.as_use().model_dump(exclude_none=True)
    metrics = {f"codebook/{name}": value for name, value in use.items()}
    if usage.by_codebook is not None:
        for number, each in enumerate(usage.codebooks, 1):
            metrics |= {f"codebook/{number}/usage": each.usage, f"codebook/{number}/perplexity": each.perplexity}
    return metrics


@contextmanager
def _seeded(config: TrainConfig) -> Iterator[None]:
    """Give the run its own random state and number of threads, and the caller's back afterwards."""
    threads = torch.get_num_threads()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(config.seed)
        torch.set_num_threads(config.threads)
        try:
            with deterministic(resolve_device(config.device), "bf16" if config.precision == "bf16" else "fp32"):
                yield
        finally:
            torch.set_num_threads(threads)
