"""Settings that follow from the data: facts about the rows, the rules, measured speed and a budget of time."""
