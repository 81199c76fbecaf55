"""``python -m servery_credentials``."""

from servery_common.service import run
from servery_credentials.app import main

if __name__ == "__main__":
    run("credentials", main)
