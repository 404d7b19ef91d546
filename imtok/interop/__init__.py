"""Published tokenizers in: checkpoints of other projects become tokenizers of imtok."""
