"""The cache on disk: content-named entries of immutable HDF5 shards. See docs/FORMAT.md.

Names and bytes
    key        what names a feature space, a recipe and an entry
    fields     types of fields in documents that may come from anyone
    verified   bytes read back: regular files of the committed size and SHA-256
    commit     files that are whole or absent
    skeleton   the headers of an HDF5 file, walked before HDF5 sees it
    columns    HDF5 files of a few plain columns, written and read

What lies there
    shard      feature rows
    samples    the sample table, and the ledger of unusable images
    manifest   what a manifest must hold before it is used
    entry      a finished entry: manifest, sample table, shards
    work       an extraction in progress: plan, commit records
    statindex  file digests remembered by size, times and inode

What is done with it
    catalog    which entries are under a cache root, and which one a user means
    rows       where a row with a given (feature space, image digest) already lies
    verify     full checks, and setting damaged files aside
    publish    a finished entry put in its place
    diff       what differs between two entries
    prune      what a cache root can do without
    single     an entry as one HDF5 file, and back
    npz        an entry as numpy arrays
"""
