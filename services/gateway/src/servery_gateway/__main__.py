"""``python -m servery_gateway``."""

from servery_common.service import run
from servery_gateway.app import main

if __name__ == "__main__":
    run("gateway", main)
