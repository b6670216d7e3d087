"""Live tests: a canary or a shadow is promoted, or sent back, by what live requests show."""
