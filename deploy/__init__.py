"""Deployment: command line, runner, artifact store and launchers."""
