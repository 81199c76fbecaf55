"""`python -m servery_local`: the same as the `servery` command. `servery up --detach` starts it."""

from servery_local.cli import main

if __name__ == "__main__":
    main()
