"""``python -m servery_scaler``."""

from servery_common.service import run
from servery_scaler.app import main

if __name__ == "__main__":
    run("scaler", main)
