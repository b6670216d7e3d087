"""`raypath predict`: batch inference by a workflow, and encrypted predictions of an endpoint."""
