"""The cache on disk: content-named entries of immutable HDF5 shards. See docs/FORMAT.md.

key        what names a feature space, a recipe and an entry
commit     files that are whole or absent
shard      feature rows as the bytes of one HDF5 file, and back
entry      a finished entry: manifest, sample table, shards
work       an extraction in progress: plan, commit records
rows       where a row with a given (feature space, image digest) already lies
statindex  file digests remembered by size, times and inode
catalog    which entries are under a cache root, and which one a user means
skeleton   the headers of an HDF5 file, walked before HDF5 sees it
verify     full checks, and setting damaged files aside
"""
