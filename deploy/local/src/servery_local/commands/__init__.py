"""The subcommands of `servery`: one module for the stack, one for endpoints."""
