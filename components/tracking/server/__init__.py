"""MLflow's tracking server with a login: for a home on this machine, and for pods."""
