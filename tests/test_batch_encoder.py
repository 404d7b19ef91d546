"""The encoder for pipelines of others: the codes of `imtok encode`, and a reason for each image that cannot be read."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from making import QUANTIZERS, encoded, fill, picture, tiny, tiny_tokenizer

import imtok
from imtok import BatchEncoder
from imtok.encoding import encode
from imtok.errors import ConfigError, TokenizerError
from imtok.tokens import open_tokens


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def files(count: int) -> list[bytes]:
    return [encoded(picture(seed, 40 + seed, 48)) for seed in range(count)]


@pytest.mark.parametrize("options", [{}, {"size": 16}, {"fit": "pad"}, {"precision": "bf16"}, {"batch_size": 4}])
def test_codes_are_those_of_imtok_encode(tokenizer: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    fill(tmp_path / "in", [f"{n}.png" for n in range(5)])
    encode([tmp_path / "in"], tmp_path / "t", tokenizer, **options)
    found = BatchEncoder(tokenizer, **options)([encoded(picture(n)) for n in range(5)])
    assert found["codes"].tolist() == [codes.tolist() for _, codes in open_tokens(tmp_path / "t")]
    assert found["codes"].dtype == np.uint8
    assert found["error"].tolist() == [""] * 5


def test_a_batch_may_be_of_any_size(tokenizer: Path) -> None:
    encoder = BatchEncoder(tokenizer, batch_size=2, workers=2)
    whole = encoder(files(5))["codes"]
    parts = np.concatenate([encoder(files(5)[:3])["codes"], encoder(files(5)[3:])["codes"]])
    assert whole.shape == (5, 4, 4)
    assert whole.tolist() == parts.tolist()
    assert encoder([])["codes"].shape == (0, 4, 4)


def test_arrays_have_the_codes_of_their_files(tokenizer: Path) -> None:
    encoder, pictures = BatchEncoder(tokenizer), [picture(seed) for seed in range(3)]
    expected = encoder([encoded(each) for each in pictures])["codes"].tolist()
    arrays = [np.asarray(each) for each in pictures]
    assert encoder(arrays)["codes"].tolist() == expected
    assert encoder(np.stack(arrays))["codes"].tolist() == expected
    assert encoder({"image": np.stack(arrays)})["codes"].tolist() == expected


def test_an_unreadable_image_has_a_reason_and_no_codes(tokenizer: Path) -> None:
    good = files(3)
    encoder = BatchEncoder(tokenizer, max_pixels=48 * 48)
    found = encoder([good[0], good[1][:100], None, b"text", encoded(picture(9, 50, 50)), good[2]])
    assert found["error"].tolist()[1:5] == ["truncated", "no image", "not an image", "too large"]
    assert not found["codes"][1:5].any()
    assert found["codes"][[0, 5]].tolist() == encoder([good[0], good[2]])["codes"].tolist()


def test_columns_beside_the_images_stay(tokenizer: Path) -> None:
    encoder, data = BatchEncoder(tokenizer), files(2)
    paths = np.array(["a", "b"])
    found = encoder({"bytes": np.array(data, dtype=object), "path": paths})
    assert list(found) == ["path", "codes", "error"]
    assert found["path"] is paths
    expected = found["codes"].tolist()
    hub = [{"bytes": each, "path": None} for each in data]
    assert encoder({"image": np.array(hub, dtype=object), "label": np.arange(2)})["codes"].tolist() == expected
    named = BatchEncoder(tokenizer, column="jpg")({"jpg": data, "bytes": [1, 2]})
    assert (named["codes"].tolist(), named["bytes"]) == (expected, [1, 2])


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"path": ["a"]}, "batch with the columns path: expected bytes or image; name it by `column`"),
        ({"bytes": [b""], "error": [""]}, "has a column error already; rename it"),
        ([np.zeros((4, 4, 3), np.float32)], r"row 0 is float32\[4, 4, 3\], expected the bytes of a file or uint8"),
        ([np.zeros((4, 4), np.uint8)], r"row 0 is uint8\[4, 4\]"),
        (["photo.jpg"], "row 0 is <U9"),
    ],
)
def test_what_holds_no_images_is_refused(tokenizer: Path, batch: Any, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        BatchEncoder(tokenizer)(batch)


def test_it_travels_without_its_weights(tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tokenizer.parent)
    encoder = BatchEncoder(tokenizer.name)
    expected = encoder(files(2))["codes"].tolist()
    data = pickle.dumps(encoder)
    assert len(data) < 1000
    monkeypatch.chdir("/")
    assert pickle.loads(data)(files(2))["codes"].tolist() == expected
    carried = pickle.loads(pickle.dumps(BatchEncoder(imtok.load(tokenizer))))
    assert carried(files(2))["codes"].tolist() == expected


def test_several_codebooks_have_an_axis_of_their_own() -> None:
    model = tiny(quantizer=QUANTIZERS["residual"])
    codes = BatchEncoder(model)(files(2))["codes"]
    assert codes.shape == (2, 4, 4, 3)
    assert BatchEncoder(model)([])["codes"].shape == (0, 4, 4, 3)


def test_options_that_cannot_be_met_are_refused(tokenizer: Path) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"fit": "stretch"}, "expected crop or pad"),
        ({"batch_size": 0}, "--batch-size 0: expected 1 or more"),
        ({"workers": 0}, "workers 0: expected 1 or more"),
    ]
    for options, message in wrong:
        with pytest.raises(ConfigError, match=message):
            BatchEncoder(tokenizer, **options)
    with pytest.raises(ConfigError, match="--size 30: no multiple"):
        BatchEncoder(tokenizer, size=30)(files(1))


def test_torchs_thread_count_is_left_as_it_was(tokenizer: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        BatchEncoder(tokenizer)(files(1))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_ray_data_writes_the_codes_of_each_path(tmp_path: Path) -> None:
    page = Path(__file__).parents[1] / "docs" / "ray.md"
    (sample,) = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.M | re.S)
    fill(tmp_path / "photos", [f"{n}.png" for n in range(3)])
    (tmp_path / "photos/1.png").write_bytes(b"broken")
    quiet = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run([sys.executable, "-c", sample], cwd=tmp_path, env=quiet, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = {Path(row["path"]).name: row for row in pq.read_table(tmp_path / "codes").to_pylist()}
    expected = BatchEncoder("imtok-f8")([encoded(picture(0)), b"broken", encoded(picture(2))])
    assert [rows[f"{n}.png"]["error"] for n in range(3)] == expected["error"].tolist() == ["", "not an image", ""]
    for number, codes in enumerate(expected["codes"]):
        assert np.array_equal(np.ravel(rows[f"{number}.png"]["codes"]), codes.ravel())
