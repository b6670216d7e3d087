"""Signatures of registered models: keys, signed manifests of files, signed records of versions and promotions."""
