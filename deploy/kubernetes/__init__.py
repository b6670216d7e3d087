"""The KubeRay launcher and Kubernetes manifests."""
