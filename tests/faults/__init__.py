"""Runs that are killed, shut out or cut off from the database, and what is left once they have been run again."""
