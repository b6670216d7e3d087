"""Selection of the engine of a version: measurements at registration, the stored choice, and opening by it."""
