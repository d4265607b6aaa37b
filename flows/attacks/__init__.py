"""Attacks of one tenant on another that need flows or the HTTP API; and the proof as a whole, with its report."""
