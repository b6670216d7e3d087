"""The local launcher: Ray head, MLflow server and HAProxy on loopback."""
