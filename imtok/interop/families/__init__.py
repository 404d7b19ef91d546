"""Published families of tokenizers, one module each: from their keys and configuration to ours."""
