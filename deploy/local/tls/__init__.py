"""Certificates of TLS listeners: an authority of the project's own, files of the team's, and their expiry."""
