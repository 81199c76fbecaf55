"""``python -m servery_builder``: run the builder until SIGTERM."""

from servery_builder.app import NAME, main
from servery_common.service import run

if __name__ == "__main__":
    run(NAME, main)
