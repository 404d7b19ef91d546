"""The plan of a training run as `imtok train --dry-run` prints it: the configuration as YAML, the rest as comments."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from imtok.cli.console import out, print_result
from imtok.counted import counted

if TYPE_CHECKING:
    from imtok.config import TrainConfig
    from imtok.training.plan import TrainPlan

_WIDTH = 100  # of comments, unless the terminal is narrower


def print_plan(plan: TrainPlan) -> None:
    """Print the configuration as YAML, and what follows from it as its comments."""
    from imtok.training.codebook_diagnosis import too_short_for_codebook

    config, memory = plan.config, plan.memory
    tokenizer, batch = config.tokenizer, config.batch_size
    bits = f"{plan.bits:.0f} bits, {plan.bits_per_pixel:.3f} a pixel"
    rows = {
        "parameters": ", ".join(f"{name} {_short(count)}" for name, count in plan.parameters.items()),
        "an image": f"{tokenizer.size} px to {'x'.join(map(str, plan.grid))} = {counted(plan.tokens, 'token')} of "
        f"{plan.num_codes} codes: {bits}",
        "training": f"{_training(plan)}: {config.images} in {counted(plan.steps, 'step')} of {batch}",
        "validation": f"{_images(plan.validation_images)}, after every "
        f"{counted(config.validation_interval, 'training image')}"
        if plan.validation_images
        else "nothing is held out",
    }
    if warning := too_short_for_codebook(config):
        rows["too short"] = warning
    for number, note in enumerate(plan.notes, 1):
        rows[f"note {number}" if len(plan.notes) > 1 else "note"] = note
    if len(plan.shares) > 1:
        rows["processes"] = _processes(plan.shares, config.accumulate)
    if plan.discriminator:
        learns, active, full = plan.discriminator
        rows["discriminator"] = (
            f"learns after {learns} images, is active in the generator's loss after {active}, with its full weight "
            f"after {full}"
        )
    if plan.steps_alone:
        rows["discriminator"] += f"; {plan.steps_alone} of the {plan.steps} steps are its own alone"
    rows |= plan.requirements
    where = f"{config.device}, in each process" if len(plan.shares) > 1 else config.device
    rows["memory"] = (
        f"about {_bytes(memory.device)} on {where}: weights {_bytes(memory.weights)}, their EMA "
        f"{_bytes(memory.ema)}, gradients {_bytes(memory.gradients)}, optimizer {_bytes(memory.optimizer_state)}, "
        f"activations of {_images(max(plan.shares))} {_bytes(memory.activations)}"
    )
    limit = plan.memory_limit
    if plan.memory_needed > limit:
        rows["too large"] = (
            f"about {_bytes(plan.memory_needed)}, and {config.device} has {_bytes(limit)}: lower batch_size, data.crop "
            "or network.channels, or raise accumulate"
        )
    kept = f"two windows of {config.data.window} shards" if plan.shards else "images kept decoded"
    rows["and besides"] = f"{kept} {_bytes(memory.decoded)}, the libraries, what single layers take"
    print_result(_with_meanings(config.to_yaml().rstrip(), config))
    width = min(_WIDTH, out().width) - len("# ") if out().is_terminal else _WIDTH - len("# ")
    for name, value in rows.items():
        for line in textwrap.wrap(f"{name:15}{value}", width, subsequent_indent=" " * 15):
            print_result(f"# {line}")


def _with_meanings(yaml: str, config: TrainConfig) -> str:
    """Add to a 0 that stands for a choice what it comes to."""
    for name, interval in (
        ("validate_every", config.validation_interval),
        ("checkpoint_every", config.checkpoint_interval),
    ):
        yaml = yaml.replace(
            f"\n{name}: 0\n", f"\n{name}: 0  # chosen by imtok: {counted(interval, 'training image')}\n"
        )
    return yaml


def _processes(shares: tuple[int, ...], parts: int) -> str:
    """Say how many images of a batch, or of each of its parts, a process computes."""
    least, most = min(shares), max(shares)
    each = f"{most}" if least == most else f"{least} or {most}"
    of_part = "a batch" if parts == 1 else f"each of the {parts} parts of a batch"
    return f"{len(shares)}, each of which computes {each} of the {_images(sum(shares))} of {of_part}"


def _training(plan: TrainPlan) -> str:
    """Say what is trained on, and how often where that is known."""
    if plan.training_images is None or plan.epochs is None:
        return f"{counted(plan.shards or 0, 'shard')}, whose images are not counted"
    return f"{_images(plan.training_images)}, each seen {plan.epochs:.1f} times"


def _images(count: int) -> str:
    return counted(count, "image")


def _short(count: int) -> str:
    """Shorten a count: 47824579 becomes 47.8 M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g} {letter}"
    return str(count)


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
