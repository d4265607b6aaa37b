"""`orchard up` and `down`: the whole platform on one machine, watched over by supervisord.

supervisord (https://supervisord.org) starts the parts, restarts those that die, and keeps their logs. What is here
tells it which parts there are (`parts`, `configuration`), talks to it (`supervisor`), brings them up in order (`up`),
takes them down in the reverse one (`down`), and asks each whether it works (`health`).
"""
