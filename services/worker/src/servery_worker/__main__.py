"""``python -m servery_worker``."""

from servery_common.service import run
from servery_worker.app import main

if __name__ == "__main__":
    run("worker", main)
