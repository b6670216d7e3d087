"""The Python interface: what `import raypath` gives beside components and the client, and `--json` prints."""
