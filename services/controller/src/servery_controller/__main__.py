"""``python -m servery_controller``."""

from servery_common.service import run
from servery_controller.app import main

if __name__ == "__main__":
    run("controller", main)
