"""Core contracts: artifacts, params, components, workflows, context and errors. Needs only pydantic."""
