"""A Ray cluster of several nodes on this machine, in a process of its own that can be told to add and kill nodes.

`python ray_nodes.py N` starts a head that takes no work and N nodes of one CPU, prints the address, and then does
what it reads, a line each: `add` starts a node, `kill` ends the oldest by SIGKILL. The end of its input ends it all.
"""

import os
import subprocess
import sys
import tempfile


class Nodes:
    """The cluster, for a test. Its workers have `environment`, and import from the driver's paths."""

    def __init__(self, count, environment):
        from pipeline.launch.cluster import QUIET

        variables = {**os.environ, **QUIET, "RAY_AUTH_MODE": "disabled", **environment}
        variables.pop("PYTHONPATH", None)  # what they import from is the driver's to say
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(count)],
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ready(self):
        """Wait until what was asked for is done; return what it says: of the start, the address."""
        return self._process.stdout.readline().strip()

    def tell(self, what):
        """Have a node added or killed, without waiting."""
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()

    def close(self):
        self._process.communicate()


def main():
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:  # short: sockets
        os.environ["RAY_TMPDIR"] = folder  # where the address is, too: `auto` finds nothing of this
        from ray.cluster_utils import Cluster

        # A node that says nothing is lost after 5 s, not 25.
        system = {"health_check_period_ms": 1000, "health_check_timeout_ms": 2000, "health_check_failure_threshold": 3}
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": system}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        nodes = [cluster.add_node(wait=False, num_cpus=1) for _ in range(int(sys.argv[1]))]
        cluster.wait_for_nodes()
        print(cluster.address, flush=True)
        for line in sys.stdin:
            if line.strip() == "add":
                nodes.append(cluster.add_node(num_cpus=1))
            else:
                cluster.remove_node(nodes.pop(0), allow_graceful=False)
            print("done", flush=True)
        cluster.shutdown()


if __name__ == "__main__":
    main()
