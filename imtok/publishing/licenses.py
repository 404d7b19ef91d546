"""Licences as the Hub names them in a card's metadata."""

from __future__ import annotations

import re

from imtok.errors import ConfigError

# The names that the Hub knows and that weights are published under; any other becomes `other` with its own name.
KNOWN = {
    *("afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bigscience-openrail-m", "bsd", "bsd-2-clause"),
    *("bsd-3-clause", "bsd-3-clause-clear", "bsl-1.0", "c-uda", "cc", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0"),
    *("cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0"),
    *("cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0"),
    *("cc0-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0", "creativeml-openrail-m"),
    *("ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1", "eupl-1.2", "gfdl", "gpl", "gpl-2.0", "gpl-3.0"),
    *("isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "lppl-1.3c", "mit", "mpl-2.0", "ms-pl", "ncsa", "odbl", "odc-by"),
    *("ofl-1.1", "openrail", "openrail++", "osl-3.0", "pddl", "postgresql", "unlicense", "wtfpl", "zlib"),
}


def license_metadata(name: str) -> dict[str, str]:
    """Return the lines of a card's metadata for a licence; raises ConfigError where none is named."""
    short = re.sub(r"[^a-z0-9.+-]+", "-", name.strip().lower()).strip("-")
    if not short:
        raise ConfigError("--license is empty: whoever takes a published tokenizer needs to know it; for instance mit")
    return {"license": short} if short in KNOWN else {"license": "other", "license_name": short}
