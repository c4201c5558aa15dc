"""What can be wrong with a cluster, for those who import no Ray."""


class ClusterError(RuntimeError):
    """No cluster can be had as asked for; the message says what to do."""


class ClusterLost(RuntimeError):
    """Something that a running study cannot do without has died; the message says what."""
