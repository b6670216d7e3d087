"""A project of one's own (`raypath init`), and the JSON Schema of settings for editors."""
