"""The loop that makes what is there equal to what is wanted."""
