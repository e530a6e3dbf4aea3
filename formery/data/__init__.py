"""Data: embedded, folders and files of users, synthetic probes."""
