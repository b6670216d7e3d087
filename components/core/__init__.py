"""The contracts that everything else is written against: standard library and pydantic only."""
