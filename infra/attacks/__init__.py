"""Attacks of one tenant on another, with the first one's real credentials: the proof that they are kept apart.

Here are those on storage, database, registry, caches and names. What needs flows or the API is in `flows.attacks`,
which also runs them all.
"""
