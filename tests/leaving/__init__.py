"""A tenant leaves: export, erasure, certificate."""
