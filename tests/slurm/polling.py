"""Snakemake as from the command line, which asks after its cluster jobs every second.

The plugin waits ten seconds longer after each question, as it should on a real cluster.
"""

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

RemoteExecutor.next_seconds_between_status_checks = property(lambda self: 1, lambda self, _: None)

if __name__ == "__main__":
    main()
