"""Token folders: shards of codes, their plan and manifest, and reading them as a data set."""

from imtok.packed_strings import PackedStrings
from imtok.tokens.batch_sampler import TokenBatchSampler
from imtok.tokens.dataset import ImageSource, LabelledTokens, TokenDataset, open_tokens
from imtok.tokens.folder import Manifest, TokensInfo, read_info, read_manifest
from imtok.tokens.plan import Numerics
from imtok.tokens.shard import Shard, ShardHeader, read_shard, shard_to_bytes
from imtok.tokens.verify import Verification, verify_tokens
from imtok.tokens.writing import write_tokens

__all__ = [
    "ImageSource",
    "LabelledTokens",
    "Manifest",
    "Numerics",
    "PackedStrings",
    "Shard",
    "ShardHeader",
    "TokenBatchSampler",
    "TokenDataset",
    "TokensInfo",
    "Verification",
    "open_tokens",
    "read_info",
    "read_manifest",
    "read_shard",
    "shard_to_bytes",
    "verify_tokens",
    "write_tokens",
]
