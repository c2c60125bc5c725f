"""Redis Cluster: batches of commands split by node, and their replies put together (`docs/cluster.md`).

Operations know nothing of it. `slots` says where a key lies, `commands` takes a batch apart, `topology` knows the
nodes, `scans` walks over the keys of all of them, `delivery` brings a batch there and back, all without I/O;
`connections` are the sync and the async way to the nodes.
"""
