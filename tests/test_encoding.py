"""Encoding: every input once, whatever happens to the process."""

from __future__ import annotations

import json
import os
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import forked
from making import contents, encoded, fill, picture, pictures_tar, tiny_tokenizer, write_tar

import imtok
import imtok.encoding.job
import imtok.encoding.settings
from imtok.data.archives.tars import open_tar
from imtok.data.containers import ImageFile
from imtok.data.images import decode_image, fit_image
from imtok.data.reading import Reading
from imtok.data.sources import CONTAINERS
from imtok.data.storage import LocalStorage
from imtok.encoding import EncodeProgress, encode
from imtok.errors import (
    ConfigError,
    ImtokError,
    Interrupted,
    SourceError,
    TokenizerError,
    TokensError,
    TooManySkips,
)
from imtok.tokens import open_tokens, read_shard, verify_tokens
from imtok.tokens.folder import shard_path
from imtok.tokens.store import LocalStore


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty images, some nested, one of them unreadable."""
    folder = fill(tmp_path_factory.mktemp("photos"), [f"{n % 3}/{n:02d}.png" for n in range(29)] + ["loose.jpg"])
    (folder / "1/13.png").write_bytes(encoded(picture(0))[:100])
    return folder


def plain_codes(tokenizer: Path, data: bytes) -> torch.Tensor:
    """The codes of one image by the shortest way."""
    pixels = fit_image(decode_image(data), 32).pixels
    return imtok.load(tokenizer).encode(pixels[None])[0]


# What comes out


def test_codes_are_those_of_the_tokenizer_under_the_images_keys(photos: Path, tokenizer: Path, tmp_path: Path) -> None:
    report = encode([photos], tmp_path / "t", tokenizer, unit_size=8, batch_size=3)
    tokens = open_tokens(tmp_path / "t")
    keys = [key for key, _ in tokens]
    expected = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.*"))
    expected.remove("1/13.png")
    assert keys == expected
    for key, codes in tokens:
        assert torch.equal(codes, plain_codes(tokenizer, (photos / key).read_bytes())), key
    assert (report.images, report.skipped, report.units_done, report.complete) == (29, 1, 4, True)
    assert report.skips["truncated"].examples == ("1/13.png",)
    assert report.grid == (4, 4)
    assert report.bits_per_image == pytest.approx(16 * np.log2(125))
    assert report.mean_cut == pytest.approx(1 - 40 / 48)
    assert verify_tokens(tmp_path / "t").ok


def test_a_shard_accounts_for_every_input_of_its_unit(photos: Path, tokenizer: Path, tmp_path: Path) -> None:
    encode([photos], tmp_path / "t", tokenizer, unit_size=8, batch_size=3)
    for unit in range(4):
        shard = read_shard(tmp_path / "t" / shard_path(unit))
        positions = [*shard.index.tolist(), *shard.skip_index.tolist()]
        assert sorted(positions) == list(range(shard.header.inputs))
        assert shard.codes.dtype == np.uint8
        assert set(map(tuple, shard.original_size.tolist())) <= {(48, 40)}


def test_an_image_gets_the_same_codes_beside_an_unreadable_one(tokenizer: Path, tmp_path: Path) -> None:
    good, other = encoded(picture(1)), encoded(picture(2))
    for name, first in (("a", other), ("b", b"broken")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(first)
        (tmp_path / name / "1.png").write_bytes(good)
        encode([tmp_path / name], tmp_path / f"t{name}", tokenizer)
    assert torch.equal(open_tokens(tmp_path / "ta")[1][1], open_tokens(tmp_path / "tb")[0][1])


@pytest.mark.parametrize("workers", [1, 5])
def test_workers_ranks_and_shards_change_nothing(photos: Path, tokenizer: Path, tmp_path: Path, workers: int) -> None:
    options: dict[str, Any] = {"unit_size": 4, "batch_size": 3}
    encode([photos], tmp_path / "one", tokenizer, **options)
    for rank in range(2):
        for index in reversed(range(3)):
            report = encode(
                [photos],
                tmp_path / "six",
                tokenizer,
                **options,
                rank=rank,
                world_size=2,
                shard=(index, 3),
                workers=workers,
            )
    assert report.complete
    assert contents(tmp_path / "six") == contents(tmp_path / "one")


def test_torchs_thread_count_is_left_as_it_was(photos: Path, tokenizer: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        encode([photos], tmp_path / "t", tokenizer)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_class_folders_become_labels(tokenizer: Path, tmp_path: Path) -> None:
    fill(tmp_path / "in", ["dog/a.png", "cat/b.png", "cat/c.png"])
    encode([tmp_path / "in"], tmp_path / "t", tokenizer)
    tokens = open_tokens(tmp_path / "t")
    assert tokens.class_names == ("cat", "dog")
    assert [(tokens[i][0], tokens.label(i)) for i in range(3)] == [("cat/b.png", 0), ("cat/c.png", 0), ("dog/a.png", 1)]


def test_cls_members_become_labels(tokenizer: Path, tmp_path: Path) -> None:
    data = encoded(picture(0))
    write_tar(tmp_path / "x.tar", [("a.png", data), ("a.cls", b"41"), ("b.png", data)])
    pictures_tar(tmp_path / "y.tar", ["c.png"])
    encode([tmp_path / "x.tar", tmp_path / "y.tar"], tmp_path / "t", tokenizer)
    tokens = open_tokens(tmp_path / "t")
    assert [tokens.label(index) for index in range(3)] == [41, None, None]
    assert tokens.class_names == ()
    assert [shard.labels is None for shard in tokens.shards()] == [False, True]


def test_bf16_is_recorded_and_resumed_in(photos: Path, tokenizer: Path, tmp_path: Path) -> None:
    encode([photos], tmp_path / "t", tokenizer, precision="bf16")
    assert open_tokens(tmp_path / "t").info.numerics.precision == "bf16"
    assert encode([photos], tmp_path / "t", tokenizer).was_complete


def test_padding_keeps_the_whole_image(tokenizer: Path, tmp_path: Path) -> None:
    fill(tmp_path / "in", ["a.png"])
    report = encode([tmp_path / "in"], tmp_path / "t", tokenizer, fit="pad", size=48)
    pixels = fit_image(decode_image((tmp_path / "in/a.png").read_bytes()), 48, "pad").pixels
    assert torch.equal(open_tokens(tmp_path / "t")[0][1], imtok.load(tokenizer).encode(pixels[None])[0])
    assert report.mean_cut is None
    assert report.grid == (6, 6)


def test_enlarged_pictures_are_counted_with_their_factor(tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, size in {"small.png": (8, 40), "half.png": (16, 16), "large.png": (64, 33)}.items():
        (tmp_path / "in" / name).write_bytes(encoded(picture(0, *size)))
    report = encode([tmp_path / "in"], tmp_path / "crop", tokenizer)
    assert (report.encoded, report.enlarged, report.mean_enlargement) == (3, 2, 3.0)  # 4 times and twice
    report = encode([tmp_path / "in"], tmp_path / "pad", tokenizer, fit="pad")
    assert (report.enlarged, report.mean_enlargement) == (1, 2.0)  # by the longer side
    assert encode([tmp_path / "in"], tmp_path / "pad", tokenizer, fit="pad").mean_enlargement is None


def test_progress_counts_every_input(photos: Path, tokenizer: Path, tmp_path: Path) -> None:
    told: list[EncodeProgress] = []
    encode([photos], tmp_path / "t", tokenizer, unit_size=8, batch_size=4, progress=told.append)
    assert [step.done for step in told] == sorted(step.done for step in told)
    assert (told[-1].done, told[-1].total, told[-1].skipped) == (30, 30, 1)
    assert (told[-1].units_done, told[-1].units_total) == (4, 4)


def test_the_folder_names_no_paths_times_or_hosts(photos: Path, tokenizer: Path, tmp_path: Path) -> None:
    encode([photos], tmp_path / "t", tokenizer)
    for name, data in contents(tmp_path / "t").items():
        assert str(photos).encode() not in data, name
        assert os.uname().nodename.encode() not in data or name.endswith("model.safetensors"), name


def test_an_unfinished_share_is_no_complete_folder(photos: Path, tokenizer: Path, tmp_path: Path) -> None:
    report = encode([photos], tmp_path / "t", tokenizer, unit_size=8, shard=(1, 2))
    assert not report.complete
    assert (report.units_done, report.units_total, report.images) == (2, 4, 13)
    with pytest.raises(TokensError, match="2 of 4 units are missing"):
        open_tokens(tmp_path / "t")


# Again, and otherwise


def test_a_finished_encode_again_rewrites_nothing(photos: Path, tokenizer: Path, tmp_path: Path) -> None:
    first = encode([photos], tmp_path / "t", tokenizer, unit_size=8)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "t").rglob("*")}
    again = encode([photos], tmp_path / "t", tokenizer)
    assert again.was_complete
    assert (again.images, again.skipped, again.skips) == (first.images, first.skipped, first.skips)
    assert again.dataset_id == first.dataset_id
    assert (again.units_done, again.units_before) == (0, 4)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "t").rglob("*")} == before


def test_a_deleted_shard_is_made_anew(photos: Path, tokenizer: Path, tmp_path: Path) -> None:
    encode([photos], tmp_path / "t", tokenizer, unit_size=8)
    before = contents(tmp_path / "t")
    (tmp_path / "t" / shard_path(2)).unlink()
    assert encode([photos], tmp_path / "t", tokenizer).units_done == 1
    assert contents(tmp_path / "t") == before


@pytest.mark.parametrize(
    ("options", "finding"),
    [
        ({"precision": "bf16"}, "begun with --precision fp32, this call has bf16"),
        ({"batch_size": 5}, "begun with --batch-size 4, this call has 5"),
        ({"size": 64}, "begun with --size 32, this call has 64"),
        ({"fit": "pad"}, "begun with --fit crop, this call has pad"),
        ({"unit_size": 9}, "begun with --unit-size 8, this call has 9"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_other_options_on_resume_are_refused_and_both_sides_named(
    photos: Path, tokenizer: Path, tmp_path: Path, options: dict[str, Any], finding: str, finished: bool
) -> None:
    encode([photos], tmp_path / "t", tokenizer, unit_size=8, batch_size=4, shard=(0, 1 if finished else 2))
    before = contents(tmp_path / "t")
    with pytest.raises(TokensError, match=finding):
        encode([photos], tmp_path / "t", tokenizer, **options)
    assert contents(tmp_path / "t") == before


def test_another_tokenizer_on_resume_is_refused(photos: Path, tokenizer: Path, tmp_path: Path) -> None:
    encode([photos], tmp_path / "t", tokenizer)
    other = tiny_tokenizer(tmp_path / "other", seed=1)
    ours, theirs = imtok.load(tokenizer).fingerprint[:12], imtok.load(other).fingerprint[:12]
    with pytest.raises(TokensError, match=f"begun with tokenizer {ours}, this call has {theirs}"):
        encode([photos], tmp_path / "t", other)


def test_a_tokenizer_with_another_decoder_goes_on(photos: Path, tokenizer: Path, tmp_path: Path) -> None:
    encode([photos], tmp_path / "t", tokenizer, shard=(0, 2), unit_size=8)
    tuned = imtok.load(tokenizer)
    next(tuned.decoder.parameters()).data += 1
    tuned.save(tmp_path / "tuned")
    assert encode([photos], tmp_path / "t", tmp_path / "tuned").complete
    assert (tmp_path / "t/tokenizer/model.safetensors").read_bytes() == (tokenizer / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["torch", "pillow"])
def test_other_versions_may_not_finish_a_folder(
    photos: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    encode([photos], tmp_path / "half", tokenizer, unit_size=8, shard=(0, 2))
    encode([photos], tmp_path / "whole", tokenizer)
    monkeypatch.setattr(imtok.encoding.settings, "_versions", lambda: {"imtok": "9", "torch": "9", "pillow": "9"})
    real = json.loads((tmp_path / "half/imtok.json").read_text())["numerics"]["versions"]
    monkeypatch.setattr(imtok.encoding.settings, "_versions", lambda: real | {name: "9"})
    with pytest.raises(TokensError, match=f"begun with {name} .*, this call has 9"):
        encode([photos], tmp_path / "half", tokenizer)
    assert encode([photos], tmp_path / "whole", tokenizer).was_complete


def test_changed_inputs_are_refused_and_the_first_difference_named(tokenizer: Path, tmp_path: Path) -> None:
    source = fill(tmp_path / "in", ["a.png", "b.png", "c.png"])
    encode([source], tmp_path / "t", tokenizer)
    original = (source / "b.png").read_bytes()
    (source / "b.png").write_bytes(original + b"more")
    with pytest.raises(SourceError, match=rf"b\.png had {len(original)} bytes, has {len(original) + 4}"):
        encode([source], tmp_path / "t", tokenizer)
    (source / "b.png").unlink()
    with pytest.raises(SourceError, match=r"b\.png is missing"):
        encode([source], tmp_path / "t", tokenizer)
    (source / "b.png").write_bytes(original)
    fill(source, ["d.png"])
    assert encode([source], tmp_path / "t", tokenizer).units_added == 1


def test_an_input_of_which_nothing_is_committed_may_be_mended(tokenizer: Path, tmp_path: Path) -> None:
    good = pictures_tar(tmp_path / "good.tar", ["a.png"])
    whole = pictures_tar(tmp_path / "cut.tar", ["b.png", "c.png"]).read_bytes()
    encode([good, tmp_path / "cut.tar"], tmp_path / "whole", tokenizer)
    (tmp_path / "cut.tar").write_bytes(whole[:1000])
    assert len(encode([good, tmp_path / "cut.tar"], tmp_path / "t", tokenizer).failed) == 1
    (tmp_path / "cut.tar").write_bytes(whole)
    assert encode([good, tmp_path / "cut.tar"], tmp_path / "t", tokenizer).complete
    assert contents(tmp_path / "t") == contents(tmp_path / "whole")
    good.write_bytes(good.read_bytes() + bytes(512))
    with pytest.raises(SourceError, match=r"good\.tar had .* bytes, has"):
        encode([good, tmp_path / "cut.tar"], tmp_path / "t", tokenizer)


def test_no_unit_is_committed_under_a_plan_of_other_inputs(tokenizer: Path, tmp_path: Path) -> None:
    tars = [pictures_tar(tmp_path / f"{name}.tar", [f"{name}.png"]) for name in "xy"]
    whole = tars[1].read_bytes()
    encode(tars, tmp_path / "whole", tokenizer)

    def disturb(step: EncodeProgress) -> None:
        """Before this process commits its second unit, another one finds that tar cut and plans with it."""
        if step.units_done == 1:
            tars[1].write_bytes(whole[:1000])
            assert not encode(tars, tmp_path / "t", tokenizer).complete  # the tar is in the hands of this process
            tars[1].write_bytes(whole)

    report = encode(tars, tmp_path / "t", tokenizer, progress=disturb)
    assert "its inputs changed meanwhile" in report.failed[0].reason
    assert encode(tars, tmp_path / "t", tokenizer).complete
    assert contents(tmp_path / "t") == contents(tmp_path / "whole")


def test_a_damaged_plan_is_restored(photos: Path, tokenizer: Path, tmp_path: Path) -> None:
    encode([photos], tmp_path / "t", tokenizer)
    before = contents(tmp_path / "t")
    (tmp_path / "t/plan/inputs-00000.jsonl").write_bytes(b"half")
    encode([photos], tmp_path / "t", tokenizer)
    assert contents(tmp_path / "t") == before


def test_a_folder_of_something_else_is_not_written_into(photos: Path, tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t/thesis.txt").write_text("precious")
    with pytest.raises(TokensError, match="holds files and is no token folder"):
        encode([photos], tmp_path / "t", tokenizer)
    with pytest.raises(TokensError, match="a file, expected a folder"):
        encode([photos], tmp_path / "t/thesis.txt", tokenizer)
    assert [path.name for path in (tmp_path / "t").iterdir()] == ["thesis.txt"]


def test_a_damaged_tokenizer_copy_is_noticed(photos: Path, tokenizer: Path, tmp_path: Path) -> None:
    encode([photos], tmp_path / "t", tokenizer, unit_size=8, shard=(0, 2))
    (tmp_path / "t/tokenizer/model.safetensors").write_bytes(b"half")
    with pytest.raises(TokensError, match=r"tokenizer/model\.safetensors: cannot be read"):
        encode([photos], tmp_path / "t", tokenizer)


@pytest.mark.parametrize(
    ("options", "finding"),
    [
        ({"size": 100}, "--size 100: no multiple of the tokenizer's downsampling 8; take 96 or 104"),
        ({"size": 3}, "take 8$"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"unit_size": -1}, "--unit-size -1"),
        ({"fit": "stretch"}, "--fit stretch: expected crop or pad"),
        ({"precision": "fp16"}, "--precision fp16"),
        ({"device": "abacus"}, "abacus"),
        ({"shard": (2, 2)}, "--shard 2/2"),
        ({"rank": 4, "world_size": 4}, "rank 4 of world size 4"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_made(
    photos: Path, tokenizer: Path, tmp_path: Path, options: dict[str, Any], finding: str
) -> None:
    with pytest.raises(ConfigError, match=finding):
        encode([photos], tmp_path / "t", tokenizer, **options)
    assert not (tmp_path / "t").exists()


def test_a_missing_tokenizer_is_named_before_anything_is_made(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="nowhere"):
        encode([photos], tmp_path / "t", tmp_path / "nowhere")
    assert not (tmp_path / "t").exists()


# Skips and failures


def test_too_many_skips_end_in_an_error_with_everything_committed(
    photos: Path, tokenizer: Path, tmp_path: Path
) -> None:
    with pytest.raises(TooManySkips, match=r"1 of 30 inputs were skipped \(1 truncated.*--max-skip allows 0"):
        encode([photos], tmp_path / "t", tokenizer, max_skip=0)
    assert len(open_tokens(tmp_path / "t")) == 29
    assert encode([photos], tmp_path / "t", tokenizer, max_skip=1).was_complete
    with pytest.raises(TooManySkips):
        encode([photos], tmp_path / "t", tokenizer, max_skip=0)


def test_a_file_that_changes_fails_only_its_unit(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = fill(tmp_path / "in", ["a.png", "b.png", "c.png"])
    real = LocalStorage.read

    def read(storage: LocalStorage, address: str, offset: int = 0, size: int = -1) -> bytes:
        return b"short" if address.endswith("b.png") else real(storage, address, offset, size)

    monkeypatch.setattr(LocalStorage, "read", read)
    report = encode([source], tmp_path / "t", tokenizer, unit_size=1)
    assert [(failed.unit, failed.name) for failed in report.failed] == [(1, "unit 1 (b.png to b.png)")]
    assert "5 bytes" in report.failed[0].reason
    assert (report.images, report.complete) == (2, False)
    monkeypatch.setattr(LocalStorage, "read", real)
    assert encode([source], tmp_path / "t", tokenizer).complete


@pytest.mark.parametrize(
    ("error", "skipped"),
    [
        (PermissionError(13, "Permission denied"), 1),
        (OSError(5, "Input/output error"), 1),
        (OSError(24, "Too many"), 0),
    ],
)
def test_only_what_is_one_files_own_trouble_is_a_skip(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, skipped: int
) -> None:
    source = fill(tmp_path / "in", ["a.png", "b.png"])
    real = LocalStorage.read

    def read(storage: LocalStorage, address: str, offset: int = 0, size: int = -1) -> bytes:
        if address.endswith("b.png"):
            raise error
        return real(storage, address, offset, size)

    monkeypatch.setattr(LocalStorage, "read", read)
    report = encode([source], tmp_path / "t", tokenizer, unit_size=1)
    assert (report.skipped, len(report.failed)) == (skipped, 1 - skipped)


@pytest.mark.parametrize(("moment", "finding"), [("before", "when it was listed"), ("after", "the file changed")])
def test_a_tar_that_shrinks_after_listing_fails(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, finding: str
) -> None:
    tar = pictures_tar(tmp_path / "x.tar", ["a.png", "b.png"])
    whole = open_tar(str(tar))

    def shrinking(address: str, _: Reading) -> object:
        tar.write_bytes(tar.read_bytes()[: whole.images[1].part.offset + 9])
        return open_tar(address) if moment == "before" else whole

    monkeypatch.setitem(CONTAINERS, ".tar", shrinking)
    report = encode([tar], tmp_path / "t", tokenizer)
    assert finding in report.failed[0].reason


def test_an_unreadable_tar_fails_alone_and_is_never_salvaged(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tars = [pictures_tar(tmp_path / f"{name}.tar", ["a.png"]) for name in "xy"]

    def gone(address: str, _: Reading) -> object:
        tars[1].unlink(missing_ok=True)
        return open_tar(address)

    monkeypatch.setitem(CONTAINERS, ".tar", gone)
    report = encode([*tars], tmp_path / "t", tokenizer, salvage=True)
    assert [failed.name for failed in report.failed] == [str(tars[1])]
    assert "cannot be read (No such file or directory)" in report.failed[0].reason
    assert report.images == 1


def test_renamed_duplicates_take_free_names(tokenizer: Path, tmp_path: Path) -> None:
    names = ["a.png", "a.png", "a~2.png", "a.png", "b/c.d.png", "b/c.d.png"]
    tar = pictures_tar(tmp_path / "x.tar", names)
    report = encode([tar], tmp_path / "t", tokenizer, on_duplicate="suffix")
    keys = [key for key, _ in open_tokens(tmp_path / "t")]
    assert keys == ["a.png", "a~3.png", "a~2.png", "a~4.png", "b/c.d.png", "b/c.d~2.png"]
    assert report.renamed == 3
    assert read_shard(tmp_path / "t" / shard_path(0)).header.renamed == 3


def test_a_hundred_thousand_equal_keys_are_renamed_in_no_time(tmp_path: Path) -> None:
    from imtok.encoding.inputs import _unique_keys

    started = time.perf_counter()
    keys = _unique_keys([ImageFile("a.png", "a.png", 0)] * 100_000)
    assert len(set(keys)) == 100_000
    assert time.perf_counter() - started < 5


def test_latents_that_are_not_numbers_are_the_tokenizers_fault(photos: Path, tokenizer: Path, tmp_path: Path) -> None:
    broken = imtok.load(tokenizer)
    next(broken.encoder.parameters()).data.fill_(float("nan"))
    broken.save(tmp_path / "broken")
    with pytest.raises(TokenizerError, match=r"cannot encode 0/00\.png and what follows"):
        encode([photos], tmp_path / "t", tmp_path / "broken")


def test_a_batch_beyond_memory_says_what_to_do(
    photos: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(imtok.Tokenizer, "encode", refuse)
    with pytest.raises(ConfigError, match="9 images do not fit in memory; take a smaller --batch-size"):
        encode([photos], tmp_path / "t", tokenizer, batch_size=9)


# Stopped, killed, crowded


def test_a_stopped_job_drops_its_unit_and_resumes(photos: Path, tokenizer: Path, tmp_path: Path) -> None:
    encode([photos], tmp_path / "whole", tokenizer, unit_size=8, batch_size=4)
    steps: list[EncodeProgress] = []
    with pytest.raises(Interrupted, match="1 of 4 units committed; run the same command again"):
        encode(
            [photos],
            tmp_path / "t",
            tokenizer,
            unit_size=8,
            batch_size=4,
            progress=steps.append,
            should_stop=lambda: len(steps) >= 3,
        )
    assert encode([photos], tmp_path / "t", tokenizer).units_before == 1
    assert contents(tmp_path / "t") == contents(tmp_path / "whole")


def test_ctrl_c_is_a_request_to_stop(photos: Path, tokenizer: Path, tmp_path: Path) -> None:
    def interrupt(step: EncodeProgress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="0 of 1 unit committed"):
        encode([photos], tmp_path / "t", tokenizer, progress=interrupt)


def test_a_shard_that_another_process_committed_first_stands(
    photos: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = LocalStore.publish_once

    def beaten(store: LocalStore, name: str, data: bytes) -> bool:
        real(store, name, data)
        return False

    encode([photos], tmp_path / "alone", tokenizer)
    monkeypatch.setattr(LocalStore, "publish_once", beaten)
    assert encode([photos], tmp_path / "t", tokenizer).complete
    assert contents(tmp_path / "t") == contents(tmp_path / "alone")


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Processes that begin with torch loaded, so that there is time to kill many of them."""
    return forked()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 images in a folder, one in twenty unreadable."""
    folder = fill(tmp_path_factory.mktemp("many"), [f"{number:03d}.png" for number in range(120)])
    for number in range(0, 120, 20):
        (folder / f"{number:03d}.png").write_bytes(b"broken")
    return folder


def test_two_processes_on_the_same_units_make_one_folder(
    many: Path, tokenizer: Path, tmp_path: Path, processes: ForkServerContext
) -> None:
    encode([many], tmp_path / "alone", tokenizer, unit_size=4)
    pair = [
        processes.Process(target=encode, args=([many], tmp_path / "both", tokenizer), kwargs={"unit_size": 4})
        for _ in range(2)
    ]
    for process in pair:
        process.start()
    for process in pair:
        process.join(30)
    assert [process.exitcode for process in pair] == [0, 0]
    assert contents(tmp_path / "both") == contents(tmp_path / "alone")


def test_two_processes_with_other_options_do_not_mix(many: Path, tokenizer: Path, tmp_path: Path) -> None:
    encode([many], tmp_path / "t", tokenizer, unit_size=4, shard=(0, 2))
    with pytest.raises(ImtokError, match="--batch-size 16, this call has 8"):
        encode([many], tmp_path / "t", tokenizer, batch_size=8, shard=(1, 2))
