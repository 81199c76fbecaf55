"""The embedded mode of Servery: the whole platform as child processes of one command."""
