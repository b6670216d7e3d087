"""Columns of conversations and preferences: notations of messages, and forms with several columns."""
