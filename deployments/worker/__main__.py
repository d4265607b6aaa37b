"""Works for one pool until it is told to stop. Nothing but this is imported again in every run's process."""

import sys

if __name__ == "__main__":
    from deployments.worker.tier_worker import main

    main(sys.argv[1])
