"""The platform that runs by itself: files arrive, parts die, and every upload comes to its end exactly once."""
