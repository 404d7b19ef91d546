"""Training, from top to bottom: log, validate, save, and only then train on, so that the end is always measured.

The loop's place is `state.seen`, the training images seen; the data stream is a function of it, so that a run
stopped anywhere goes on as if it had not been.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imtok.analysis.statistics import Finding
from imtok.analysis.usage_diagnostics import findings_of_use
from imtok.config import TrainConfig
from imtok.cores import usable_cores
from imtok.data.collection import ImageCollection
from imtok.data.images import decode_image, fit_image
from imtok.data.stream import TrainingStream
from imtok.devices import deterministic, fast_precision, resolve_device
from imtok.errors import DiskError, ImageError, Interrupted, LatentsError, SourceError, TrainingError
from imtok.evaluation import METRICS, Metric, Quality, build_metrics, measure
from imtok.losses import find_vgg_weights
from imtok.quantizers.record import enough_for_restart
from imtok.tokenizer import Tokenizer, check_quantizer
from imtok.training.adversarial import build_discriminator
from imtok.training.best import Best, is_better, written_figures
from imtok.training.preview import write_preview
from imtok.training.report import Listener, TrainProgress, TrainReport
from imtok.training.run import RunFolder
from imtok.training.state import TrainState, beginning
from imtok.training.tensorboard import Board
from imtok.training.throughput import Clock
from imtok.usage import CodebookUsage

_LINES = 200  # lines of the log over a whole run
_PREVIEWED = 8
_ADVICE_FROM = 0.2  # share of the run
_FEW_HELD_OUT = 8


def train(
    sources: Sequence[str | Path],
    run: Path,
    config: TrainConfig,
    *,
    val: Sequence[str | Path] = (),
    resume: bool = False,
    progress: Listener | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrainReport:
    """Train a tokenizer on the images of `sources` into the folder `run`, going on where an earlier call stopped.

    `val` names images for validation; without it a part of `sources` is held out. `resume` demands that there is a
    checkpoint. Raises TrainingError, ConfigError or SourceError for what cannot be used, Interrupted after
    `should_stop` said so and a checkpoint was written.
    """
    check_quantizer(config.tokenizer.quantizer)
    folder = RunFolder(run)
    saved = folder.saved_config()
    wanted = resolve(config, saved)
    if saved is not None:
        folder.check_config(saved, wanted)
    if folder.finished:
        return _report_of_finished(folder, wanted)
    if resume and not folder.has_checkpoint():
        raise TrainingError(f"{run}: --resume was given but there is no checkpoint; leave it out to begin")
    _check_networks(wanted, resumed=folder.has_checkpoint())
    if wanted.loss.perceptual > 0:
        find_vgg_weights(Path(wanted.loss.perceptual_weights) if wanted.loss.perceptual_weights else None)
    images = ImageCollection.open(sources)
    held_out = ImageCollection.open(val) if val else None
    if held_out is None:
        images, held_out = images.split(wanted.data.val_fraction)
    with folder.claimed(), _seeded(wanted):
        job = _Job(folder, wanted, images, held_out, progress or (lambda _: None), should_stop or (lambda: False))
        if saved is None:
            folder.save_config(wanted)
        if not val:
            job.warn_of_few_held_out()
        return job.run()


def resolve(config: TrainConfig, saved: TrainConfig | None = None) -> TrainConfig:
    """Make `auto` definite: as in the saved configuration of the run where there is one, else for this machine."""
    device = str(saved.device if saved and config.device == "auto" else resolve_device(config.device))
    precision, threads = config.precision, config.threads
    if precision == "auto":
        precision = saved.precision if saved else fast_precision(resolve_device(device))
    if threads == 0:
        threads = saved.threads if saved else usable_cores()
    resolved = {"device": device, "precision": precision, "threads": threads}
    on_gpu = resolve_device(device).type == "cuda"
    for name in ("compile", "channels_last"):
        if getattr(config, name) == "auto":
            resolved[name] = getattr(saved, name) if saved else on_gpu
    return config.model_copy(update=resolved)


def steps_before_restart(config: TrainConfig) -> int:
    """The step at which the first code can be revived; 0 where nothing is, or a tokenizer's counts are gone on from."""
    quantizer = config.tokenizer.quantizer
    if config.start_from:
        return 0
    latents = config.batch_size // config.accumulate * (config.data.crop // config.tokenizer.network.downsample) ** 2
    updates_a_step = config.accumulate * quantizer.codebook_ids.count(quantizer.codebook_ids[0])
    updates = quantizer.base.updates_before_restart(latents / quantizer.num_codes)
    return math.ceil(updates / updates_a_step)


def _check_networks(config: TrainConfig, *, resumed: bool) -> None:
    """Raise ConfigError or TokenizerError where networks cannot be built or begun with, before there is any work."""
    with torch.random.fork_rng(devices=[]):
        if config.adversarial.wanted:
            with torch.device("meta"):
                build_discriminator(config.adversarial.discriminator, config.data.crop)
        if config.start_from and not resumed:
            beginning(config)


def _report_of_finished(folder: RunFolder, config: TrainConfig) -> TrainReport:
    best = written_figures(folder.best)
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
        config: TrainConfig,
        images: ImageCollection,
        held_out: ImageCollection,
        tell: Listener,
        should_stop: Callable[[], bool],
    ) -> None:
        self.folder, self.config, self.tell, self.should_stop = folder, config, tell, should_stop
        self.images = images
        self.data_fingerprint, self.val_fingerprint = images.fingerprint, held_out.fingerprint
        self.state = TrainState(config, resolve_device(config.device), resumed=folder.has_checkpoint())
        self.stream = TrainingStream(
            images,
            size=config.tokenizer.size,
            crop=config.data.crop,
            flip=config.data.flip,
            permute_channels=config.data.permute_channels,
            seed=config.seed,
            batch_size=config.batch_size,
            cache_bytes=int(config.data.cache_gb * 2**30),
            workers=config.data.workers,
            pin=self.state.device.type == "cuda",
        )
        self.held_out = self._readable(held_out.subsample(config.data.val_images))
        self.told: set[str] = set()  # unreadable images already named
        self.refused: set[str] = set()  # what a full disk refused and was told
        self.best = Best(folder.best)
        self.advised = False
        self.findings: tuple[Finding, ...] = ()  # of the last validation
        self.line_interval = max(config.batch_size, config.images // _LINES)

    def run(self) -> TrainReport:
        started, resumed_from = time.perf_counter(), self._resume()
        previews = self._preview_images()
        state, config = self.state, self.config
        with closing(Board(self.folder.path / "tensorboard", state.seen, self._notice)) as self.board:
            self.clock = Clock()
            with closing(self.stream.batches(state.seen, config.images)) as batches:
                validation = self._train(batches, previews)
            self._finish()
        return TrainReport(
            run=self.folder.path,
            tokenizer=self.folder.tokenizer,
            images=config.images,
            seconds=time.perf_counter() - started,
            resumed_from=resumed_from,
            already_done=False,
            validation=_val_figures(validation) if validation else self.folder.last_validation(),
            best=self.best.figures,
            best_tokenizer=self.folder.best if self.best.is_written else None,
            images_per_second=self.clock.all_images / max(self.clock.all_seconds, 1e-9),
            data_wait=self.clock.all_waited / max(self.clock.all_seconds, 1e-9),
            skipped_steps=int(state.skipped),
            findings=self.findings,
        )

    def _train(self, batches: Iterator[Tensor], previews: Tensor | None) -> Quality | None:
        """From where the state is to the end of the run; the last validation, None where nothing is held out."""
        state, config = self.state, self.config
        reported = state.seen  # what a checkpoint holds has been logged before it was written
        validation: Quality | None = None
        if config.start_from and state.seen == 0 and len(self.held_out):  # what it was before is the first best
            validation = self._validate(previews)
        while True:
            last = state.seen >= config.images
            if state.seen > reported:
                if last or self._due(self.line_interval):
                    self._log()
                if len(self.held_out) and (last or self._due(config.validation_interval)):
                    validation = self._validate(previews)
                improved = self.best.figures.get("images") == state.seen
                if improved or (not last and self._due(config.checkpoint_interval)):
                    self._save()
            if last:
                break
            if self.should_stop():
                self._save(must=True)
                raise Interrupted(
                    f"{self.folder.path}: {state.seen} of {config.images} training images done and saved; the same "
                    "command goes on"
                )
            with self.clock.waiting():
                batch = next(batches)
            state.step(batch)
            self.clock.images += len(batch)
            self._tell()
        return validation

    def warn_of_few_held_out(self) -> None:
        """A figure measured on a handful of images says little, and their few tokens cannot use many codes."""
        count = len(self.held_out)
        if 0 < count < _FEW_HELD_OUT:
            images = "1 image is" if count == 1 else f"{count} images are"
            more = "--val SOURCE or --set data.val_fraction=0.2 gives more"
            self._notice(f"{images} held out for validation, few to judge by; {more}")

    def _resume(self) -> int:
        facts, notices = self.folder.restore_newest(self.state)
        for notice in notices:
            self._notice(notice)
        if facts is not None and facts["data"] != self.data_fingerprint:
            raise TrainingError(
                f"{self.folder.path}: the training images are not those the run began with ({len(self.images)} now); "
                "give the same SOURCE and --val, or begin another run with another -o"
            )
        if facts is not None and facts["val"] != self.val_fingerprint:
            raise TrainingError(
                f"{self.folder.path}: the validation images are not those the run began with; give the same --val, or "
                "begin another run with another -o"
            )
        self.folder.timing.rewind()
        if facts is None:
            self.folder.metrics.rewind(0)
        else:
            self.folder.metrics.rewind(facts["metrics_bytes"], facts.get("metrics_waiting", ()))
            self.best.restore(self.folder.best_validation(), self._average_after)
            self._notice(f"resumed after {self.state.seen} of {self.config.images} training images")
        return self.state.seen

    def _average_after(self, seen: int) -> Tokenizer | None:
        """The averaged tokenizer as it was after `seen` training images, None where no checkpoint has it."""
        weights = self.folder.averaged_weights(seen)
        if weights is None:
            return None
        tokenizer = copy.deepcopy(self.state.average)
        tokenizer.load_state_dict(weights)
        return tokenizer

    def _due(self, interval: int) -> bool:
        """The last step has passed a multiple of `interval`."""
        return self.state.seen // interval > (self.state.seen - self.config.batch_size) // interval

    def _log(self) -> None:
        trouble = self.state.trouble()
        if trouble is not None:
            raise self._given_up(trouble)
        window = self.state.window
        usage = CodebookUsage.of_codebooks(window.counts.cpu().numpy().copy(), 0)
        metrics = window.means() | _usage_figures(usage)
        window.clear()
        rate, wait = self.clock.lap()
        timing = {"images_per_second": rate, "data_wait": wait}
        with self._surviving("the log"):
            self.folder.metrics.add({"images": self.state.seen, **metrics})
        with self._surviving("the log"):
            self.folder.timing.add({"images": self.state.seen, **timing})
        self.board.add(metrics | timing, self.state.seen)
        self._tell(metrics=metrics, usage=usage, images_per_second=rate, data_wait=wait)
        for key, reason in self._new_unreadable():
            self._notice(f"{key}: passed over in training ({reason})")

    def _given_up(self, trouble: str) -> TrainingError:
        return TrainingError(f"{self.folder.path}: training image {self.state.seen}: {trouble}{self._way_out()}")

    def _way_out(self) -> str:
        """Where a run that must be given up can be gone on from."""
        with self._surviving("the best tokenizer", last=True):
            self.best.write()
        return (
            f", which --start-from {self.best.folder} may begin where this one was best" if self.best.is_there else ""
        )

    def _validate(self, previews: Tensor | None) -> Quality:
        with self.clock.paused():
            size = self.config.tokenizer.size
            try:
                quality = measure(self.state.average, self.held_out, size=size, metrics=self._metrics())
            except LatentsError as error:
                raise self._given_up(self.state.advice("validation met latents that are not finite")) from error
            figures = _val_figures(quality)
            with self._surviving("the log"):
                self.folder.metrics.add({"images": self.state.seen, **figures})
            self.board.add(figures, self.state.seen)
            if previews is not None:
                with self._surviving("a preview"):
                    write_preview(self.folder.preview_path(self.state.seen), self.state.average, previews)
            if is_better(figures, self.best.figures):
                self.best.take({"images": self.state.seen, **figures}, self.state.average)
            with self._surviving("the best tokenizer"):
                self.best.write()
        self.findings, best = self._advice(quality.usage), dict(self.best.figures)
        self._tell(validation=quality, best=best, findings=self.findings)
        return quality

    def _metrics(self) -> list[Metric]:
        perceptual = self.state.perceptual
        return build_metrics({} if perceptual is None else {"perceptual": perceptual})

    def _advice(self, usage: CodebookUsage) -> tuple[Finding, ...]:
        """What is wrong with the use of the codebook: a collapse once a fifth of the run is done and revival has had
        its time, since few codes are used at first, and at the end all that is wasted too."""
        young = self.state.steps < enough_for_restart(steps_before_restart(self.config))
        early = young or self.state.seen < _ADVICE_FROM * self.config.images
        last = self.state.seen >= self.config.images
        if not last and (early or self.advised):
            return ()
        instead = self._longer_run() if young else ""
        found = findings_of_use(usage, self.config.tokenizer.quantizer, instead=instead)
        grades = ("problem", "warning") if last else ("problem",)
        told = tuple(each for grade in grades for each in found if each.grade == grade)
        self.advised = self.advised or bool(told)
        return told

    def _longer_run(self) -> str:
        """What to do where the run was over before revival could show what it does."""
        first, steps = steps_before_restart(self.config), self.state.steps
        least = enough_for_restart(first) * self.config.batch_size
        acts = f"revival cannot act before step {first}" if steps < first else f"revival acts from step {first} on"
        return f"{acts} and this run had {steps} steps; train longer, in a new run with --images {least} or more"

    def _save(self, *, must: bool = False) -> None:
        """Write a checkpoint, and what waits. A disk that refuses is told, and training goes on, unless it `must` be
        written."""
        with self.clock.paused():
            with self._surviving("the log"):
                self.folder.metrics.write(durable=True)
            with self._surviving("the log"):
                self.folder.timing.write()
            with nullcontext() if must else self._surviving("a checkpoint"):
                self._save_checkpoint()
            with self._surviving("the best tokenizer"):
                self.best.write()

    def _save_checkpoint(self) -> None:
        facts = {
            "data": self.data_fingerprint,
            "val": self.val_fingerprint,
            "metrics_bytes": self.folder.metrics.length,
            "metrics_waiting": self.folder.metrics.waiting,  # lines that a full disk refused come back from here
        }
        kept, best = self.config.keep_checkpoints, self.best.figures.get("images")
        self.folder.save_checkpoint(self.state, facts, kept=kept, best=best)

    def _finish(self) -> None:
        """Write what stays when the run is done.

        A disk that refuses it has the finished state as a checkpoint before DiskError is raised, so that the same
        command has only this left to do.
        """
        with self._surviving("the log of speeds", last=True):
            self.folder.timing.write()
        with self._surviving("the best tokenizer", last=True):
            self.best.write()
        try:
            self.folder.metrics.write(durable=True)
            self.folder.write_tokenizer(self.state.average)
        except DiskError:
            if self.state.seen not in self.folder.checkpoints_seen():
                with suppress(DiskError):
                    self._save_checkpoint()
            raise

    @contextmanager
    def _surviving(self, what: str, *, last: bool = False) -> Iterator[None]:
        """A full disk stops no training: it is told once, and the next occasion tries again; the `last` is told too."""
        try:
            yield
        except DiskError as error:
            if last or what not in self.refused:
                self.refused.add(what)
                hope = "" if last else "; training goes on and will try again"
                self._notice(f"{what} could not be written ({error.finding}){hope}")

    def _readable(self, held_out: ImageCollection) -> ImageCollection:
        """The held-out images that can be read; what is wrong with the others is told now, not at a validation."""
        places = []
        for place, key in enumerate(held_out.keys):
            try:
                decode_image(held_out.read(place))
                places.append(place)
            except (ImageError, SourceError) as error:
                self._notice(f"{key}: passed over in validation ({error})")
        return held_out.only(places)

    def _preview_images(self) -> Tensor | None:
        chosen = self.held_out.subsample(_PREVIEWED)
        fitted = [fit_image(decode_image(data), self.config.tokenizer.size).pixels for _, data in chosen]
        return torch.stack(fitted) if fitted else None

    def _new_unreadable(self) -> list[tuple[str, str]]:
        new = [(key, reason) for key, reason in list(self.stream.unreadable.items()) if key not in self.told]
        self.told.update(key for key, _ in new)
        return new

    def _notice(self, text: str) -> None:
        self._tell(notice=text)

    def _tell(self, **news: Any) -> None:
        """The last batch may go beyond the end of the run, which is told as its end."""
        images = self.config.images
        self.tell(TrainProgress(min(self.state.seen, images), images, **news))


def _usage_figures(usage: CodebookUsage) -> dict[str, float]:
    """Those of `imtok stats`, as far as counts alone have them."""
    use = usage.as_use().model_dump(exclude_none=True)
    figures = {f"codebook/{name}": value for name, value in use.items()}
    if usage.by_codebook is not None:
        for number, each in enumerate(usage.codebooks, 1):
            figures |= {f"codebook/{number}/usage": each.usage, f"codebook/{number}/perplexity": each.perplexity}
    return figures


def _val_figures(quality: Quality) -> dict[str, Any]:
    """A line of the log; metrics by a network, which only some runs have, come last."""
    use = {"val/usage": quality.usage.usage, "val/perplexity": quality.usage.perplexity}
    values = {f"val/{name}": value for name, value in quality.values.items() if not METRICS[name].needs}
    return values | use | {f"val/{name}": value for name, value in quality.values.items()}


@contextmanager
def _seeded(config: TrainConfig) -> Iterator[None]:
    """The run's own random state and thread count, the caller's put back afterwards."""
    threads = torch.get_num_threads()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(config.seed)
        torch.set_num_threads(config.threads)
        try:
            with deterministic(resolve_device(config.device)):
                yield
        finally:
            torch.set_num_threads(threads)
