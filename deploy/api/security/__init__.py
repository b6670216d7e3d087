"""The Python interface to signatures, backups and what protects data; `raypath.deploy.cli.security` prints it."""
