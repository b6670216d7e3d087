"""Host names of the loopback interface."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")
