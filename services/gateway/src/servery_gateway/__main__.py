"""``python -m servery_gateway``."""

from servery_common.service import run as run_process
from servery_gateway.app import run

if __name__ == "__main__":
    run_process("gateway", run)
