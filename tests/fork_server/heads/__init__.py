"""What a Ray head of the tests finds first in its search path: its workers are forked."""
