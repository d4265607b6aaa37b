"""Bundles: all models of one training run, or of one release, as a folder that stands alone.

    bundle.json          what the scorer must know of the use case
    models/*.parquet     one row per partition (`tasks.scorer.BUNDLE_SCHEMA`), sorted, in small row groups;
                         models/tenant-wide.parquet holds the single row of partition "*"
    index.parquet        one row per partition, and one for "*": who answers for it, and where its model is
    manifest.json        sha256 of every other file; written last, so that a folder with a manifest is whole

The sha256 of manifest.json is the digest of the bundle.
"""

from tasks.bundle.folder import assemble, describe, differing, digest_of, seal, unlike, verify
from tasks.bundle.index import Entry, everyone_entry, fallback_entry, own_entry, read_index
from tasks.bundle.parts import Place, fresh, gather, link_or_copy, read_model, read_part, scan, write_part

__all__ = [
    "Entry",
    "Place",
    "assemble",
    "describe",
    "differing",
    "digest_of",
    "everyone_entry",
    "fallback_entry",
    "fresh",
    "gather",
    "link_or_copy",
    "own_entry",
    "read_index",
    "read_model",
    "read_part",
    "scan",
    "seal",
    "unlike",
    "verify",
    "write_part",
]
