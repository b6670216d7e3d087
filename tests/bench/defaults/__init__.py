"""Raypath's default settings against a grid of settings, on public sets of classified texts from package registries."""
