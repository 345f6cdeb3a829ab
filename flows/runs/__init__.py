"""Executing a curation: in a flow run, on servers, with failures explained."""
