"""The first process of a fleet job's container: fetches the run, starts the trainer, ships what it writes, delivers what it made."""
