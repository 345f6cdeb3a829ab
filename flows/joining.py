"""Ray for one flow run: a local one, or a cluster whose nodes run our code and can get at the weights."""

from collections.abc import Iterator
from contextlib import contextmanager

from flows.curation import VERSIONED, Curator
from flows.method import Setup
from infra.cluster.nodes import code_digest, refuse_skew
from infra.cluster.ray_cluster import ray_cluster
from infra.cluster.weights import publish_for


@contextmanager
def ray_for(curator: Curator, setup: Setup) -> Iterator[None]:
    """Start a local Ray, or join the cluster of the settings, refuse nodes that differ, and publish the weights.

    Raises:
        ClusterError: the cluster cannot be joined, or a node runs other code or versions than this process.
        ModelError, StoreError: the weights could not be put into the store.
    """
    address = curator.settings.ray_address
    if address is None:
        with ray_cluster(None):
            yield
        return
    with ray_cluster(address, code=code_digest()):
        refuse_skew(VERSIONED)
        engines = [setup.encoder, *(tier.engine for tier in setup.tiers)]
        for digest in publish_for(curator.store, engines, curator.settings.cache):
            curator.hooks.on_message(f"the weights {digest[:12]} are in the store now, for the nodes")
        yield
