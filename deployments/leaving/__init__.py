"""A tenant leaves: what is its own is handed over, what is of it is removed, and what is left is searched for."""
