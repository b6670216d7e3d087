"""Launcher for Kubernetes with KubeRay, and its manifests."""
