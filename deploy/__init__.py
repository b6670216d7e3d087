"""Where things run: the command line, the runner, the store and one launcher a file."""
