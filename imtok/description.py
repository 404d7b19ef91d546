"""The facts about any folder that imtok writes, by name."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from imtok.config import TokenizerConfig
from imtok.counted import counted
from imtok.data.addresses import is_remote
from imtok.errors import ImtokError
from imtok.export.record import RECORD, read_record
from imtok.hub import is_hub_address
from imtok.tokenizer import Tokenizer, find_tokenizer, load, pretrained_names
from imtok.tokens import open_tokens
from imtok.tokens.folder import INFO, read_manifest, read_tokenizer_config
from imtok.tokens.label_counts import LabelCounts
from imtok.training.run import RunFolder


def describe(name: str | Path) -> dict[str, Any]:
    """Return facts about a run, a token folder or a tokenizer, also one that comes with imtok or from the Hub.

    Raises ImtokError where it is none of them.
    """
    if is_hub_address(name):
        return {"kind": "tokenizer", **_tokenizer(load(name))}
    if isinstance(name, str) and is_remote(name):
        return _tokens(name)
    folder = Path(name)
    if (folder / INFO).is_file():
        return _tokens(folder)
    if (folder / RECORD).is_file():
        return _export(folder)
    if (folder / "config.yaml").is_file():
        return _run(folder)
    if (folder / "config.json").is_file():
        return {"kind": "tokenizer", **_tokenizer(load(folder))}
    if str(folder) in pretrained_names():
        return describe(find_tokenizer(folder))
    if not folder.exists():
        raise ImtokError(f"{folder}: no such folder; give a run, a tokenizer or a token folder")
    raise ImtokError(f"{folder}: neither a run, nor a tokenizer, nor a token folder, nor an export of imtok")


def _tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    config = tokenizer.config
    parts = {name: tokenizer.get_submodule(name) for name in ("encoder", "quantizer", "decoder")}
    return {
        "codebook_size": tokenizer.num_codes,
        "num_codebooks": tokenizer.num_codebooks,
        "downsample": tokenizer.downsample,
        "size": config.size,
        "quantizer": config.quantizer.model_dump(mode="json"),
        "network": config.network.model_dump(mode="json"),
        "parameters": {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()},
        "fingerprint": tokenizer.fingerprint,
        **_origin(config),
    }


def _origin(config: TokenizerConfig | None) -> dict[str, Any]:
    """Return the published checkpoint that weights come from, as a fact of its own where there is one."""
    if config is None or config.origin is None:
        return {}
    return {"origin": config.origin.model_dump(mode="json", exclude_defaults=True)}


def _run(folder: Path) -> dict[str, Any]:
    run = RunFolder(folder)
    config = run.saved_config()
    assert config is not None
    last = run.last_validation()
    facts: dict[str, Any] = {
        "kind": "run",
        "finished": run.finished,
        "training_images": config.images,
        "trained_on": config.images if run.finished else max(run.checkpoints_seen(), default=0),
        "validation": {name.removeprefix("val/"): value for name, value in last.items() if name != "images"},
    }
    if config.data.stream is True:
        facts["shards"] = f"streamed, shuffled in windows of {counted(config.data.window, 'shard')}"
    described = _tokenizer(load(folder) if run.finished else Tokenizer(config.tokenizer))
    if not run.finished:
        del described["fingerprint"]  # of weights that do not exist yet
    return facts | described


def _tokens(folder: str | Path) -> dict[str, Any]:
    tokens = open_tokens(folder, partial=True)
    info = tokens.info
    manifest = read_manifest(folder)
    if manifest is not None and len(manifest.entries) < info.all_units:  # from before its inputs grew
        manifest = None
    labels, reasons = LabelCounts(info), Counter[str]()
    for shard in tokens.shards():
        reasons.update(reason.split(":")[0] for reason in shard.skip_reasons)
        labels.add(shard, tokens.container_name)
    return {
        "kind": "tokens",
        "complete": manifest is not None,
        "images": len(tokens),
        "skipped": dict(reasons),
        "units": f"{len(tokens.units)} of {info.all_units}",
        "grid": list(info.grid),
        "codebook_size": info.codebook_size,
        "num_codebooks": info.num_codebooks,
        "size": info.size,
        "fit": info.fit,
        **({"augment": info.augment, "num_crops": info.num_crops} if info.augment else {}),
        "labels": labels.describe(),
        "classes": labels.by_name,
        "numerics": info.numerics.model_dump(mode="json"),
        "fingerprint": info.fingerprint,
        "dataset_id": manifest.dataset_id if manifest else None,
        **_origin(read_tokenizer_config(folder)),
    }


def _export(folder: Path) -> dict[str, Any]:
    record = read_record(folder)
    return {
        "kind": "export",
        "to": record.to,
        "images": record.images,
        "ids_per_image": record.ids_per_image,
        "crops": record.crops,
        "vocabulary": record.num_ids,
        "code_ids": list(record.code_ids),
        "label_ids": None if record.label_ids is None else list(record.label_ids),
        "dtype": record.dtype,
        "options": record.options.given,
        "labelled": record.labelled,
        "files": record.num_files,
        "bytes": sum(file.bytes for file in record.files),
        "dataset_id": record.dataset_id,
        "complete": record.complete,
        "fingerprint": record.tokens.fingerprint,
        "imtok": record.imtok,
        **({} if record.origin is None else {"origin": record.origin}),
    }
